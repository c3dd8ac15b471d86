"""One thread's copy of a module, whose parameters are views of a flat vector."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, local
from typing import Any

import numpy as np
import torch

from hemiola.types import Array

DRAWING = Lock()
"""Who holds it may seed and use PyTorch's generators, of which a process has one a device."""


class Rows:
    """An array that does not fill pages where settings are written down."""

    def __init__(self, X: Array) -> None:
        self.X = X

    def __repr__(self) -> str:
        digest = hashlib.blake2b(np.ascontiguousarray(self.X).data, digest_size=8).hexdigest()
        return f"{len(self.X)} samples ({digest})"


class _Writable:
    """The memory of a read-only array, for a reader that asks for more than it needs."""

    def __init__(self, array: Array) -> None:
        self.array = array  # keeps the memory
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def tensor_of(array: Array) -> Any:
    """A tensor that shares the array's memory; it must not be written to if the array must not."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    return torch.from_numpy(np.asarray(_Writable(np.ascontiguousarray(array))))


def device_of(name: str) -> Any:
    """Where a module's flat vector of parameters is; the parameters may have devices of their
    ``own``."""
    return torch.device("cpu" if name == "own" else name)


@contextmanager
def seeded(seed: int, device: Any = None) -> Iterator[None]:
    """PyTorch's generators at one address; as they were, afterwards."""
    cuda = [device] if device is not None and device.type == "cuda" else []
    with DRAWING, torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield


class Nets:
    """The copies of one module: each thread has its own for every type of numbers."""

    def __init__(self) -> None:
        self._here = local()

    def __reduce__(self) -> Any:
        return Nets, ()

    def __deepcopy__(self, memo: Any) -> Nets:
        return Nets()

    def get(self, module: Any, w: Any, device: str) -> Net:
        """This thread's copy, at w (d,), an array or a tensor."""
        flat = w if torch.is_tensor(w) else tensor_of(w)
        nets, name = self._here.__dict__, str(flat.dtype)
        if name not in nets:
            nets[name] = Net(module, flat.dtype, device)
        net: Net = nets[name]
        net.put(flat)
        return net


class Net:
    """A copy of a module.

    ``weights`` are the parameters that a penalty counts; ``dtype`` is that of w.
    """

    def __init__(self, module: Any, dtype: Any, device: str) -> None:
        torch.set_num_threads(1)
        self.device = device_of(device)
        self.dtype = dtype
        self.module = copy.deepcopy(module).to(self.dtype)
        if device != "own":
            self.module.to(self.device)
        self._modes = [(own, given.training) for own, given in self._pairs(module)]
        self._parameters = [p for p in self.module.parameters() if p.requires_grad]
        self._shapes = [p.shape for p in self._parameters]
        self._sizes = [p.numel() for p in self._parameters]
        self._buffers = [(b, b.clone(), b._version) for b in self.module.buffers()]
        self._draws: bool | None = None
        self.weights = [p for p in self._parameters if p.ndim > 1]

    def _pairs(self, module: Any) -> Iterator[tuple[Any, Any]]:
        return zip(self.module.modules(), module.modules(), strict=True)

    def put(self, flat: Any) -> None:
        """Let the parameters be views of a tensor (d,), on the device."""
        for p, part in zip(self._parameters, self._cut(flat.to(self.device)), strict=True):
            p.data = part.to(p.device)

    def train(self) -> None:
        """Training mode, but for the parts that the user has put into evaluation mode."""
        for part, training in self._modes:
            part.training = training

    def _cut(self, flat: Any) -> Iterator[Any]:
        for part, shape in zip(flat.split(self._sizes), self._shapes, strict=True):
            yield part.view(shape)

    def gradient(self, l2: float) -> Any:
        """What backward has left in the parameters, and that of l2/2 |weights|^2: (d,), new."""
        with torch.no_grad():
            parts = [self._gradient_of(p, l2 if p.ndim > 1 else 0.0) for p in self._parameters]
            return torch.cat([part.to(self.device).reshape(-1) for part in parts])

    def _gradient_of(self, p: Any, l2: float) -> Any:
        """Backward's own tensor where it left one; the module may not have used the parameter."""
        g = torch.zeros_like(p) if p.grad is None else p.grad
        g = g.to_dense() if g.is_sparse else g
        return g.add_(p, alpha=l2) if l2 else g

    def forget(self) -> None:
        """Let the next backward start afresh."""
        for p in self._parameters:
            p.grad = None

    @contextmanager
    def drawing(self, seed: Callable[[], int]) -> Iterator[None]:
        """Random numbers from this seed, if the module draws any; the first time tells."""
        if self._draws is False:
            yield
            return
        with seeded(seed(), self.device):
            before = self._generators()
            yield
            if self._draws is None:
                self._draws = any(
                    not torch.equal(a, b) for a, b in zip(before, self._generators(), strict=True)
                )

    def _generators(self) -> list[Any]:
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self.device)] if self._on_gpu else states

    @property
    def _on_gpu(self) -> bool:
        return bool(self.device.type == "cuda")

    def undo(self) -> None:
        """Put back what was written to buffers."""
        for i, (buffer, value, version) in enumerate(self._buffers):
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(value)
                self._buffers[i] = (buffer, value, buffer._version)

    def place(self, array: Array) -> Any:
        """An array as a tensor on the device."""
        return tensor_of(array).to(self.device)

    def host(self, tensor: Any) -> Array:
        """A tensor as an array on the host: its own memory if it is there."""
        found: Array = tensor.cpu().numpy()
        return found

"""Any network of PyTorch as an objective.

    f(w) = 1/n sum_i loss(net(x_i; w), y_i) + l2/2 |weights|^2

w (d,) holds the module's trainable parameters one after another, in the order of
``module.parameters()``, each in row-major order. On the CPU nothing is copied: the parameters are
views of w, and their gradients views of the vector that :meth:`Torch.grad` returns. What is not
trained (``requires_grad=False``) keeps its value. The penalty leaves out parameters of fewer than
two dimensions: biases, and the scales of normalisation layers.

*Buffers* are no part of w and no state of a worker; else w would not say what a model predicts.
Whatever a gradient writes to them, such as running statistics, is undone after it. Batch
normalisation uses the statistics of the mini-batch in :meth:`Torch.grad`; in :meth:`Torch.value`
and :meth:`Torch.predict` it uses those of a fixed sample, the ``calibration``, at w ("precise
BatchNorm", Wu, Johnson, "Rethinking 'batch' in BatchNorm", arXiv:2105.07576): so every engine finds
the same.

*Random numbers*, as for dropout, are drawn in :meth:`Torch.grad` only, from a stream with the
batch's address: worker k's step t drops the same units on every engine. PyTorch has one generator a
process, so on engine ``threads`` the forward passes of a module that draws take turns.

*Devices.* With ``device="cuda"`` the module, its batch and its gradient live there. A worker that
takes several steps between two messages takes them there, too: its model and its optimiser's memory
go there at the first and come back after the last. Messages, and the server's rules, are NumPy's,
on the host; so a worker that sends every gradient copies w and g each time.

*Threads.* A worker computes with one thread of PyTorch, as with one of BLAS: parallelism is the
engine's. This sets the number of threads of the process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from numpy.random import Generator

from hemiola.component import component
from hemiola.dataset import Batch, Dataset
from hemiola.errors import DataError, OptionError
from hemiola.objectives._net import Net, Nets, Rows, device_of
from hemiola.objectives.networks import Built, build, module_for
from hemiola.rng import stream
from hemiola.types import Array

_CHUNK = 1024
_LOSSES = ("cross-entropy", "squared")
_BATCH_NORM = torch.nn.modules.batchnorm._NormBase


@component
class Torch:
    """A ``torch.nn.Module`` under a loss.

    ``module``       the network, or one of this library by name and sizes, as
                     ``"mlp(inputs=64, classes=10, hidden=32)"``
                     (:mod:`hemiola.objectives.networks`); takes (m, p), or (m, \\*shape);
    ``loss``         ``cross-entropy`` of class scores (m, C); ``squared``, (z - y)^2 / 2, of (m,)
                     or (m, 1); or a function of outputs and targets that gives (m,) losses, or
                     their mean;
    ``shape``        of a sample, as (1, 28, 28) for images; None: its p features;
    ``l2``           weight decay;
    ``dtype``        ``float32`` or ``float64``; None: that of the data;
    ``device``       where the module computes: ``cpu``, ``cuda``, ``cuda:1``; ``own``: where its
                     parameters are, as those of :func:`hemiola.objectives.split.split`;
    ``autocast``     compute in bfloat16 where PyTorch thinks it safe;
    ``calibration``  (m, p) samples, for modules with running statistics.

    Raises :class:`~hemiola.errors.OptionError` for what is no module, and for devices that are not
    there. Data must be dense.

    >>> from hemiola.dataset import Batch, make_dataset
    >>> data = make_dataset([[1.0, 0.0], [0.0, 1.0]], ["no", "yes"])
    >>> objective = Torch(torch.nn.Linear(2, 2, bias=False))
    >>> objective.grad(np.zeros(4), Batch(data)).tolist()
    [-0.25, 0.25, 0.25, -0.25]
    """

    module: Any
    loss: Any = "cross-entropy"
    shape: tuple[int, ...] | None = None
    l2: Annotated[float, Ge(0)] = 0.0
    dtype: str | None = None
    device: str = "cpu"
    autocast: bool = False
    calibration: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.loss, str) and self.loss not in _LOSSES:
            raise OptionError(f"Torch: loss must be one of {', '.join(_LOSSES)}, or a function.")
        if self.dtype not in (None, "float32", "float64"):
            raise OptionError(f"Torch: dtype must be float32 or float64, not {self.dtype!r}.")
        if isinstance(self.module, str):
            object.__setattr__(self, "_built", build(self.module))
        elif isinstance(self.module, torch.nn.Module):
            object.__setattr__(self, "_built", Built(self.module))
        else:
            raise OptionError(f"Torch: {self.module!r} is no torch.nn.Module.")
        if self.calibration is not None and not isinstance(self.calibration, Rows):
            object.__setattr__(self, "calibration", Rows(np.asarray(self.calibration)))
        _check_device(self.device)
        object.__setattr__(self, "_nets", Nets())

    @property
    def _own(self) -> Built:
        built: Built = self._built  # type: ignore[attr-defined]
        return built

    @property
    def module_shape(self) -> tuple[int, ...] | None:
        """The shape of a sample as the module takes it."""
        return self._own.shape if self.shape is None else self.shape

    @property
    def size(self) -> int:
        """d, the number of trainable parameters."""
        return sum(p.numel() for p in self._own.module.parameters() if p.requires_grad)

    def check(self, data: Dataset) -> None:
        """Raise :class:`~hemiola.errors.DataError` when data and targets do not fit."""
        if data.is_sparse:
            raise DataError(f"{data.name}: networks take dense data; these are sparse.")
        shape = self.module_shape
        if shape is not None and math.prod(shape) != data.n_features:
            raise DataError(
                f"{data.name}: has {data.n_features} features, but the module takes samples of "
                f"shape {shape}."
            )
        if self.loss == "cross-entropy" and data.classes is None:
            raise DataError(f"{data.name}: cross-entropy needs classes; use loss='squared'.")
        if self.loss == "squared" and data.classes is not None:
            raise DataError(f"{data.name}: squared loss needs real targets (regression=True).")
        if not self.size:
            raise OptionError("Torch: the module has no trainable parameters.")
        if self.calibration is None and any(map(_keeps_statistics, self._own.module.modules())):
            raise OptionError(
                "Torch: the module keeps running statistics, which are no function of its weights: "
                "give it samples to take them on, as calibration=data.X[:1000]."
            )
        self._try(data)

    def init(self, data: Dataset, rng: Generator) -> Array:
        """The module's parameters (d,) as they are; drawn by ``rng`` if it was given by name."""
        module = self._own.drawn(int(rng.integers(2**63)))
        flat = [p.detach().cpu().reshape(-1) for p in module.parameters() if p.requires_grad]
        dtype: Any = data.dtype if self.dtype is None else self.dtype
        return np.asarray(torch.cat(flat).to(torch.float64).numpy()).astype(dtype)

    def value(self, w: Array, batch: Batch) -> float:
        """The objective in evaluation mode: what :meth:`predict` predicts with."""
        net, n = self._net(w), len(batch)
        with torch.no_grad():
            total = 0.0
            self._evaluating(net, w)
            for rows in _chunks(np.arange(len(batch.data)) if batch.rows is None else batch.rows):
                part = Batch(batch.data, rows)
                total += float(self._loss(net, part)) * len(rows)
            penalty = 0.5 * self.l2 * float(sum(p.square().sum() for p in net.weights))
        return total / max(n, 1) + penalty

    def grad(self, w: Any, batch: Batch) -> Any:
        """The gradient (d,) in training mode, of an empty batch only the penalty's: a new array, or
        a new tensor on the device if w (d,) is a tensor (:meth:`place`)."""
        net = self._net(w)
        try:
            if len(batch):
                self._backward(net, batch)
            g = net.gradient(self.l2)
            return g if torch.is_tensor(w) else net.host(g)
        finally:
            net.forget()

    @property
    def is_elsewhere(self) -> bool:
        """Whether w and its gradient are not in the host's memory while the module computes."""
        return bool(device_of(self.device).type != "cpu")

    def place(self, array: Array) -> Any:
        """A copy of the array, a tensor on the device."""
        return torch.tensor(array, device=device_of(self.device))

    def fetch(self, tensor: Any) -> Array:
        """A copy of the tensor, an array on the host."""
        array: Array = tensor.cpu().numpy()
        return array if self.is_elsewhere else array.copy()

    def _backward(self, net: Net, batch: Batch) -> None:
        net.train()
        try:
            with net.drawing(partial(_seed, batch.address)):
                loss = self._loss(net, batch)
            loss.backward()
        except ValueError as error:  # as of a layer that normalises one value
            raise DataError(
                f"{batch.data.name}: the module refuses a mini-batch of {len(batch)} "
                f"({error}); choose another batch_size."
            ) from error
        finally:
            net.undo()

    def predict(self, w: Array, X: Any) -> Array:
        """Class numbers (m,), or real predictions (m,) if the loss is ``squared``."""
        return self._decide(self.outputs(w, X))

    def outputs(self, w: Array, X: Any) -> Array:
        """What the module makes of the rows of X in evaluation mode, such as scores (m, C)."""
        net = self._net(w)
        with torch.no_grad():
            self._evaluating(net, w)
            parts = [self._forward(net, X[rows]) for rows in _chunks(np.arange(len(X)))]
        return net.host(torch.cat(parts).to(net.dtype))

    def state_dict(self, w: Array) -> Mapping[str, Any]:
        """The module's parameters and buffers at w by name: copies, for ``load_state_dict``."""
        net = self._net(w)
        with torch.no_grad():
            self._evaluating(net, w)
            return {name: t.detach().cpu().clone() for name, t in net.module.state_dict().items()}

    def _net(self, w: Array) -> Net:
        """This thread's copy of the module, with its parameters in w."""
        nets: Nets = self._nets  # type: ignore[attr-defined]
        return nets.get(self._own.module, w, self.device)

    def _evaluating(self, net: Net, w: Array) -> None:
        """Bring the copy into evaluation mode, its statistics up to date."""
        net.module.eval()
        if self.calibration is None:
            return
        layers = [m for m in net.module.modules() if _keeps_statistics(m)]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean over chunks
            layer.train()
        for rows in _chunks(np.arange(len(self.calibration.X))):
            self._forward(net, self.calibration.X[rows])
        net.module.eval()

    def _forward(self, net: Net, X: Array) -> Any:
        shape = self.module_shape
        x = net.place(X).to(net.dtype)
        x = x if shape is None else x.view(-1, *shape)
        with torch.autocast(net.device.type, torch.bfloat16, self.autocast):
            return net.module(x)

    def _loss(self, net: Net, batch: Batch) -> Any:
        """The mean loss over a batch (), without the penalty."""
        data, rows = batch.data, slice(None) if batch.rows is None else batch.rows
        outputs = self._forward(net, data.X[rows])
        outputs = outputs.to(net.dtype) if torch.is_tensor(outputs) else outputs
        losses = self._losses(outputs, net.place(data.y[rows]))
        if data.weight is None:
            return losses.mean()
        if losses.ndim != 1:
            raise DataError(
                f"{data.name}: has sample weights, so the loss must give one value a sample; "
                "use reduction='none'."
            )
        return (losses * net.place(data.weight[rows])).mean()

    def _losses(self, outputs: Any, y: Any) -> Any:
        if self.loss == "cross-entropy":
            return torch.nn.functional.cross_entropy(outputs, y, reduction="none")
        if self.loss == "squared":
            return (outputs.view(len(y)) - y.to(outputs.dtype)).square() / 2
        return self.loss(outputs, y)

    def _decide(self, outputs: Array) -> Array:
        if self.loss == "squared" or outputs.ndim == 1 or outputs.shape[1] == 1:
            return outputs.reshape(len(outputs))
        return outputs.argmax(axis=1)

    def _try(self, data: Dataset) -> None:
        """Say in our words what does not fit."""
        net = self._net(self.init(data, stream(0, "try")))
        net.module.eval()
        two = Batch(data, np.arange(min(2, len(data))))
        try:
            with torch.no_grad():
                outputs = self._forward(net, data.X[two.rows])
                self._loss(net, two)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise DataError(
                f"{data.name}: the module does not fit the data, samples of "
                f"{data.n_features} features: {str(error).splitlines()[0]}"
            ) from error
        wanted = data.n_classes
        if self.loss == "cross-entropy" and outputs.shape[1:] != (wanted,):
            raise DataError(
                f"{data.name}: has {wanted} classes, but the module gives outputs of shape "
                f"{tuple(outputs.shape[1:])}."
            )


def _keeps_statistics(layer: Any) -> bool:
    return isinstance(layer, _BATCH_NORM) and layer.track_running_stats


def _seed(address: tuple[int, int, int] | None) -> int:
    """Of what is drawn for a batch; all batches without an address share one."""
    seed, worker, t = address or (0, 0, 0)
    return int(stream(seed, "torch", worker, t).integers(2**63))


def _chunks(rows: Array) -> Iterator[Array]:
    yield from (rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK))


def _check_device(name: str) -> None:
    if name == "own":
        return
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(
            f"Torch: there is no device {name!r}; use cpu, cuda or cuda:1."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise OptionError("Torch: PyTorch finds no GPU here; use device='cpu'.")
    if device.type not in ("cpu", "cuda"):
        raise OptionError(f"Torch: device {name!r} is not supported; use cpu or cuda.")


def network(text: str, data: Dataset, l2: float = 0.0) -> Torch:
    """An objective for these data by name: one of the zoo, ``mlp`` or ``mlp(hidden=32)``, or what a
    function ``package.module:factory`` makes of ``inputs`` and ``classes`` (1 for real targets).

    >>> from hemiola.data import load
    >>> network("mlp(hidden=32)", load("digits")).module
    'mlp(inputs=64, classes=10, hidden=32)'
    """
    module = module_for(text, data.n_features, max(data.n_classes, 1))
    if isinstance(module, Torch):
        return module
    loss = "squared" if data.classes is None else "cross-entropy"
    rows = None
    if isinstance(module, torch.nn.Module) and any(map(_keeps_statistics, module.modules())):
        rows = stream(0, "calibration").permutation(len(data))[:_CHUNK]
    return Torch(module, loss, l2=l2, calibration=None if rows is None else data.X[rows])

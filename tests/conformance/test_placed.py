"""Local steps on tensors, as on a GPU, are those on the host; nothing moves between two steps.

The tensors are PyTorch's on the CPU, in memory of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from hemiola.algorithms.registry import RECIPES
from hemiola.dataset import make_dataset
from hemiola.local.placed import here, there
from hemiola.optim import SGD, Adagrad, Adam, AdamW, FedAdagrad, FedAdam, FedYogi, Nesterov
from hemiola.optim import HeavyBall as Momentum

torch = pytest.importorskip("torch")

from hemiola.objectives import Torch  # noqa: E402

ON_THE_HOST = ("cocoa", "admm", "admm-sharing", "admm-async", "distbelief")
"""These refuse networks, or split them over the host."""

SINGLE = ("ssgd", "asgd", "ssp", "adadelay", "adaptive-revision", "dc-asgd", "hybrid",
          "sandblaster", "lbfgs")  # fmt: skip
"""A message for every gradient: they have no local steps."""


@dataclass
class Elsewhere:
    """A network on a device with memory of its own; it counts what moves there and back."""

    network: Any
    moved: list[str] = field(default_factory=list)
    gradients: list[type] = field(default_factory=list)
    is_elsewhere: bool = True

    def place(self, array):
        self.moved.append("there")
        return self.network.place(array)

    def fetch(self, tensor):
        self.moved.append("here")
        return self.network.fetch(tensor)

    def grad(self, w, batch):
        self.gradients.append(type(w))
        return self.network.grad(w, batch)

    def __getattr__(self, name):
        return getattr(self.network, name)


def digits():
    rng = np.random.default_rng(3)
    return make_dataset(rng.random((60, 9)), np.arange(60) % 3)


def network():
    return Torch("mlp(inputs=9, classes=3, hidden=4)", l2=0.1)


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in ON_THE_HOST])
def test_a_run_is_the_same_to_rounding(algorithm, run, name):
    chosen = algorithm(name, lr=0.05)
    elsewhere = Elsewhere(network())
    ours = run(chosen, elsewhere, digits(), workers=3, updates=8)
    theirs = run(chosen, network(), digits(), workers=3, updates=8)
    for a, b in zip(ours.models, theirs.models, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    kind = np.ndarray if name in SINGLE else torch.Tensor
    assert set(elsewhere.gradients) == {kind}
    assert (name in SINGLE) == (not elsewhere.moved)


@pytest.mark.parametrize(
    ("name", "steps"),
    [("bmuf-adam", "steps"), ("diloco", "steps"), ("eamsgd", "period"),
     ("eamsgd-async", "period"), ("downpour", "n_push")],
)  # fmt: skip
def test_as_much_moves_for_ten_steps_as_for_two(algorithm, run, name, steps):
    counts = {}
    for n in (2, 10):
        more = {"n_fetch": n} if name == "downpour" else {}
        elsewhere = Elsewhere(network())
        run(algorithm(name, lr=0.01, **{steps: n}, **more), elsewhere, digits(),
            workers=2, updates=4)  # fmt: skip
        counts[n] = len(elsewhere.moved)
        assert len(elsewhere.gradients) >= 4 * n
    assert counts[2] == counts[10] > 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "rule",
    [SGD(0.1), Momentum(0.1), Nesterov(0.1), Adagrad(0.1), Adam(0.1), AdamW(0.1), FedAdam(0.1),
     FedYogi(0.1), FedAdagrad(0.1)],
    ids=lambda rule: type(rule).__name__,
)  # fmt: skip
def test_a_rule_s_steps_on_tensors_are_its_steps_on_arrays(rule, dtype):
    objective = Elsewhere(network())
    w = np.linspace(-1.0, 2.0, 33).astype(dtype)
    state = rule.init(w)
    tensor, memory = there(objective, [w, rule.init(w)])
    for t, g in enumerate(np.random.default_rng(0).normal(size=(20, 33)).astype(dtype)):
        w, state = rule.step(w, g, state, t)
        tensor, memory = rule.step(tensor, objective.place(g), memory, t)
        assert torch.is_tensor(tensor)
    found, kept = here(objective, [tensor, memory])
    assert found.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found, w, rtol=4 * eps, atol=4 * eps)
    assert set(kept) == set(state)
    for name, value in state.items():
        np.testing.assert_allclose(kept[name], value, rtol=4 * eps, atol=4 * eps)


def test_a_copy_shares_no_memory():
    w = np.zeros(3)
    tensor = network().place(w)
    tensor += 1
    assert not w.any()
    back = network().fetch(tensor)
    back += 1
    assert tensor.tolist() == [1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["model-averaging", "bmuf-adam", "eamsgd"])
def test_on_a_gpu_the_steps_are_those_on_the_cpu(algorithm, run, name):
    gpu = Torch("mlp(inputs=9, classes=3, hidden=4)", l2=0.1, device="cuda")
    assert gpu.is_elsewhere
    chosen = algorithm(name, lr=0.05)
    ours = run(chosen, gpu, digits(), workers=2, updates=4)
    theirs = run(chosen, network(), digits(), workers=2, updates=4)
    np.testing.assert_allclose(ours.last, theirs.last, rtol=1e-9)

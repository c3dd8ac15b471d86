"""Networks as objectives: gradients against PyTorch and finite differences, purity, refusals."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from types import ModuleType

import numpy as np
import pytest

from hemiola.algorithms.registry import build as recipe
from hemiola.data import Standardizer, load
from hemiola.dataset import Batch, make_dataset
from hemiola.errors import CheckpointError, DataError, OptionError
from hemiola.result import Model, Result
from hemiola.training import fit, make_objective

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hemiola.data.torch import from_torch  # noqa: E402
from hemiola.objectives import Torch  # noqa: E402
from hemiola.objectives.networks import alexnet, build, characters  # noqa: E402


def images(n=12, p=784, classes=3, dtype=np.float64, weight=None):
    rng = np.random.default_rng(3)
    y = np.arange(n) % classes
    return make_dataset(rng.random((n, p)).astype(dtype), y, weight=weight)


def text():
    return characters("the cat sat on the mat; the rat sat on the cat. " * 2, context=6)


CASES = {
    "mlp": lambda: (Torch("mlp(inputs=784, classes=3, hidden=4)", l2=0.1), images()),
    "mlp2": lambda: (
        Torch("mlp2(inputs=784, classes=3, hidden=4, hidden2=5)", l2=0.1), images()
    ),
    "charlm": lambda: (
        Torch(f"charlm(inputs=6, classes={text().n_classes}, width=8, heads=2, layers=1)"), text()
    ),
    "squared": lambda: (
        Torch(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), "squared", l2=0.2),
        make_dataset(np.random.default_rng(0).normal(size=(9, 3)), np.arange(9.0), regression=True),
    ),
    "weighted": lambda: (
        Torch("mlp(inputs=784, classes=3, hidden=4)"), images(weight=np.arange(1.0, 13.0))
    ),
    "a loss of one's own": lambda: (
        Torch(nn.Linear(784, 3), nn.MultiMarginLoss(reduction="none")), images()
    ),
    "the mean of one": lambda: (Torch(nn.Linear(784, 3), nn.CrossEntropyLoss()), images()),
    "tied": lambda: (Torch(Tied()), make_dataset(np.eye(4), [0, 1, 2, 3])),
    "frozen": lambda: (Torch(frozen()), make_dataset(np.eye(4), [0, 1, 1, 0])),
}  # fmt: skip


class Tied(nn.Module):
    """One matrix, used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def frozen():
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    module[0].weight.requires_grad_(False)
    return module


def algorithm(name, lr=0.1, **options):
    return recipe(name, {"lr": lr, **options})


def start(objective, data, dtype=np.float64):
    return objective.init(data, np.random.default_rng(0)).astype(dtype)


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_finite_differences(case):
    objective, data = CASES[case]()
    w, batch = start(objective, data), Batch(data, np.array([0, 5, 2, 3]) % len(data))
    g = objective.grad(w, batch)
    rng, eps = np.random.default_rng(1), 1e-6
    for _ in range(4):
        v = rng.normal(size=w.size)
        v /= np.linalg.norm(v)
        slope = (objective.value(w + eps * v, batch) - objective.value(w - eps * v, batch)) / 2
        assert g @ v == pytest.approx(slope / eps, rel=2e-5, abs=1e-8)


@pytest.mark.parametrize("network", ["mlp(inputs=784, classes=3)", "alexnet(classes=3, width=4)"])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_the_gradient_is_that_of_autograd(network, l2):
    """In plain PyTorch: load the weights, take the loss, add the penalty, go backward."""
    objective, data = Torch(network, l2=l2), images()
    w = start(objective, data)
    module = build(network).module.double().eval()
    nn.utils.vector_to_parameters(torch.from_numpy(w.copy()), module.parameters())
    x = torch.from_numpy(data.X).view(-1, *(objective.module_shape or (784,)))
    loss = nn.functional.cross_entropy(module(x), torch.from_numpy(data.y))
    for p in module.parameters():
        loss = loss + (l2 / 2 * p.square().sum() if p.ndim > 1 else 0)
    assert objective.value(w, Batch(data)) == pytest.approx(loss.item(), rel=1e-12)
    if "alexnet" not in network:  # which drops units in training
        loss.backward()
        expected = torch.cat([p.grad.ravel() for p in module.parameters()]).numpy()
        assert objective.grad(w, Batch(data)) == pytest.approx(expected, rel=1e-11, abs=1e-14)


def test_nothing_is_copied_on_the_host():
    objective, data = CASES["mlp"]()
    w = start(objective, data)
    w.setflags(write=False)  # as messages are
    objective.grad(w, Batch(data))
    (net,) = objective._nets._here.__dict__.values()
    assert net._parameters[0].data_ptr() == w.ctypes.data
    g, again = (objective.grad(w, Batch(data)) for _ in range(2))
    assert g.flags.writeable and (g == again).all() and not np.shares_memory(g, again)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_have_the_type_of_the_data_or_the_one_asked_for(dtype):
    data = images(dtype=dtype)
    assert start(Torch("mlp(inputs=784, classes=3)"), data, dtype).dtype == dtype
    objective = Torch("mlp(inputs=784, classes=3)", dtype="float32")
    w = objective.init(data, np.random.default_rng(0))
    assert w.dtype == objective.grad(w, Batch(data)).dtype == np.float32


def test_an_empty_batch_has_only_the_penalty():
    objective, data = CASES["mlp"]()
    w = start(objective, data)
    none = Batch(data, np.array([], dtype=np.intp))
    weights = np.concatenate([np.ones(784 * 4), np.zeros(4), np.ones(12), np.zeros(3)])
    assert objective.grad(w, none) == pytest.approx(0.1 * weights * w)
    assert objective.value(w, none) == pytest.approx(0.05 * (weights * w) @ w)


def test_a_value_over_many_chunks_is_the_mean(monkeypatch):
    objective, data = CASES["mlp"]()
    w = start(objective, data)
    whole, predicted = objective.value(w, Batch(data)), objective.predict(w, data.X)
    monkeypatch.setattr("hemiola.objectives.torch._CHUNK", 5)
    assert objective.value(w, Batch(data)) == pytest.approx(whole, rel=1e-13)
    assert (objective.predict(w, data.X) == predicted).all()


# Random numbers


def dropping():
    return Torch(nn.Sequential(nn.Linear(784, 50), nn.Dropout(), nn.Linear(50, 3)))


def test_a_mask_has_the_address_of_its_batch():
    objective, data = dropping(), images()
    w, rows = start(objective, data), np.arange(6)
    at = {key: objective.grad(w, Batch(data, rows, key)) for key in [(0, 1, 2), (0, 2, 1)]}
    torch.manual_seed(99)
    torch.rand(7)
    assert (objective.grad(w, Batch(data, rows, (0, 1, 2))) == at[0, 1, 2]).all()
    assert (at[0, 1, 2] != at[0, 2, 1]).any()
    assert (objective.grad(w, Batch(data, rows, (1, 1, 2))) != at[0, 1, 2]).any()
    assert objective.value(w, Batch(data)) == objective.value(w, Batch(data))


def test_drawing_leaves_the_generator_of_the_program_alone():
    objective, data = dropping(), images()
    w = start(objective, data)
    before = torch.get_rng_state()
    objective.grad(w, Batch(data, None, (0, 0, 0)))
    objective.init(data, np.random.default_rng(0))
    assert torch.equal(before, torch.get_rng_state())


def test_the_same_masks_on_every_engine():
    data = images(24)
    w0, chosen = start(dropping(), data), algorithm("model-averaging", lr=1e-3)
    shas = {
        fit(chosen, dropping(), data, rounds=2, workers=3, engine=engine, w0=w0).model.sha256
        for engine in ("serial", "threads", "simulator")
    }  # fmt: skip
    assert len(shas) == 1


# Buffers


def normalised(data):
    module = nn.Sequential(nn.Linear(784, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    return Torch(module, calibration=data.X)


def test_a_gradient_leaves_no_trace_in_buffers():
    data = images()
    objective = normalised(data)
    w = start(objective, data)
    value = objective.value(w, Batch(data))
    for rows in (np.arange(4), np.arange(3, 12)):
        objective.grad(w, Batch(data, rows))
    assert objective.value(w, Batch(data)) == value
    fresh = pickle.loads(pickle.dumps(objective))
    assert fresh.value(w, Batch(data)) == value
    assert (fresh.grad(w, Batch(data)) == objective.grad(w, Batch(data))).all()


def test_statistics_are_those_of_the_calibration_sample_at_w():
    data = images()
    objective = normalised(data)
    w = start(objective, data) * 1.5
    state = objective.state_dict(w)
    z = data.X @ state["0.weight"].numpy().T + state["0.bias"].numpy()
    assert state["1.running_mean"].numpy() == pytest.approx(z.mean(axis=0))
    assert state["1.running_var"].numpy() == pytest.approx(z.var(axis=0, ddof=1))


def test_the_gradient_normalises_by_the_batch():
    data = images()
    objective = normalised(data)
    w, rows = start(objective, data), np.arange(7)
    module = copy.deepcopy(objective.module).double().train()
    nn.utils.vector_to_parameters(torch.from_numpy(w.copy()), module.parameters())
    y = torch.from_numpy(data.y[rows])
    nn.functional.cross_entropy(module(torch.from_numpy(data.X[rows])), y).backward()
    expected = torch.cat([p.grad.ravel() for p in module.parameters()]).numpy()
    assert objective.grad(w, Batch(data, rows)) == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_a_batch_of_one_cannot_be_normalised():
    data = images()
    objective = normalised(data)
    with pytest.raises(DataError, match="batch_size"):
        objective.grad(start(objective, data), Batch(data, np.array([3])))


def test_the_user_s_module_is_never_touched():
    data = images()
    objective = normalised(data)
    before = copy.deepcopy(objective.module.state_dict())
    fit(algorithm("ssgd", batch_size=4), objective, data, rounds=2, workers=2)
    after = objective.module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


# Networks by name


def test_alexnet_has_as_many_parameters_as_published():
    with torch.device("meta"):
        module = alexnet()
    assert sum(p.numel() for p in module.parameters()) == 60_965_224


def test_a_network_by_name_is_drawn_from_the_seed():
    objective, data = CASES["mlp"]()
    first, again, other = (objective.init(data, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any()
    assert (
        pickle.loads(pickle.dumps(objective)).init(data, np.random.default_rng(1)) == other
    ).all()


def test_a_network_learns_and_its_model_is_saved(tmp_path):
    data = load("digits")
    data = Standardizer.fit(data).apply(data)
    chosen = algorithm("ssgd", lr=0.2, batch_size=64)
    result = fit(chosen, "mlp", data, rounds=60, workers=2)
    assert result.history.last.score > 0.8
    result.save(tmp_path / "model.npz")
    again = Result.load(tmp_path / "model.npz").model
    assert (again.predict(data.X[:50]) == result.model.predict(data.X[:50])).all()


def test_a_module_of_one_s_own_is_not_named_by_a_file(tmp_path):
    data = images()
    objective = Torch(nn.Linear(784, 3))
    result = fit(algorithm("ssgd"), objective, data, rounds=1, workers=2)
    result.save(tmp_path / "model.npz")
    with pytest.raises(CheckpointError, match="only your program can build"):
        Result.load(tmp_path / "model.npz")
    assert Model(result.weights, objective, 784).predict(data.X).shape == (12,)


def factory(inputs, classes, width=3):
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, classes))


def test_a_network_of_one_s_own_by_the_name_of_its_factory(monkeypatch):
    module = ModuleType("my_networks")
    module.factory = factory
    monkeypatch.setitem(sys.modules, "my_networks", module)
    one, two = (make_objective("my_networks:factory(width=5)", images()) for _ in range(2))
    assert one.size == 784 * 5 + 5 + 18
    assert (start(one, images()) == start(two, images())).all()


def test_safetensors_hold_the_weights(tmp_path):
    tools = pytest.importorskip("safetensors.torch")
    objective, data = CASES["mlp"]()
    w = start(objective, data)
    tools.save_file(dict(objective.state_dict(w)), tmp_path / "w.safetensors")
    module = build(objective.module).module.double()
    module.load_state_dict(tools.load_file(tmp_path / "w.safetensors"))
    assert (nn.utils.parameters_to_vector(module.parameters()).detach().numpy() == w).all()


# Data


def test_data_sets_of_pytorch():
    x = torch.arange(24.0).view(4, 1, 2, 3)
    data = from_torch(torch.utils.data.TensorDataset(x, torch.tensor([5, 7, 5, 7])))
    assert data.X.tolist() == x.view(4, 6).tolist() and data.classes.tolist() == [5, 7]
    with pytest.raises(DataError, match="pairs"):
        from_torch([1, 2])
    with pytest.raises(DataError, match="different shapes"):
        from_torch([(np.zeros(2), 0), (np.zeros(3), 1)])


def test_iterable_data_sets_are_streams():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            rng = np.random.default_rng(0)
            while True:
                x = rng.normal(size=4).astype(np.float32)
                yield torch.from_numpy(x), int(x.sum() > 0)

    stream = from_torch(Endless(), classes=[0, 1])
    chosen = algorithm("ssgd", batch_size=50, lr=0.5)
    result = fit(chosen, Torch(nn.Linear(4, 2)), stream, rounds=30, workers=2)
    assert result.history.last.score > 0.9


def test_concurrent_threads_have_copies_of_their_own():
    objective, data = CASES["mlp"]()
    points = [start(objective, data) * scale for scale in (0.5, 2.0)]
    expected = [objective.grad(w, Batch(data)) for w in points]
    wrong = []

    def work(w, g):
        wrong.extend(i for i in range(30) if (objective.grad(w, Batch(data)) != g).any())

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(points, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_autocast_computes_in_bfloat16_and_answers_in_single_precision():
    data = images(dtype=np.float32)
    plain, mixed = (Torch("mlp(inputs=784, classes=3)", autocast=on) for on in (False, True))
    w = start(plain, data, np.float32)
    exact, rough = (o.grad(w, Batch(data)) for o in (plain, mixed))
    assert rough.dtype == np.float32 and (rough != exact).any()
    assert np.linalg.norm(rough - exact) < 0.05 * np.linalg.norm(exact)


# Refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Torch(3), "no torch.nn.Module"),
        (lambda: Torch("mlp(inputs=2)"), "classes is missing"),
        (lambda: Torch("mlp(inputs=2, classes=2, hiden=3)"), "did you mean 'hidden'"),
        (lambda: Torch("mlp(inputs=2, classes=-2)"), "whole number"),
        (lambda: Torch("mpl(inputs=2, classes=2)"), "did you mean 'mlp'"),
        (lambda: Torch("mlp(__import__('os'))"), "cannot be read"),
        (lambda: Torch(nn.Linear(1, 2), "cros-entropy"), "loss must be one of"),
        (lambda: Torch(nn.Linear(1, 2), device="gpu"), "no device"),
        (lambda: Torch(nn.Linear(1, 2), dtype="float16"), "float32 or float64"),
        (lambda: Torch(nn.Linear(1, 2), l2=-1.0), "l2"),
        (lambda: make_objective("no.such:thing", images()), "to be found"),
        (lambda: Torch(nn.BatchNorm1d(784)).check(images()), "calibration"),
        (lambda: Torch(nn.ReLU()).check(images()), "no trainable parameters"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda: Torch(nn.Linear(3, 3)), "does not fit the data"),
        (lambda: Torch(nn.Linear(784, 4)), "3 classes"),
        (lambda: Torch(nn.Linear(784, 1), "squared"), "real targets"),
        (lambda: Torch(nn.Conv2d(1, 3, 28), shape=(1, 5, 5)), "samples of shape"),
    ],
)
def test_data_that_do_not_fit_are_refused(objective, message):
    with pytest.raises(DataError, match=message):
        objective().check(images())


def test_sparse_data_are_refused(two_classes):
    with pytest.raises(DataError, match="dense"):
        Torch(nn.Linear(3, 2)).check(two_classes(csr=True))

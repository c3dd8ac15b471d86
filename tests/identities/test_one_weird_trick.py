"""Convolutions by data and fully connected layers by model are the undivided network."""

from __future__ import annotations

import copy

import pytest

from hemiola.errors import OptionError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hemiola.objectives._exchange import Exchange  # noqa: E402
from hemiola.objectives.networks import alexnet28  # noqa: E402
from hemiola.objectives.one_weird_trick import Trick, numbers_sent, turns  # noqa: E402

F, HIDDEN, C = 3 * 4 * 4, [7, 5], 4
N = 36  # samples of all workers


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(3, 0.5),
        nn.Conv2d(4, 3, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.4), nn.Linear(F, HIDDEN[0]), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(HIDDEN[0], HIDDEN[1]), nn.Tanh(), nn.Linear(HIDDEN[1], C),
    ).double()  # fmt: skip


def samples(count):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.arange(count) % C


def together(workers, network, ranks):
    """The gradients of whole layers, in order, put together from their slices."""
    shared = [list(worker.convolutions.parameters()) for worker in workers]
    for mine, first in zip(shared, [shared[0]] * ranks, strict=True):
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(mine, first, strict=True))
    slices = zip(*(worker.full.parameters() for worker in workers), strict=True)
    return [p.grad for p in shared[0]] + [torch.cat([p.grad for p in row]) for row in slices]


def trained(parallel, network, K, scheme, seed=3, training=True):
    x, y = samples(N)
    b = N // K

    def work(exchange):
        worker = Trick(network, exchange, scheme).train(training)
        rows = slice(exchange.rank * b, (exchange.rank + 1) * b)
        return worker, worker.gradients(x[rows], y[rows], seed), exchange.sent

    workers, losses, sent = zip(*parallel(K, work), strict=True)
    assert len(set(losses)) == 1
    return losses[0], together(workers, network, K), sent


def undivided(network):
    whole, (x, y) = copy.deepcopy(network).eval(), samples(N)
    loss = nn.functional.cross_entropy(whole(x), y)
    loss.backward()
    return float(loss.detach()), [p.grad for p in whole.parameters()]


def close(a, b):
    return len(a) == len(b) and all(
        torch.allclose(p, q, rtol=1e-12, atol=1e-14) for p, q in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("K", [1, 2, 3])
@pytest.mark.parametrize("scheme", "abc")
def test_every_scheme_has_the_gradients_of_the_undivided_network(parallel, network, K, scheme):
    loss, gradients, _ = trained(parallel, network, K, scheme, training=False)
    whole_loss, whole = undivided(network)
    assert loss == pytest.approx(whole_loss, rel=1e-13)
    assert close(gradients, whole)


def test_one_worker_is_the_undivided_network_to_the_bit(parallel, network):
    loss, gradients, sent = trained(parallel, network, 1, "a", training=False)
    whole_loss, whole = undivided(network)
    assert loss == whole_loss and sent == (0,)
    assert all(torch.equal(p, q) for p, q in zip(gradients, whole, strict=True))


@pytest.mark.parametrize(("K", "scheme"), [(2, "a"), (2, "b"), (2, "c"), (3, "b")])
def test_the_same_units_are_dropped_for_any_scheme_and_number_of_workers(
    parallel, network, K, scheme
):
    _, expected, _ = trained(parallel, network, 1, "a")
    _, other, _ = trained(parallel, network, 1, "a", seed=4)
    _, gradients, _ = trained(parallel, network, K, scheme)
    assert close(gradients, expected) and not close(other, expected)


def test_masks_keep_the_mean_and_the_share_that_they_should():
    """Against dropout written out: kept with probability 1 - p and divided by it."""
    ones = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(4000, 1, bias=False)).double()
    nn.init.ones_(ones[2].weight)
    outputs = []
    worker = Trick(ones, Exchange(), loss=lambda z, y: outputs.append(z) or z.sum())
    worker.gradients(torch.ones(50, 4000, dtype=torch.float64), torch.zeros(50, dtype=torch.long))
    kept = outputs[0].detach() * 0.75
    assert torch.allclose(kept, kept.round(), rtol=1e-12) and kept.std() > 0
    assert float(outputs[0].detach().mean()) == pytest.approx(4000, rel=0.005)


@pytest.mark.parametrize(("K", "scheme"), [(2, "a"), (2, "b"), (2, "c"), (3, "a"), (3, "b")])
def test_bytes_follow_the_formula(parallel, network, K, scheme):
    *_, sent = trained(parallel, network, K, scheme)
    shared = sum(p.numel() for p in network[:6].parameters())
    numbers = numbers_sent(K, N // K, F, [*HIDDEN, C], shared)
    labels = N * (K - 1)
    assert sum(sent) == 8 * (numbers + labels)


def test_no_parameter_of_a_full_layer_crosses_the_wire(parallel, network):
    """Wider full layers of the same inputs and outputs cost activations, not weights."""
    *_, sent = trained(parallel, network, 2, "a")
    wide = nn.Sequential(*network[:8], nn.Linear(F, 70), nn.Tanh(), nn.Linear(70, C)).double()
    *_, more = trained(parallel, wide, 2, "a")
    assert sum(more) - sum(sent) == 8 * 2 * N * (70 - sum(HIDDEN))


def test_turns_hand_in_every_sample_once():
    for scheme in "abc":
        for K in (1, 2, 4):
            seen = [
                (k, i)
                for turn in turns(scheme, K, 8)
                for k, rows in enumerate(turn)
                for i in range(rows.start, rows.stop)
            ]
            assert sorted(seen) == [(k, i) for k in range(K) for i in range(8)]
    load = {s: [sum(r.stop - r.start for r in t) for t in turns(s, 4, 8)] for s in "abc"}
    assert load == {"a": [32], "b": [8] * 4, "c": [8] * 4}
    assert {rows.stop - rows.start for turn in turns("c", 4, 8) for rows in turn} == {2}


@pytest.mark.parametrize("scheme", ["b", "c"])
def test_a_variable_batch_steps_the_full_layers_after_every_turn(parallel, network, scheme):
    K, b, lr = 2, 8, 0.1
    x, y = samples(K * b)

    def step(parameters):
        with torch.no_grad():
            for p in parameters:
                p -= lr * p.grad

    def work(exchange):
        worker = Trick(network, exchange, scheme).eval()
        rows = slice(exchange.rank * b, (exchange.rank + 1) * b)
        worker.gradients(x[rows], y[rows], update=step)
        return worker

    workers = parallel(K, work)
    whole = copy.deepcopy(network).eval()
    convolutions, full = whole[:7], whole[7:]
    for turn in turns(scheme, K, b):
        rows = torch.cat([torch.arange(r.start, r.stop) + k * b for k, r in enumerate(turn)])
        full.zero_grad()
        nn.functional.cross_entropy(whole(x[rows]), y[rows]).backward()
        step(full.parameters())
    found = [torch.cat(row) for row in zip(*(w.full.parameters() for w in workers), strict=True)]
    assert close(found, list(full.parameters()))
    shared = [p.grad for p in workers[0].convolutions.parameters()]
    assert close(shared, [p.grad / K for p in convolutions.parameters()])


def test_alexnet_of_two_columns_by_the_trick(parallel):
    torch.manual_seed(0)
    whole = alexnet28(width=4, classes=3).double().eval()
    x, y = torch.rand(4, 1, 28, 28, dtype=torch.float64), torch.tensor([0, 1, 2, 1])

    def work(exchange):
        worker = Trick(whole, exchange, "c").eval()
        rows = slice(2 * exchange.rank, 2 * exchange.rank + 2)
        worker.gradients(x[rows], y[rows])
        return worker

    gradients = together(parallel(2, work), whole, 2)
    nn.functional.cross_entropy(whole(x), y).backward()
    assert close(gradients, [p.grad for p in whole.parameters()])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: turns("c", 2, 5), "no multiple of 2"),
        (lambda: turns("d", 2, 4), "choose a, b or c"),
        (lambda: Trick(nn.Sequential(nn.Linear(2, 2)), Exchange()), "one nn.Flatten"),
        (lambda: Trick(nn.Sequential(nn.Flatten(), nn.ReLU()), Exchange()), "nothing to slice"),
        (
            lambda: Trick(
                nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 1)), Exchange()
            ),
            "BatchNorm2d cannot stand among",
        ),
        (
            lambda: Trick(
                nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.LayerNorm(1)), Exchange()
            ),
            "LayerNorm cannot stand after",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()

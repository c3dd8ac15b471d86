"""Cuts of a network: what they cost, which is the fastest, and what is said where there is none."""

from __future__ import annotations

import json
from itertools import combinations, pairwise

import pytest
from typer.testing import CliRunner

from hemiola.errors import OptionError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hemiola.cli.app import app  # noqa: E402
from hemiola.objectives.costs import (  # noqa: E402
    layers_of,
    measured_bandwidth,
    measured_seconds,
)
from hemiola.objectives.networks import alexnet, alexnet28  # noqa: E402
from hemiola.planner import Machine, Step, plan  # noqa: E402

MACHINE = Machine(flops=1e9, bandwidth=1e8)
LARGE = 1e12


def hourglass():
    """Wide and narrow layers, so that where it is cut matters."""
    sizes = [60, 200, 20, 150, 90, 10, 300, 30]
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers)


def test_costs_of_a_small_network_by_hand():
    """8 samples, 4 bytes a number. The rectifier's outputs are kept once for it and its successor.
    The loss keeps its log-probabilities and the sum of its weights."""
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    first, relu, last = layers_of(network, [4], 8)
    assert [layer.parameters for layer in (first, relu, last)] == [4 * 40, 0, 4 * 27]
    assert [layer.takes for layer in (first, relu, last)] == [4 * 32, 4 * 64, 4 * 64]
    assert [layer.sends for layer in (first, relu, last)] == [4 * 64, 4 * 64, 4 * 24]
    assert first.flops == 2 * (2 * 8 * 4 * 8), "no gradient of the data"
    assert (relu.flops, last.flops) == (0, 3 * (2 * 8 * 8 * 3))
    assert first.keeps == {first.reads: 4 * 32}
    assert relu.keeps == {relu.writes: 4 * 64}
    assert last.reads == relu.writes
    assert sum(last.keeps.values()) == 4 * 64 + 4 * 24 + 4


def test_groups_share_out_the_operations_of_a_convolution():
    whole, grouped = (
        layers_of(nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, groups=g)), [8, 5, 5], 2)[0]
        for g in (1, 4)
    )
    assert whole.flops == 2 * (2 * 2 * 25 * 12 * 8 * 9) == 4 * grouped.flops


def test_costs_need_no_memory():
    """AlexNet's 61 million parameters are not there."""
    with torch.device("meta"):
        network = alexnet()
    layers = layers_of(network, [3, 227, 227], 2)
    assert sum(layer.parameters for layer in layers) == 4 * 60_965_224
    convolution = 2 * 2 * (2 * 55 * 55 * 96 * 3 * 121)
    assert layers[0].flops == convolution
    assert [layer.sends for layer in layers[-3:]] == [2 * 4 * 4096, 2 * 4 * 4096, 2 * 4 * 1000]


def brute(network, shape, memory, stages, step):
    """The fastest of all cuts, from the formulas of the module, one stage at a time."""
    layers = layers_of(network, shape, step.samples // step.microbatches)
    m, best = step.microbatches, None
    for cuts in combinations(range(1, len(layers)), stages - 1):
        ends, parts = [0, *cuts, len(layers)], []
        for s, (i, j) in enumerate(pairwise(ends)):
            part = layers[i:j]
            kept = {key: size for layer in part for key, size in layer.keeps.items()}
            kept[part[-1].writes] = part[-1].sends
            kept.pop(part[0].reads, None)
            waiting = m if step.schedule == "gpipe" else min(m, stages - s)
            need = (2 + step.states) * sum(layer.parameters for layer in part)
            need += m * (part[0].takes + part[-1].sends) + waiting * sum(kept.values())
            parts.append((need, sum(layer.flops for layer in part) / MACHINE.flops))
        over = [2 * layers[cut - 1].sends / MACHINE.bandwidth for cut in cuts]
        seconds = [t for _, t in parts]
        total = sum(seconds) + sum(over) + (m - 1) * max(seconds + over)
        if max(need for need, _ in parts) <= memory and (best is None or total < best[0]):
            best = total, list(cuts)
    return best


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe"])
@pytest.mark.parametrize("memory", [LARGE, 2.5e5, 2.2e5, 1.9e5])
def test_no_cut_that_fits_is_faster(schedule, memory):
    network, step = hourglass(), Step(48, 12, schedule)
    every = [brute(network, [60], memory, stages, step) for stages in (1, 2, 3, 4)]
    fitting = [found for found in every if found is not None]
    if not fitting:
        with pytest.raises(OptionError, match=r"cannot hold the network|by itself"):
            plan(network, [60], memory, 4, step, MACHINE)
        return
    found = plan(network, [60], memory, 4, step, MACHINE)
    assert found.seconds == pytest.approx(min(fitting)[0], rel=1e-12)
    assert found.cuts == min(fitting)[1]
    assert max(stage.memory for stage in found.stages) <= memory


def test_less_memory_is_never_faster():
    seconds = [
        plan(hourglass(), [60], memory, 4, Step(48, 12, "gpipe"), MACHINE).seconds
        for memory in (LARGE, 3e5, 2.5e5, 2.4e5, 2.36e5)
    ]
    assert seconds == sorted(seconds) and seconds[-1] > seconds[0]


def test_equal_stages_without_messages_idle_as_the_paper_says():
    network = nn.Sequential(nn.Linear(1, 50, bias=False), *(nn.Linear(50, 50) for _ in range(4)))
    free = Machine(flops=1e9, bandwidth=1e30)
    found = plan(nn.Sequential(*network[1:]), [50], LARGE, 1, Step(32, 8), free)
    assert (found.seconds, found.idle, found.cuts) == (pytest.approx(found.alone), 0.0, [])
    found = plan(network, [1], LARGE, 4, Step(32, 8), free)
    assert found.cuts == [2, 3, 4]
    middle = found.stages[1].seconds / 8
    first = found.stages[0].seconds / 8 - middle  # of the layer that has one input
    assert found.seconds == pytest.approx((8 + 4 - 1) * middle + 8 * first)
    assert found.idle == pytest.approx((4 - 1) / (8 + 4 - 1), abs=0.01)


def test_slow_messages_leave_workers_out():
    step = Step(48, 12)
    fast = plan(hourglass(), [60], LARGE, 4, step, Machine(1e9, 1e12))
    slow = plan(hourglass(), [60], LARGE, 4, step, Machine(1e9, 1e3))
    assert len(fast.stages) == 4 and slow.cuts == [] and slow.sent == 0


def test_a_layer_that_is_too_large_is_named():
    with torch.device("meta"):
        network = alexnet()
    with pytest.raises(OptionError, match=r"layer 17, Linear\(9216, 4096\), takes 453 MB"):
        plan(network, [3, 227, 227], 50e6, 4, machine=MACHINE)
    assert plan(network, [3, 227, 227], 500e6, 4, machine=MACHINE).cuts


def test_too_few_workers_are_told_what_they_need():
    step = Step(48, 12)
    words = r"2 workers of 0.3 MB cannot .* for layers \d+ to \d+"
    with pytest.raises(OptionError, match=words) as error:
        plan(hourglass(), [60], 3e5, 2, step, MACHINE)
    need = float(str(error.value).split("they need ")[1].split(" MB")[0]) * 1e6
    assert plan(hourglass(), [60], 1.005 * need, 2, step, MACHINE)
    with pytest.raises(OptionError):
        plan(hourglass(), [60], 0.995 * need, 2, step, MACHINE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step(10, 4), "10 samples cannot be cut into 4 equal"),
        (lambda: Step(schedule="zero"), "Step: schedule"),
        (lambda: Machine(flops=0), "Machine: flops should be greater than 0"),
        (lambda: plan(nn.Linear(2, 2), [2], 1e6, 2), "a Linear cannot be cut"),
        (lambda: plan(hourglass(), [60], 1e6, 0), "workers must be at least 1"),
        (lambda: plan(hourglass(), [61], 1e6, 2), "layer 0, Linear, does not fit samples"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_this_machine_is_measured():
    network = alexnet28(width=4)
    seconds = measured_seconds(network, [1, 28, 28], 2)
    assert len(seconds) == len(network) and all(0 < t < 5 for t in seconds)
    assert all(p.grad is None for p in network.parameters())
    assert 1e5 < measured_bandwidth() < 1e12


def test_the_command_line_plans(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    file = tmp_path / "plan.json"
    words = ["plan", "--objective", "alexnet", "--memory", "5MB", "--json", str(file)]
    outcome = CliRunner().invoke(app, [*words, "--flops", "1e10", "--bandwidth", "1e9"])
    assert outcome.exit_code == 0, outcome.output
    assert max(map(len, outcome.output.splitlines()[:12])) <= 100
    found = json.loads(file.read_text())
    expected = plan(alexnet28(), [1, 28, 28], 5e6, 4, machine=Machine(1e10, 1e9))
    assert found["cuts"] == expected.cuts and len(expected.cuts) == len(expected.stages) - 1
    assert f"cuts={expected.cuts}" in outcome.output
    assert found["seconds"] == expected.seconds
    assert found["stages"][0]["layers"] == list(expected.stages[0].layers)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["alexnet", "--memory", "many"], "'many' is no size of memory"),
        (["alexnett", "--memory", "1MB"], "did you mean 'alexnet'"),
        (["mlp", "--memory", "1MB"], "mlp needs inputs, classes"),
        (["my.nets:small", "--memory", "1MB"], "give the sizes of the data"),
        (["alexnet", "--memory", "1MB", "--optimizer", "magic"], "must be one of sgd"),
        (["alexnet", "--memory", "1kB"], "layer 0, Conv2d(1, 16), takes"),
        (["charlm(inputs=9, classes=9)", "--memory", "1MB"], "CharacterTransformer cannot be cut"),
    ],
)
def test_the_command_line_refuses_in_one_sentence(words, message):
    given = ["plan", "--flops", "1e9", "--bandwidth", "1e9", "--objective", *words]
    outcome = CliRunner().invoke(app, given)
    assert outcome.exit_code == 2
    assert message in outcome.stderr and len(outcome.stderr.strip().splitlines()) == 1

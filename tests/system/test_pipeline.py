"""Layers on different processes, with micro-batches, are the whole network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from hemiola.errors import OptionError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hemiola.objectives._masks import Masks  # noqa: E402
from hemiola.objectives.costs import layers_of  # noqa: E402
from hemiola.objectives.networks import alexnet28  # noqa: E402
from hemiola.objectives.pipeline import Pipeline, numbers_sent, stages  # noqa: E402
from hemiola.planner import Machine, Step, plan  # noqa: E402

N, SEED = 12, 7


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(18, 7), nn.Tanh(), nn.Dropout(0.4), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3),
    ).double()  # fmt: skip


def samples():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(N, 1, 5, 5, dtype=torch.float64, generator=generator), torch.arange(N) % 3


STEP = Step(samples=24, microbatches=6, states=1)


def alexnet():
    torch.manual_seed(0)
    return alexnet28(width=8)


def images():
    generator = torch.Generator().manual_seed(3)
    return torch.rand(24, 1, 28, 28, generator=generator), torch.arange(24) % 10


def planned():
    """AlexNet for three workers, whose memory is too small for the fastest cuts."""
    machine = Machine(flops=1e10, bandwidth=1e8)
    return plan(alexnet(), [1, 28, 28], 8e5, 3, STEP, machine)


def planned_pipeline():
    return Pipeline(alexnet(), planned().cuts, STEP.microbatches)


class Kept:
    """The bytes that autograd keeps of activations, each memory once, and the most at a time."""

    def __init__(self):
        self.users, self.now, self.most = {}, 0, 0

    @contextmanager
    def watching(self, stage):
        own = {p.untyped_storage().data_ptr() for p in stage.parameters()}

        def keep(tensor):
            memory = tensor.untyped_storage()
            if memory.data_ptr() in own or (tensor.dtype == torch.long and tensor.ndim == 1):
                return tensor  # parameters and labels
            return _Held(tensor, memory.data_ptr(), memory.nbytes(), self)

        def back(kept):
            return kept.tensor if isinstance(kept, _Held) else kept

        with torch.autograd.graph.saved_tensors_hooks(keep, back):
            yield


class _Held:
    def __init__(self, tensor, place, size, ledger):
        self.tensor, self.place, self.size, self.ledger = tensor.detach(), place, size, ledger
        users = ledger.users.get(place, 0)
        ledger.now += 0 if users else size
        ledger.users[place] = users + 1
        ledger.most = max(ledger.most, ledger.now)

    def __del__(self):
        self.ledger.users[self.place] -= 1
        self.ledger.now -= 0 if self.ledger.users[self.place] else self.size


RANK = """
import json, sys, torch, importlib.util
import torch.distributed as dist
from hemiola.errors import OptionError
from hemiola.objectives.pipeline import Pipeline

specification = importlib.util.spec_from_file_location("shared", sys.argv[1])
shared = importlib.util.module_from_spec(specification)
specification.loader.exec_module(shared)
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, found = dist.get_rank(), {}
for schedule, parts, training in (("gpipe", 4, False), ("1f1b", 4, False), ("1f1b", 6, True)):
    pipeline = Pipeline(shared.network(), [3, 6], parts, schedule=schedule)
    pipeline.stage.train(training)
    sent = []
    for name in ("get_fwd_send_ops", "get_bwd_send_ops"):
        def counted(i, ask=getattr(pipeline._on, name)):
            ops = ask(i)
            sent.extend(op.tensor.numel() * op.tensor.element_size() for op in ops)
            return ops
        setattr(pipeline._on, name, counted)
    for _ in range(2):  # gradients are not added to those of the step before
        sent.clear()
        loss = pipeline.gradients(*shared.samples(), shared.SEED)
    gradients = [p.grad.tolist() for p in pipeline.stage.parameters()]
    found[f"{schedule}, {parts}, {training}"] = [loss, sum(sent), gradients]
pipeline = shared.planned_pipeline()
places, kept = pipeline._on, shared.Kept()
sent = []
for name in ("get_fwd_send_ops", "get_bwd_send_ops"):
    def counted(i, ask=getattr(places, name)):
        ops = ask(i)
        sent.extend(op.tensor.numel() * op.tensor.element_size() for op in ops)
        return ops
    setattr(places, name, counted)
pipeline.gradients(*shared.images())
sent.clear()
with kept.watching(pipeline.stage):
    pipeline.gradients(*shared.images())
found["planned"] = [sum(sent), kept.most]
pipeline = Pipeline(shared.network(), [3, 6])
for make in (
    lambda: Pipeline(shared.network(), [3]),
    lambda: pipeline.gradients(torch.ones(3, 1, 5, 5), torch.ones(3)),
    lambda: Pipeline(torch.nn.Sequential(torch.nn.BatchNorm1d(2), *shared.network()), [3, 6]),
    lambda: Pipeline(shared.network(), [3, 6], schedule="zero"),
    lambda: Pipeline(shared.network(), [3, 6], 2),
):
    try:
        make()
    except OptionError as error:
        found.setdefault("refused", []).append(str(error))
with open(f"{sys.argv[2]}/{rank}.json", "w") as file:
    json.dump(found, file)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What three processes found, by rank."""
    place = tmp_path_factory.mktemp("pipeline")
    (place / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node=3", place / "rank.py", Path(__file__), place]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert not done.returncode, done.stderr
    return [json.loads((place / f"{rank}.json").read_text()) for rank in range(3)]


class Dropped(nn.Module):
    """Dropout of the whole mini-batch, with the masks of these samples and units."""

    def __init__(self, p, layer):
        super().__init__()
        self.p, self.layer = p, layer

    def forward(self, x):
        return Masks(SEED, N, range(N)).drop(x, self.layer, self.p)


@pytest.mark.parametrize("case", ["gpipe, 4, False", "1f1b, 4, False", "1f1b, 6, True"])
def test_a_pipeline_is_the_whole_network(ranks, case):
    whole, (x, y) = network().eval(), samples()
    if case.endswith("True"):
        whole = nn.Sequential(*(
            Dropped(layer.p, i) if isinstance(layer, nn.Dropout) else layer
            for i, layer in enumerate(whole)
        ))  # fmt: skip
    loss = nn.functional.cross_entropy(whole(x), y)
    loss.backward()
    losses = [rank[case][0] for rank in ranks]
    assert losses[:2] == [None, None] and losses[2] == pytest.approx(loss.item(), rel=1e-13)
    found = [torch.tensor(g, dtype=torch.float64) for rank in ranks for g in rank[case][2]]
    expected = [p.grad for p in whole.parameters()]
    assert len(found) == len(expected) == 8
    assert all(map(lambda a, b: torch.allclose(a, b, rtol=1e-12, atol=1e-14), found, expected))


@pytest.mark.parametrize("case", ["gpipe, 4, False", "1f1b, 4, False", "1f1b, 6, True"])
def test_a_step_sends_each_activation_and_its_gradient_once(ranks, case):
    sent = [rank[case][1] for rank in ranks]
    assert sent == [8 * N * 18, 8 * N * (18 + 7), 8 * N * 7]
    assert sum(sent) == 8 * numbers_sent(N, [18, 7])


def test_a_plan_foretells_what_the_ranks_of_alexnet_send(ranks):
    stages = planned().stages
    assert [rank["planned"][0] for rank in ranks] == [stage.sends for stage in stages]
    whole, x = alexnet(), images()[0]
    cuts = [24 * 4 * whole[:cut](x[:1]).numel() for cut in planned().cuts]
    assert [stage.sends for stage in stages] == [cuts[0], cuts[0] + cuts[1], cuts[1]]


def test_a_plan_foretells_what_the_ranks_keep_for_their_backward_passes(ranks):
    """Measured at the ranks; a plan adds places for inputs and outputs of every micro-batch."""
    m, layers = STEP.microbatches, layers_of(alexnet(), [1, 28, 28], 4)
    for s, stage in enumerate(planned().stages):
        first, last = layers[stage.layers[0]], layers[stage.layers[-1]]
        kept = {}
        for i in stage.layers:
            kept |= layers[i].keeps
        inputs = kept.pop(first.reads, 0)
        measured = ranks[s]["planned"][1]
        assert measured == (3 - s) * sum(kept.values()) + (m if s == 0 else 3 - s) * inputs
        outputs = 0 if last.writes in kept else last.sends
        places = m * (first.takes + last.sends)
        assert stage.activations == places + (3 - s) * (sum(kept.values()) + outputs)


def test_what_makes_no_sense_is_refused_at_every_rank(ranks):
    for rank in ranks:
        words = (
            "2 stages for 3 ranks",
            "3 samples cannot",
            "batch normalisation",
            "'zero'",
            "too few for 3",
        )
        assert len(rank["refused"]) == 5
        assert all(word in text for word, text in zip(words, rank["refused"], strict=True))


@pytest.mark.parametrize("cuts", [[0, 3], [3, 3], [4, 2], [9], [12]])
def test_stages_without_layers_are_refused(cuts):
    with pytest.raises(OptionError, match="leave a stage of the 9 layers empty"):
        stages(network(), cuts)

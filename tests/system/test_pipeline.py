"""Layers on different processes, with micro-batches, are the whole network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hemiola.errors import OptionError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hemiola.objectives._masks import Masks  # noqa: E402
from hemiola.objectives.pipeline import numbers_sent, stages  # noqa: E402

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

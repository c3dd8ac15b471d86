"""Checkpoints: of this run and of no other."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from hemiola.algorithms.registry import build
from hemiola.checkpoint import FILE, Checkpoint, digest
from hemiola.dataset import make_dataset
from hemiola.engines.simulator import Constant, Simulator
from hemiola.errors import CheckpointError, DataError, OptionError
from hemiola.history import History, Record
from hemiola.objectives import logistic
from hemiola.storage import save_nest
from hemiola.training import fit

RECORD = Record(1.0, 1, 4, 0.5, 0.25, 0.3, 0.9, 8, 16, 2, 0.0)


@pytest.fixture
def place(tmp_path):
    return Checkpoint(tmp_path / "run", {"algorithm": {"lr": 0.1}, "workers": 4})


def test_what_is_saved_is_loaded(place):
    history = History("accuracy", [RECORD], [1, 2], [3, 4])
    place.save({"step": 3, "w": np.arange(3.0)}, history, (0.5, np.ones(2)))
    state, loaded, (loss, weights) = place.load()
    assert state["step"] == 3 and state["w"].tolist() == [0.0, 1.0, 2.0]
    assert loaded == history
    assert loss == 0.5 and weights.tolist() == [1.0, 1.0]


def test_the_newest_checkpoint_replaces_the_older(place):
    for step in range(3):
        place.save({"step": step}, History(), (np.inf, np.empty(0)))
    assert place.load()[0]["step"] == 2
    assert [path.name for path in place.directory.iterdir()] == [FILE]
    assert place.load()[2][0] == np.inf


def test_an_empty_folder_holds_no_checkpoint(place):
    with pytest.raises(CheckpointError, match="holds no checkpoint; leave out --resume"):
        place.load()


def test_a_checkpoint_of_another_run_names_what_differs(place):
    place.save({"step": 1}, History(), (0.5, np.ones(2)))
    other = replace(place, identity={**place.identity, "workers": 8})
    with pytest.raises(
        CheckpointError,
        match="belongs to another run: its workers is 4, here it is 8; use the same settings, or",
    ):
        other.load()
    another = replace(place, identity={**place.identity, "algorithm": {"lr": 0.2}})
    with pytest.raises(CheckpointError, match=r"its algorithm\.lr is 0\.1, here it is 0\.2"):
        another.load()


def test_other_files_are_no_checkpoints(place):
    for nest in ({"format": "hemiola-checkpoint-0"}, {}, [1, 2]):
        save_nest(place.path, nest)
        with pytest.raises(CheckpointError, match="not a checkpoint of this version"):
            place.load()
    place.path.write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="damaged"):
        place.load()


def test_a_checkpoint_that_lacks_a_part_is_damaged(place):
    for missing in ("state", "history", "best"):
        place.save({"step": 1}, History("accuracy", [RECORD]), (0.5, np.ones(2)))
        nest = {
            "format": "hemiola-checkpoint-1",
            "identity": place.identity,
            "state": {"step": 1},
            "best": [0.5, np.ones(2)],
            "history": History("accuracy", [RECORD]).to_dict(),
        }
        del nest[missing]
        save_nest(place.path, nest)
        with pytest.raises(CheckpointError):
            place.load()


def test_the_digest_sees_every_part_of_the_data(two_classes):
    base = two_classes()
    changed = base.X.copy()
    changed[5, 1] += 1e-12
    datasets = [
        base,
        make_dataset(changed, base.y),
        make_dataset(base.X, 1 - base.y),
        two_classes(weight=np.r_[2.0, np.ones(59)]),
        two_classes(csr=True),
        two_classes(dtype=np.float32),
        two_classes(59),
    ]
    assert len({digest(data) for data in datasets}) == len(datasets)
    assert digest(base) == digest(two_classes())
    assert digest(two_classes(csr=True)) == digest(two_classes(csr=True))


GIVEN = build("bmuf", {"lr": 0.1})


def learn(data, tmp_path, *, resume=False, algorithm=GIVEN, objective="logistic", **options):
    options = {"rounds": 3} | options
    return fit(algorithm, objective, data, checkpoint=tmp_path, resume=resume, **options)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("algorithm.name is bmuf, here it is ssgd", {"algorithm": "ssgd"}),
        ("algorithm.local.optimizer.lr is 0.1, here it is 0.01",
         {"algorithm": build("bmuf", {"lr": 0.01})}),
        ("algorithm.local.steps is 10, here it is 7",
         {"algorithm": build("bmuf", {"lr": 0.1, "steps": 7})}),
        ("algorithm.local.optimizer is SGD, here it is Adam",
         {"algorithm": build("bmuf", {"optimizer": "adam", "lr": 0.1})}),
        ("algorithm.local.optimizer.schedule is Constant, here it is",
         {"algorithm": build("bmuf", {"lr": 0.1, "optimizer.schedule": "inverse-sqrt"})}),
        ("objective.l2 is 0.016666666666666666, here it is 0.5", {"objective": logistic(0.5)}),
        ("workers is 4, here it is 3", {"workers": 3}),
        ("seed is 0, here it is 1", {"seed": 1}),
    ],
)  # fmt: skip
def test_a_run_is_not_continued_with_other_settings(two_classes, tmp_path, what, other):
    learn(two_classes(), tmp_path)
    with pytest.raises(CheckpointError, match=re.escape(f"another run: its {what}")):
        learn(two_classes(), tmp_path, resume=True, **other)


def test_what_differs_is_named_before_the_learning_rate_that_follows_from_it(two_classes, tmp_path):
    learn(two_classes(), tmp_path, algorithm="ssgd", objective="auto")
    for what, data, workers in (("data", two_classes(50), 4), ("workers", two_classes(), 3)):
        with pytest.raises(CheckpointError, match=f"another run: its {what} is"):
            learn(data, tmp_path, algorithm="ssgd", objective="auto", workers=workers, resume=True)


def test_a_run_is_not_continued_on_other_data(two_classes, tmp_path):
    learn(two_classes(), tmp_path)
    with pytest.raises(CheckpointError, match="another run: its data is"):
        learn(two_classes(seed=2), tmp_path, resume=True)


def test_an_asynchronous_run_is_not_continued_with_other_timing(two_classes, tmp_path):
    learn(two_classes(), tmp_path, algorithm="asgd", engine="simulator")
    different = {
        "serial": "engine is Simulator, here it is Serial",
        Simulator(Constant(5.0)): "engine.compute.mean is 0.001, here it is 5.0",
    }
    for engine, what in different.items():
        with pytest.raises(CheckpointError, match=f"another run: its {what};"):
            learn(two_classes(), tmp_path, algorithm="asgd", engine=engine, resume=True)


def test_a_synchronous_run_is_continued_on_any_engine(two_classes, tmp_path):
    learn(two_classes(), tmp_path, engine="simulator")
    for rounds, engine in ((4, "serial"), (5, "threads"), (6, Simulator(Constant(5.0)))):
        result = learn(two_classes(), tmp_path, engine=engine, rounds=rounds, resume=True)
        assert result.history.last.rounds == rounds


def test_resuming_needs_a_place(two_classes):
    with pytest.raises(OptionError, match="to resume, name the directory of the checkpoint"):
        fit("bmuf", "logistic", two_classes(), resume=True)


def test_a_place_that_cannot_be_written_to_is_reported(two_classes, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        learn(two_classes(), tmp_path / "file")


def test_without_resume_a_run_starts_anew(two_classes, tmp_path):
    first = learn(two_classes(), tmp_path)
    again = learn(two_classes(), tmp_path)
    assert first.model.sha256 == again.model.sha256
    assert len(again.history.records) == len(first.history.records)

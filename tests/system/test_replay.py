"""Recorded runs, repeated to the bit, from real threads and processes too."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hemiola.algorithms.registry import build
from hemiola.cli.app import app
from hemiola.dataset import make_dataset
from hemiola.engines import engine_class
from hemiola.engines.simulator import LogNormal, Simulator
from hemiola.errors import CheckpointError, OptionError
from hemiola.replay import replay
from hemiola.storage import load_nest, save_nest
from hemiola.trace import load_trace
from hemiola.training import fit

RECORDED = {
    "asgd": ("asgd", {}),
    "dc-asgd-a": ("dc-asgd", {"variant": "a"}),
    "easgd-async": ("easgd-async", {}),
    "adaptive-revision": ("adaptive-revision", {}),
    "adadelay": ("adadelay", {}),
    "downpour": ("downpour", {"n_push": 2, "n_fetch": 4}),
    "ssp": ("ssp", {"s": 1, "view": "strict"}),
    "sandblaster": ("sandblaster", {"portions": 6}),
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6))
    return make_dataset(X, (X @ np.arange(6) + rng.normal(size=200) > 0).astype(int))


def same_again(algorithm, data, engine, workers, path, rounds=12):
    result = fit(algorithm, "logistic", data, engine=engine, workers=workers, rounds=rounds,
                 trace=path)  # fmt: skip
    recorded = load_trace(path)
    again = replay(recorded, data)
    assert again.model.sha256 == result.model.sha256 == recorded.weights_sha256
    assert again.history.staleness == result.history.staleness
    assert again.history.worker_updates == result.history.worker_updates
    return result


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize("engine", ["serial", "threads"])
def test_a_run_is_repeated_to_the_bit(data, tmp_path, name, workers, engine):
    recipe, options = RECORDED[name]
    same_again(build(recipe, options), data, engine, workers, tmp_path / "t")


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("workers", [2, 4, 8])
def test_a_run_on_processes_is_repeated_to_the_bit(data, tmp_path, name, workers):
    recipe, options = RECORDED[name]
    engine = engine_class("processes")()
    same_again(build(recipe, options), data, engine, workers, tmp_path / "t", rounds=6)


def test_a_run_on_uneven_simulated_workers_is_repeated_to_the_bit(data, tmp_path):
    engine = Simulator(LogNormal(1e-3, 1.0), slow_share=0.3, slow_factor=5.0)
    result = same_again(build("dc-asgd"), data, engine, 5, tmp_path / "t")
    assert len(result.history.staleness) > 5


def test_until_stops_at_the_state_of_that_update(data, tmp_path):
    path = tmp_path / "t"
    fit("asgd", "logistic", data, engine="threads", rounds=10, trace=path)
    recorded = load_trace(path)
    models = [replay(recorded, data, until=n).model.sha256 for n in (1, 7, 40)]
    assert len(set(models)) == 3 and models[-1] == recorded.weights_sha256
    with pytest.raises(OptionError, match="until must be between 1 and 40"):
        replay(recorded, data, until=41)


def test_a_resumed_run_has_one_trace(data, tmp_path):
    where = {"engine": "serial", "workers": 3, "trace": tmp_path / "t", "eval_every": 5}
    fit("asgd", "logistic", data, rounds=10, checkpoint=tmp_path / "c", **where)
    result = fit("asgd", "logistic", data, rounds=20, checkpoint=tmp_path / "c", resume=True,
                 **where)  # fmt: skip
    assert replay(load_trace(tmp_path / "t"), data).model.sha256 == result.model.sha256


def test_other_data_and_synchronous_runs_are_refused(data, tmp_path):
    path = tmp_path / "t"
    fit("asgd", "logistic", data, rounds=2, trace=path)
    other = make_dataset(data.X + 1, data.y)
    with pytest.raises(CheckpointError, match="the data are not those of the recorded run"):
        replay(load_trace(path), other)
    with pytest.raises(OptionError, match="only asynchronous runs"):
        fit("ssgd", "logistic", data, rounds=2, trace=path)


@pytest.mark.parametrize("damage", ["format", "kinds", "workers", "component", "order", "cut"])
def test_a_damaged_or_hostile_trace_is_refused(data, tmp_path, damage):
    path = tmp_path / "t"
    fit("asgd", "logistic", data, rounds=3, trace=path)
    nest = load_nest(path)
    if damage == "format":
        nest["format"] = "other"
    elif damage == "kinds":
        nest["kinds"] = nest["kinds"][:-3]
    elif damage == "workers":
        nest["workers"] = nest["workers"] + 100
    elif damage == "component":
        nest["settings"]["algorithm"]["local"]["type"] = "os.system"
    elif damage == "order":
        nest["kinds"] = nest["kinds"][::-1].copy()
    save_nest(path, nest)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError):
        replay(load_trace(path), data)


def test_the_command_line_records_and_replays(tmp_path):
    run = CliRunner().invoke
    trace, one = tmp_path / "run.trace", tmp_path / "one.json"
    words = ["train", "breast_cancer", "--algorithm", "asgd", "--engine", "threads"]
    words += ["--rounds", "10", "--trace", str(trace), "--json", str(one)]
    outcome = run(app, [*words, "--staleness-plot", str(tmp_path / "s.png")])
    assert outcome.exit_code == 0, outcome.output
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    two = tmp_path / "two.json"
    outcome = run(app, ["replay", str(trace), "--json", str(two)])
    assert outcome.exit_code == 0, outcome.output
    assert "the recorded weights, bit for bit" in outcome.stdout
    assert (json.loads(one.read_text())["weights_sha256"]
            == json.loads(two.read_text())["weights_sha256"])  # fmt: skip
    outcome = run(app, ["replay", str(trace), "--until", "5"])
    assert outcome.exit_code == 0 and "the state after 5 updates" in outcome.stdout
    outcome = run(app, ["replay", str(one)])
    assert outcome.exit_code == 2 and "damaged or was not written by hemiola" in outcome.stderr

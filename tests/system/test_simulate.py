"""``hemiola simulate`` and ``--timeline`` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from typer.testing import CliRunner

from hemiola.cli import sweep
from hemiola.cli.app import app
from hemiola.errors import OptionError

SMALL = ["--rounds", "6", "--workers", "3"]
ASGD = ["--algorithm", "asgd"]
TIERS = ["-e", "network=tiers", "-e", "network.rack=1", "-e", "network.site=2"]


@pytest.fixture
def hemiola(monkeypatch):
    """Run a command line; the outcome with exit_code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def succeeded(outcome):
    assert outcome.exit_code == 0, outcome.output
    assert max(map(len, outcome.stdout.splitlines()), default=0) <= 100
    return outcome.stdout


def failed(outcome) -> str:
    """The one sentence on standard error."""
    assert outcome.exit_code == 2, outcome.output
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("hemiola: "), outcome.stderr
    return lines[0]


# One run


def test_a_simulation_shows_what_a_cluster_would_do(hemiola):
    words = ["simulate", "breast_cancer", *ASGD, *SMALL, *TIERS, "-e", "compute=lognormal"]
    out = succeeded(hemiola(*words, "--target-loss", "0.3"))
    for part in ("time to loss 0.3", "training loss", "idle", "staleness", "mean ", "95 % "):
        assert part in out
    for tier in ("sent, rack", "sent, site", "sent, wide"):
        assert tier in out
    assert "not reached" in succeeded(hemiola(*words, "--target-loss", "0"))


def test_the_json_file_holds_the_same_figures(hemiola, tmp_path):
    file = tmp_path / "run.json"
    words = ["simulate", "breast_cancer", *ASGD, *SMALL, *TIERS, "-e", "compute=constant"]
    succeeded(hemiola(*words, "--target-loss", "0.3", "--eval-every", "1", "--json", file))
    plain = json.loads(file.read_text())
    found, records = plain["simulated"], plain["history"]["records"]
    reached = next(record for record in records if record["loss"] <= 0.3)
    assert found["seconds_to_target"] == reached["seconds"] == found["seconds"]
    assert sum(found["bytes_by_tier"].values()) == found["bytes"] == sum(plain["history"]["links"])
    assert found["bytes_of_a_link"]["most"] == max(plain["history"]["links"])
    assert found["staleness"]["max"] == len(plain["history"]["staleness"]) - 1
    assert plain["engine"]["network"]["rack"] == 1 and plain["workers"] == 3


def test_simulate_and_train_take_the_same_time(hemiola):
    cluster = ["-e", "speed=factors", "-e", "speed.factors=1,1,5", "-e", "latency=0.01", "--json"]
    words = ["breast_cancer", "--algorithm", "bmuf", *SMALL, *cluster, "-"]
    simulated = json.loads(hemiola("simulate", *words).stdout)
    trained = json.loads(hemiola("train", *words, "--engine", "simulator").stdout)
    assert simulated["weights_sha256"] == trained["weights_sha256"]
    assert simulated["final"] == trained["final"]
    assert simulated["final"]["seconds"] == pytest.approx(6 * (0.02 + 5 * 0.01))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "name an algorithm"),
        (["--algorithm", "asgdd"], "did you mean 'asgd'"),
        ([*ASGD, "-e", "sped=equal"], "did you mean 'speed'"),
        ([*ASGD, "-e", "network=tier"], "did you mean 'tiers'"),
        ([*ASGD, "-e", "network=tiers", "-e", "latency=1"], "give them to the network instead"),
        ([*ASGD, "--sweep", "workers=two"], "workers must be a whole number, not 'two'"),
        ([*ASGD, "--sweep", "workers"], "write it as key=value"),
        ([*ASGD, "--sweep", "lrr=1,2"], "no option 'lrr'"),
        ([*ASGD, "--sweep", "lr=1,1"], "names a value twice"),
        ([*ASGD, "--sweep", "lr=1", "-o", "lr=2"], "given twice"),
        ([*ASGD, "--sweep", "algorithm=ssgd"], "give one of them"),
        (["--workers", "2", *ASGD, "--sweep", "workers=2,4"], "give one of them"),
        ([*ASGD, "--sweep", "lr=1", "--timeline", "a.png"], "leave out --timeline or --sweep"),
        ([*ASGD, "--jobs", "0"], "--jobs must be at least 1"),
        ([*ASGD, "--calibrate", "no.json"], "cannot read no.json"),
        ([*ASGD, "--timeline", "a.doc"], ".json for Perfetto"),
    ],
)
def test_bad_input_is_one_sentence_with_the_remedy(hemiola, words, part):
    assert part in failed(hemiola("simulate", "iris", *words))


# A grid


def test_a_grid_is_every_combination_in_order():
    points = sweep.grid(["workers=2,4", "lr= 0.1, 0.2"])
    assert [tuple(point.values()) for point in points] == [
        ("2", "0.1"), ("2", "0.2"), ("4", "0.1"), ("4", "0.2"),
    ]  # fmt: skip
    assert sweep.grid([]) == [{}]
    with pytest.raises(OptionError, match="has no values"):
        sweep.grid(["workers=,"])


def test_a_sweep_prints_one_table_and_equals_single_runs(hemiola, tmp_path):
    file = tmp_path / "sweep.json"
    words = ["simulate", "breast_cancer", "--rounds", "5", "-e", "compute=lognormal", *TIERS]
    grid = ["--sweep", "algorithm=ssgd,bmuf", "--sweep", "workers=2,4", "--sweep", "steps=3"]
    out = succeeded(hemiola(*words, *grid, "--target-loss", "0.3", "--json", file, "--jobs", "2"))
    assert out.count("ssgd") == out.count("bmuf") == 2
    runs = json.loads(file.read_text())["runs"]
    assert [run["point"] for run in runs] == [
        {"algorithm": name, "workers": k, "steps": "3"} for name in ("ssgd", "bmuf") for k in "24"
    ]
    alone = [*words, "--algorithm", "bmuf", "--workers", "4", "-o", "steps=3", "--json", "-"]
    single = json.loads(hemiola(*alone, "--target-loss", "0.3").stdout)
    assert runs[3]["weights_sha256"] == single["weights_sha256"]
    assert runs[3]["simulated"] == single["simulated"]


def test_engine_options_and_seeds_can_be_swept(hemiola, tmp_path):
    file = tmp_path / "sweep.json"
    words = ["simulate", "breast_cancer", *ASGD, *SMALL, "-e", "compute=constant", "--json", file]
    grid = ["--sweep", "latency=0,0.5", "--sweep", "seed=0,1"]
    succeeded(hemiola(*words, *grid))
    runs = json.loads(file.read_text())["runs"]
    assert [run["engine"]["latency"] for run in runs] == [0.0, 0.0, 0.5, 0.5]
    assert [run["seed"] for run in runs] == [0, 1, 0, 1]
    assert runs[2]["final"]["seconds"] > 6


def test_a_point_that_fails_does_not_stop_the_others(hemiola, tmp_path):
    file = tmp_path / "sweep.json"
    words = ["simulate", "iris", *ASGD, "--rounds", "3", "--sweep", "workers=2,5000"]
    outcome = hemiola(*words, "--json", file)
    assert "workers=5000: 5000 workers for 120 samples" in failed(outcome)
    assert "failed" in outcome.stdout
    assert ["error" in run for run in json.loads(file.read_text())["runs"]] == [False, True]


def test_ctrl_c_ends_a_sweep_and_its_processes(tmp_path):
    words = ["simulate", "digits", "--sweep", "algorithm=ssgd,asgd", "--sweep", "workers=4,8"]
    command = [sys.executable, "-m", "hemiola", *words, "--rounds", "1000000"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored in background
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while len(_children(process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)  # the tracker and two simulations
        time.sleep(1)
        children = _children(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 130
    assert errors.strip() == "hemiola: interrupted"
    deadline = time.monotonic() + 10
    while any(map(_runs, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(children) >= 2 and not any(map(_runs, children))


def _children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Calibration and timelines


@pytest.mark.parametrize("engine", ["threads", "processes"])
def test_a_real_run_calibrates_a_simulation(hemiola, tmp_path, engine):
    real, file = tmp_path / "real.json", tmp_path / "simulated.json"
    words = ["breast_cancer", *ASGD, "--rounds", "40"]
    succeeded(hemiola("train", *words, "--engine", engine, "--workers", "3", "--json", real))
    succeeded(hemiola("simulate", *words, "--calibrate", real, "--json", file))
    measured, found = json.loads(real.read_text())["timing"], json.loads(file.read_text())
    assert found["workers"] == 3
    assert found["engine"]["compute"]["mean"] == measured["step_seconds"]
    assert found["engine"]["network"]["latency"] == measured["message_seconds"]


def test_a_calibrated_cluster_may_differ_in_size_and_network(hemiola, tmp_path):
    first, file = tmp_path / "first.json", tmp_path / "second.json"
    words = ["simulate", "breast_cancer", *ASGD, "--rounds", "30"]
    succeeded(hemiola(*words, "-e", "compute.mean=2", "--workers", "2", "--json", first))
    more = ["--calibrate", first, "--workers", "5", *TIERS, "--json", file]
    succeeded(hemiola(*words, *more))
    found = json.loads(file.read_text())
    assert found["engine"]["network"]["type"] == "Tiers"
    assert found["final"]["seconds"] == pytest.approx(30 * 2, rel=0.2)
    message = failed(hemiola(*words, "--calibrate", first, "-e", "compute=uniform"))
    assert "leave out compute" in message


def test_train_simulate_and_replay_write_timelines(hemiola, tmp_path):
    trace, files = tmp_path / "run.trace", [tmp_path / f"{n}.json" for n in range(3)]
    words = ["breast_cancer", *ASGD, *SMALL, "-e", "compute=lognormal", "-e", "latency=1e-4"]
    traced = ["--engine", "simulator", "--trace", trace]
    out = succeeded(hemiola("train", *words, *traced, "--timeline", files[0]))
    assert "timeline: " in out.replace("\n", " ")
    succeeded(hemiola("simulate", *words, "--timeline", files[1]))
    succeeded(hemiola("replay", trace, "--timeline", files[2]))
    one, two, three = (json.loads(file.read_text()) for file in files)
    assert one == two == three
    assert {event["name"] for event in one if event["ph"] == "X"} == {
        "compute", "communicate", "unfinished",
    }  # fmt: skip
    for command in (["train", *words], ["replay", trace]):
        assert "'.doc'" in failed(hemiola(*command, "--timeline", tmp_path / "a.doc"))

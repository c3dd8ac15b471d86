"""The command line as a user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hemiola.algorithms.registry import RECIPES, SHARED
from hemiola.checkpoint import FILE
from hemiola.cli.app import app
from hemiola.result import Result

SMALL = ["--rounds", "6", "--workers", "3"]


@pytest.fixture
def hemiola(monkeypatch):
    """Run a command line; the outcome with exit_code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")

    def run(*words: object):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


def succeeded(outcome):
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def failed(outcome) -> str:
    """The one sentence on standard error."""
    assert outcome.exit_code == 2, outcome.output
    assert "Traceback" not in outcome.output
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("hemiola: "), outcome.stderr
    return lines[0]


def test_train_prints_the_outcome_within_100_columns(hemiola):
    out = succeeded(hemiola("train", "breast_cancer", "--algorithm", "bmuf", *SMALL))
    assert "test accuracy" in out and "weights sha256" in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", RECIPES)
def test_every_algorithm_trains_by_name(hemiola, name):
    words = ["train", "breast_cancer", "--algorithm", name, *SMALL, "--json", "-"]
    few = ["-o", "portions=3"] if name == "sandblaster" else []  # else 18 updates are no iteration
    found = json.loads(succeeded(hemiola(*words, *few)))
    assert found["algorithm"]["name"] == name
    assert found["history"]["records"][-1]["loss"] < found["history"]["records"][0]["loss"]


def test_the_json_file_holds_settings_history_and_the_hash_of_the_weights(hemiola, tmp_path):
    words = ["train", "digits", "--algorithm", "fedavg", *SMALL, "-o", "participation=0.5"]
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        succeeded(hemiola(*words, "--json", file))
    one, two = (json.loads(file.read_text()) for file in files)
    assert one["weights_sha256"] == two["weights_sha256"] and len(one["weights_sha256"]) == 64
    assert one["algorithm"]["communicate"]["participation"] == 0.5
    assert one["engine"]["name"] == "serial" and one["seed"] == 0 and one["workers"] == 3
    assert one["data"] == {**one["data"], "name": "digits", "train": 1437, "test": 360}
    assert one["final"]["accuracy"] == one["history"]["records"][-1]["score"]
    other = tmp_path / "c.json"
    succeeded(hemiola(*words, "--json", other, "--seed", "1"))
    assert json.loads(other.read_text())["weights_sha256"] != one["weights_sha256"]


def test_an_asynchronous_run_shows_the_distribution_of_staleness(hemiola):
    words = ["train", "digits", "--algorithm", "asgd", "--engine", "simulator", "--workers", "20"]
    out = succeeded(hemiola(*words, "--rounds", "5", "-e", "compute=lognormal"))
    assert "staleness of 100 updates: mean" in out and "seconds (virtual)" in out


def test_engine_options_reach_the_engine(hemiola):
    words = ["train", "breast_cancer", "--algorithm", "ssgd", *SMALL, "--engine", "simulator"]
    more = ["-e", "latency=0.5", "-e", "compute=constant", "-e", "compute.mean=2", "--json", "-"]
    found = json.loads(succeeded(hemiola(*words, *more)))
    assert found["final"]["seconds"] == 6 * (2 * 0.5 + 2)


def test_resuming_continues_to_the_same_bits(hemiola, tmp_path):
    words = ["train", "digits", "--algorithm", "bmuf", "--workers", "3", "--json", "-"]
    places = ["--checkpoint", tmp_path / "run", "--eval-every", "5"]
    succeeded(hemiola(*words, *places, "--rounds", "10"))
    resumed = json.loads(succeeded(hemiola(*words, *places, "--rounds", "20", "--resume")))
    straight = json.loads(succeeded(hemiola(*words, "--rounds", "20", "--eval-every", "5")))
    assert resumed["weights_sha256"] == straight["weights_sha256"]


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_resume(tmp_path):
    place = tmp_path / "run"
    words = ["train", "digits", "--algorithm", "model-averaging", "--rounds", "100000"]
    command = [sys.executable, "-m", "hemiola", *words, "--eval-every", "5"]
    command += ["--checkpoint", str(place)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (place / FILE).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted after round" in errors and "Traceback" not in errors
    how = errors.split("resume with: hemiola ")[1].strip()
    assert how.endswith("--resume") and str(place) in how
    again = [word if word != "100000" else "1" for word in how.split()]
    done = subprocess.run([sys.executable, "-m", "hemiola", *again], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_compare_shows_one_table_with_the_gap_to_the_pooled_optimum(hemiola, tmp_path):
    words = ["compare", "breast_cancer", "--algorithms", "ssgd,bmuf", *SMALL, "--seeds", "2"]
    files = ["--json", tmp_path / "c.json", "--plot", tmp_path / "c.png"]
    out = succeeded(hemiola(*words, *files, "-o", "batch_size=16", "-o", "bmuf.eta=0.5"))
    assert "pooled L-BFGS" in out and "gap" in out and " ± " in out
    assert max(map(len, out.splitlines())) <= 100
    found = json.loads((tmp_path / "c.json").read_text())
    assert [len(found["runs"][name]) for name in ("ssgd", "bmuf")] == [2, 2]
    bmuf = found["runs"]["bmuf"][0]
    assert bmuf["algorithm"]["aggregate"]["eta"] == 0.5
    assert bmuf["final"]["loss"] >= found["pooled_optimum"]["loss"]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_saved_model_predicts_raw_data(hemiola, tmp_path):
    model, target = tmp_path / "m.npz", tmp_path / "p.txt"
    words = ["train", "iris", "--algorithm", "ssgd", "--rounds", "100", "--save", model]
    succeeded(hemiola(*words, "--test-size", "0.3"))
    out = succeeded(hemiola("predict", model, "iris", "--output", target))
    assert "150 predictions, accuracy 0.9" in out
    assert len(target.read_text().split()) == 150
    assert Result.load(model).model.standardizer is not None


def test_the_tables_of_algorithms_and_engines_come_from_the_code(hemiola):
    out = succeeded(hemiola("algorithms"))
    assert all(name in out for name in (*RECIPES, *SHARED))
    assert max(map(len, out.splitlines())) <= 100
    rows = json.loads(succeeded(hemiola("algorithms", "--json")))
    assert {row["name"] for row in rows} == {*RECIPES, *SHARED}
    by_name = {row["name"]: row for row in rows}
    assert by_name["bmuf"]["aggregation"].startswith("BlockMomentum")
    assert by_name["asgd"]["communication"].startswith("Asynchronous")
    assert "simulator" in by_name["ssgd"]["engines"]
    about = succeeded(hemiola("algorithms", "bmuf"))
    assert "delta <- eta delta + zeta G" in about and "batch_size" in about
    assert "simulator" in succeeded(hemiola("engines"))
    assert json.loads(succeeded(hemiola("engines", "--json")))[0]["name"] == "serial"
    assert "breast_cancer" in succeeded(hemiola("data"))


def test_early_stops_say_why(hemiola):
    words = ["train", "breast_cancer", "--algorithm", "ssgd", "--rounds", "500", "--json", "-"]
    found = json.loads(succeeded(hemiola(*words, "--target-loss", "0.3", "--eval-every", "1")))
    assert found["stopped"].startswith("the training loss reached the target")
    found = json.loads(succeeded(hemiola(*words, "--time-limit", "0.001")))
    assert found["stopped"].startswith("the time limit")


def test_epochs_are_translated_into_rounds(hemiola):
    words = ["train", "breast_cancer", "--algorithm", "ssgd", "--epochs", "3", "--json", "-"]
    found = json.loads(succeeded(hemiola(*words, "-o", "batch_size=0.25")))
    assert found["rounds"] == 3 * 4


BAD = {
    "algorithm": (["train", "iris", "--algorithm", "bmuff"], "did you mean 'bmuf'?"),
    "engine": (["train", "iris", "--algorithm", "ssgd", "--engine", "thread"], "'threads'?"),
    "option": (["train", "iris", "--algorithm", "bmuf", "-o", "etta=1"], "did you mean 'eta'?"),
    "nobody's option": (
        ["compare", "iris", "--algorithms", "ssgd,asgd", "-o", "zetta=1"], "no option 'zetta'"),
    "type": (["train", "iris", "--algorithm", "ssgd", "-o", "lr=abc"], "valid number, not 'abc'"),
    "range": (["train", "iris", "--algorithm", "bmuf", "-o", "eta=2"], "less than 1, not '2'"),
    "no value": (["train", "iris", "--algorithm", "bmuf", "-o", "eta"], "write it as key=value"),
    "time": (
        ["train", "iris", "--algorithm", "ssgd", "--engine", "simulator", "-e", "compute=slow"],
        "there is no compute 'slow'"),
    "missing file": (["train", "no.csv", "--algorithm", "ssgd"], "no such file"),
    "missing set": (["train", "breast_cance", "--algorithm", "ssgd"], "'breast_cancer'?"),
    "workers": (
        ["train", "iris", "--algorithm", "ssgd", "--workers", "500"], "use at most 120 workers"),
    "labels": (
        ["train", "digits", "--algorithm", "ssgd", "--objective", "hinge"], "use softmax loss"),
    "objective": (
        ["train", "iris", "--algorithm", "ssgd", "--objective", "cubic"], "there is no objective"),
    "resume": (["train", "iris", "--algorithm", "ssgd", "--resume"], "add --checkpoint DIR"),
    "rounds": (["train", "iris", "--algorithm", "ssgd", "--rounds", "0"], "at least 1, not 0"),
    "picture": (["train", "iris", "--algorithm", "ssgd", "--plot", "a.doc"], ".doc"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "part"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_with_the_remedy(hemiola, words, part):
    assert part in failed(hemiola(*words))


def test_bad_numbers_in_a_file_are_named(hemiola, tmp_path):
    file = tmp_path / "bad.csv"
    file.write_text("1,2,a\nnan,3,b\n4,5,a\n")
    assert "has 1 missing value" in failed(hemiola("train", file, "--algorithm", "ssgd"))
    file.write_text("1,2,a\ninf,3,b\n4,5,a\n")
    assert "NaN or infinite" in failed(hemiola("train", file, "--algorithm", "ssgd"))


def test_a_truncated_file_is_named(hemiola, tmp_path):
    import gzip

    file = tmp_path / "cut.svm.gz"
    file.write_bytes(gzip.compress(b"1 1:0.5 2:0.25\n" * 5000)[:-20])
    assert "cut.svm.gz" in failed(hemiola("train", file, "--algorithm", "ssgd"))


def test_a_place_that_cannot_be_written_is_found_before_training(hemiola, tmp_path):
    (tmp_path / "file").write_text("")
    for option in ("--json", "--save", "--log"):
        words = ["train", "iris", "--algorithm", "ssgd", "--rounds", "10000000"]
        assert "cannot write to" in failed(hemiola(*words, option, tmp_path / "file" / "x"))
    words = ["train", "iris", "--algorithm", "ssgd", "--rounds", "10000000"]
    assert "cannot write to" in failed(hemiola(*words, "--checkpoint", tmp_path / "file"))


def test_divergence_stops_the_run_and_keeps_the_last_good_weights(hemiola, tmp_path):
    model = tmp_path / "m.npz"
    words = ["train", "diabetes", "--algorithm", "ssgd", "--raw", "-o", "lr=1e6", "--save", model]
    message = failed(hemiola(*words))
    assert "diverged" in message and "ten times smaller" in message and str(model) in message
    assert np.isfinite(Result.load(model).weights).all()


def test_a_damaged_checkpoint_and_one_of_another_run_are_refused(hemiola, tmp_path):
    words = ["train", "iris", *SMALL, "--checkpoint", tmp_path]
    succeeded(hemiola(*words, "--algorithm", "ssgd"))
    message = failed(hemiola(*words, "--algorithm", "asgd", "--resume"))
    assert "belongs to another run" in message
    message = failed(hemiola(*words, "--algorithm", "ssgd", "--seed", "7", "--resume"))
    assert "its seed is 0, here it is 7" in message
    file: Path = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:300])
    assert "damaged" in failed(hemiola(*words, "--algorithm", "ssgd", "--resume"))
    assert "holds no checkpoint" in failed(
        hemiola("train", "iris", "--algorithm", "ssgd", "--checkpoint", tmp_path / "x", "--resume")
    )


def test_a_model_file_that_is_none_is_refused(hemiola, tmp_path):
    file = tmp_path / "m.npz"
    file.write_bytes(b"no model")
    assert "damaged or was not written by hemiola" in failed(hemiola("predict", file, "iris"))
    assert "no such file" in failed(hemiola("predict", tmp_path / "none.npz", "iris"))


def test_importing_the_package_is_quick_because_heavy_parts_load_when_used():
    code = "import sys, hemiola; print([m for m in ('numpy', 'scipy', 'sklearn', 'numba', "
    code += "'pydantic', 'matplotlib', 'pyarrow', 'typer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Threads that share memory


@pytest.fixture
def rows_of_text(tmp_path):
    """A LIBSVM file of sparse rows."""
    rng = np.random.default_rng(0)
    path = tmp_path / "text.svm"
    rows = (np.sort(rng.choice(200, 3, replace=False)) + 1 for _ in range(120))
    lines = [f"{i % 2} " + " ".join(f"{j}:1" for j in row) for i, row in enumerate(rows)]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("name", ["hogwild", "tiered", "cyclades", "sdca"])
def test_threads_that_share_memory_train_by_name(hemiola, rows_of_text, name):
    words = ["train", rows_of_text, "--algorithm", name, "--workers", 2]
    out = succeeded(hemiola(*words, "--epochs", 3))
    assert "passes           3" in out and "server updates" not in out
    found = json.loads(succeeded(hemiola(*words, "--epochs", 3, "--json", "-")))
    assert found["engine"]["name"] == "threads"
    assert found["final"]["rounds"] == 3 and found["final"]["local_steps"] == 3 * 96
    assert (found["final"]["gap"] is not None) == (name == "sdca")
    refused = failed(hemiola(*words, "--engine", "serial"))
    assert "use one of: threads" in refused
    assert "no option 'shards'" in failed(hemiola(*words, "-o", "shards=2"))


def test_a_comparison_with_one_of_them_runs_on_threads(hemiola):
    words = ["compare", "breast_cancer", "--algorithms", "tiered,ssgd,cocoa", "--epochs", "2"]
    assert "engine threads" in succeeded(hemiola(*words, "-o", "cocoa.epochs=1"))


def test_sdca_ends_by_itself_and_says_how_close_it_is(hemiola, tmp_path):
    words = ["train", "breast_cancer", "--algorithm", "sdca", "--rounds", "2000", "--workers", "1"]
    log = tmp_path / "log.jsonl"
    out = succeeded(hemiola(*words, "-o", "tolerance=1e-4", "--log", log))
    assert "The run ends when the duality gap is 0.0001 of the objective." in out
    assert "stopped          the duality gap is" in out and "duality gap      at most" in out
    last = json.loads(log.read_text().splitlines()[-1])
    assert 0 <= last["gap"] <= 1e-4 * last["loss"]


def test_words_come_before_the_run(hemiola):
    words = ["train", "breast_cancer", "--algorithm", "hogwild", "--workers", "2"]
    out = succeeded(hemiola(*words, "--epochs", "1"))
    assert "(Ω)" in out and "Warning: 100%" in out


def test_what_is_for_ratings_says_so(hemiola):
    out = failed(hemiola("train", "breast_cancer", "--algorithm", "stratified"))
    assert "for linear models use tiered or sdca" in out


@pytest.mark.parametrize("name", ["tiered", "cocoa"])
def test_shards_are_loaded_for_what_needs_all_rows_at_once(hemiola, rows_of_text, tmp_path, name):
    shards = tmp_path / "shards"
    succeeded(hemiola("convert", rows_of_text, shards, "--shards", 5))
    out = succeeded(hemiola("train", shards, "--algorithm", name, "--workers", 2, "--epochs", 2))
    assert "test accuracy" in out


def test_admm_takes_an_l1_penalty_and_draws_its_residuals(hemiola, tmp_path):
    words = ["train", "breast_cancer", "--algorithm", "admm", "--l1", "0.02", "--json", "-"]
    picture = tmp_path / "residuals.png"
    found = json.loads(succeeded(hemiola(*words, "--residual-plot", picture)))
    assert found["objective"]["l1"] == 0.02 and found["objective"]["l2"] == 0.0
    assert "residuals are small enough" in found["stopped"]
    assert found["history"]["records"][-1]["measures"]["rho"] > 0
    assert picture.stat().st_size > 5000

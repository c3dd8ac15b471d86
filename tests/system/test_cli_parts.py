"""The command line in detail: options, places, predictions, interruptions."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from hemiola.checkpoint import FILE
from hemiola.cli import catalogue, output, recipes, setup, train
from hemiola.cli.app import app
from hemiola.engines.simulator import LogNormal
from hemiola.errors import OptionError, UnsupportedError
from hemiola.history import History
from hemiola.result import Result

COMMANDS = ["train", "compare", "simulate", "algorithms", "engines", "data", "predict"]
FAST = ["--rounds", "4", "--workers", "2"]
SSGD = ["--algorithm", "ssgd"]


@pytest.fixture
def hemiola(monkeypatch):
    """Run a command line; the outcome with exit_code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def parsed(outcome):
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


def spawn(*words, **pipes):
    command = [sys.executable, "-m", "hemiola", *map(str, words)]
    return subprocess.Popen(command, text=True, **pipes)


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_examples(hemiola, command):
    outcome = hemiola(command, "--help")
    assert outcome.exit_code == 0
    assert f"hemiola {command}" in outcome.stdout.split("Examples:")[1]
    assert max(map(len, outcome.stdout.splitlines())) <= 100


def test_help_loads_nothing_heavy():
    code = "import sys; from hemiola.cli.app import app\ntry: app(['train', '--help'])\n"
    code += "except SystemExit: print([m for m in ('numpy', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")


def test_the_version_is_told(hemiola):
    assert hemiola("--version").stdout.startswith("hemiola 0.")


def test_a_wrong_flag_is_an_error_of_usage(hemiola):
    assert hemiola("train", "iris", *SSGD, "--wrokers", "3").exit_code == 2
    assert hemiola("train", "iris").exit_code == 2


def test_a_reader_that_stops_early_is_no_error():
    with spawn("algorithms", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


# Options


def test_an_option_goes_to_those_algorithms_that_have_it():
    made = recipes.build_algorithms(["ssgd", "eamsgd", "bmuf"], ["momentum=0.5", "steps=3"])
    assert made["eamsgd"].local.momentum == 0.5
    assert made["bmuf"].local.steps == 3
    assert made["ssgd"] == recipes.build_algorithms(["ssgd"], [])["ssgd"]


def test_a_chosen_component_brings_its_options():
    options = ["optimizer=heavy-ball", "momentum=0.5", "bmuf.optimizer=adam", "eta=0.25"]
    made = recipes.build_algorithms(["ssgd", "bmuf"], options)
    assert made["ssgd"].aggregate.optimizer.momentum == 0.5
    assert type(made["bmuf"].local.optimizer).__name__ == "Adam"
    assert made["bmuf"].aggregate.eta == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["momentun=0.5"], "no option 'momentun' in any algorithm here; did you mean 'momentum'"),
        (["ssgd.steps=5"], "ssgd has no option 'steps'"),
        (["fedavg.epochs=5"], "fedavg, which does not run here"),
        (["lr=0"], "greater than 0"),
        (["lr=1", "lr=2"], "given twice"),
        (["partition=dirichlt"], "did you mean 'dirichlet'"),
        (["lr.x=1"], "plain value"),
    ],
)
def test_an_option_that_fits_nowhere_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        recipes.build_algorithms(["ssgd", "asgd"], options)


def test_an_algorithm_cannot_be_named_twice():
    with pytest.raises(OptionError, match="ssgd is named twice"):
        recipes.build_algorithms(["ssgd", "ssgd"], [])


def test_an_engine_that_cannot_run_an_algorithm_is_refused_first():
    class Rounds:
        name, supports = "rounds", frozenset()

    with pytest.raises(UnsupportedError, match="cannot run asgd, which is asynchronous; use one"):
        recipes.refuse_unsupported(recipes.build_algorithms(["asgd"], []), Rounds())


def test_engine_options_are_a_tree_as_well():
    engine = setup.build_engine("simulator", ["compute=lognormal", "compute.sigma=0.7"])
    assert engine.compute == LogNormal(sigma=0.7)
    assert setup.build_engine("simulator", ["bandwidth=1e8"]).bandwidth == 1e8
    with pytest.raises(OptionError, match="did you mean 'latency'"):
        setup.build_engine("simulator", ["latenzy=1"])
    with pytest.raises(OptionError, match="engine serial has no options"):
        setup.build_engine("serial", ["latency=1"])
    with pytest.raises(OptionError, match="LogNormal has no option 'sigmo'; did you mean 'sigma'"):
        setup.build_engine("simulator", ["compute=lognormal", "compute.sigmo=1"])


def test_rounds_and_epochs_exclude_each_other(hemiola):
    outcome = hemiola("train", "iris", *SSGD, "--rounds", "3", "--epochs", "3")
    assert outcome.exit_code == 2 and "give one of them" in outcome.stderr


# Tables


def test_one_algorithm_is_shown_with_types_and_components(hemiola):
    out = hemiola("algorithms", "bmuf").stdout
    assert "float > 0, none" in out and "none: estimated" in out
    assert "optimizer=adam" in out and "partition=dirichlet" in out
    assert "keep, reset, average" in out and ">>>" not in out
    found = parsed(hemiola("algorithms", "bmuf", "--json"))
    assert {"name": "steps", "type": "int", "default": "10"} in found["options"]
    assert hemiola("algorithms", "bmuff").exit_code == 2


def test_engines_are_shown_with_their_options(hemiola):
    out = hemiola("engines").stdout
    assert "compute=stragglers" in out and "slow_share" in out
    assert max(map(len, out.splitlines())) <= 100
    found = {row["name"]: row for row in parsed(hemiola("engines", "--json"))}
    assert found["simulator"]["options"][0]["name"] == "compute"
    assert all(row["what"].endswith(".") and row["disciplines"] for row in found.values())


def test_every_recipe_has_a_page():
    for recipe in recipes.RECIPES.values():
        assert recipe.name in catalogue.documentation(recipe)
        rows = catalogue.option_rows(recipe) + catalogue.component_rows(recipe)
        assert all(row.type or row.name.startswith("schedule=") for row in rows), rows


def test_the_histogram_of_staleness_has_at_most_ten_bins():
    table = output.staleness(History(staleness=[1] + [3] * 100))
    assert table.row_count == 10
    assert output.staleness(History(staleness=[7])) is None


# Data


def test_a_test_file_may_lack_a_class_and_the_last_features(hemiola, tmp_path):
    rows = [f"{i % 3} 1:{i % 7} 2:{i % 5} 9:{i}" for i in range(60)]
    (tmp_path / "a.svm").write_text("\n".join(rows))
    (tmp_path / "b.svm").write_text("1 1:1 2:1\n2 1:1 2:2\n")
    words = ["train", tmp_path / "a.svm", *SSGD, *FAST, "--test-data", tmp_path / "b.svm"]
    found = parsed(hemiola(*words, "--json", "-"))
    assert found["data"] == {**found["data"], "test": 2, "features": 9, "classes": [0, 1, 2]}
    (tmp_path / "b.svm").write_text("1 1:1 2:1\n7 1:1 2:2\n")
    outcome = hemiola(*words)
    assert outcome.exit_code == 2 and "other classes" in outcome.stderr


def test_without_a_test_part_the_score_is_that_of_training(hemiola):
    words = ["train", "iris", *SSGD, *FAST, "--test-size", "0"]
    assert "training accuracy" in hemiola(*words).stdout
    assert parsed(hemiola(*words, "--json", "-"))["data"]["test"] == 0


def test_raw_features_stay_raw(hemiola):
    words = ["train", "iris", *SSGD, *FAST, "--json", "-"]
    raw, scaled = parsed(hemiola(*words, "--raw")), parsed(hemiola(*words))
    assert (raw["data"]["standardized"], scaled["data"]["standardized"]) == (False, True)
    assert raw["weights_sha256"] != scaled["weights_sha256"]


# What a run leaves behind


def test_json_on_standard_output_stands_alone(hemiola):
    outcome = hemiola("train", "iris", *SSGD, *FAST, "--json", "-")
    final = parsed(outcome)["final"]
    assert {"loss", "eval_loss", "accuracy", "bytes_up", "waiting_share"} <= set(final)
    assert "weights sha256" in outcome.stderr


def test_the_best_model_is_the_one_that_is_reported(hemiola):
    words = ["train", "iris", *SSGD, "--rounds", "30", "-o", "lr=3", "--eval-every", "1"]
    found = parsed(hemiola(*words, "--keep-best", "--json", "-"))
    lowest = min(record["eval_loss"] for record in found["history"]["records"])
    assert found["final"]["eval_loss"] == lowest


def test_figures_logs_and_models_go_to_new_folders(hemiola, tmp_path):
    places = {"--plot": "p.svg", "--log": "l.jsonl", "--save": "m.npz", "--json": "j.json"}
    words = [x for key, name in places.items() for x in (key, tmp_path / "new" / name)]
    outcome = hemiola("train", "iris", *SSGD, *FAST, *words)
    assert outcome.exit_code == 0, outcome.output
    for name in places.values():
        assert (tmp_path / "new" / name).stat().st_size and name in outcome.stdout
    lines = (tmp_path / "new" / "l.jsonl").read_text().splitlines()
    assert [json.loads(line)["rounds"] for line in lines] == [1, 2, 3, 4]


def test_a_terminal_shows_progress_on_standard_error(hemiola, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    outcome = hemiola("train", "digits", *SSGD, "--time-limit", "0.5", "--rounds", "10000")
    assert "rounds/s" in outcome.stderr and "rounds/s" not in outcome.stdout


def test_without_a_terminal_standard_error_is_silent(hemiola):
    assert hemiola("train", "iris", *SSGD, *FAST).stderr == ""
    assert hemiola("compare", "iris", "--algorithms", "ssgd,asgd", *FAST).stderr == ""


# compare


def test_one_diverging_algorithm_does_not_spoil_the_comparison(hemiola):
    words = ["compare", "diabetes", "--algorithms", "ssgd,bmuf", "--raw", "-o", "ssgd.lr=1e6"]
    outcome = hemiola(*words, *FAST)
    assert outcome.exit_code == 2
    rows = {line.split()[0]: line for line in outcome.stdout.splitlines() if line.strip()}
    assert "diverged" in rows["ssgd"] and "diverged" not in rows["bmuf"]
    assert "hemiola: ssgd: training diverged" in outcome.stderr


def test_hinge_loss_has_no_optimum_to_compare_with(hemiola):
    words = ["compare", "breast_cancer", "--algorithms", "ssgd", "--objective", "hinge", *FAST]
    out = hemiola(*words).stdout
    last = next(line for line in out.splitlines() if line.strip().startswith("pooled"))
    assert last.split() == ["pooled", "L-BFGS", "-", "-"]


def test_compare_asks_for_algorithms_and_seeds(hemiola):
    assert "at least one" in hemiola("compare", "iris", "--algorithms", ",").stderr
    assert "at least one" in hemiola("compare", "iris", "--algorithms", "ssgd", "--seeds", 0).stderr


# predict


@pytest.fixture
def table(tmp_path):
    """A CSV file of three features and a label, and a model of it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)).round(3)
    labels = np.where(X @ [1.0, -2.0, 0.5] > 0, "yes", "no")
    lines = [",".join([*map(str, row), label]) for row, label in zip(X, labels, strict=True)]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    bare = [line.rsplit(",", 1)[0] for line in lines]
    (tmp_path / "bare.csv").write_text("\n".join(bare) + "\n")
    words = ["train", tmp_path / "data.csv", *SSGD, "--rounds", "50", "--save", tmp_path / "m.npz"]
    assert CliRunner().invoke(app, [*map(str, words)]).exit_code == 0
    return tmp_path


def test_a_table_without_labels_is_predicted_the_same(hemiola, table):
    labelled = parsed(hemiola("predict", table / "m.npz", table / "data.csv", "--json"))
    bare = parsed(hemiola("predict", table / "m.npz", table / "bare.csv", "--json"))
    assert labelled["accuracy"] > 0.8 and "accuracy" not in bare
    assert labelled["predictions"] == bare["predictions"]
    assert set(bare["predictions"]) == {"yes", "no"}


def test_predictions_are_written_one_a_line(hemiola, table):
    words = ["predict", table / "m.npz", table / "bare.csv", "--output"]
    outcome = hemiola(*words, table / "p.csv")
    assert "no labels" in outcome.stdout
    assert (table / "p.csv").read_text() == hemiola(*words, "-").stdout
    assert len((table / "p.csv").read_text().splitlines()) == 60


def test_other_columns_than_the_models_are_refused(hemiola, table):
    outcome = hemiola("predict", table / "m.npz", "iris")
    assert outcome.exit_code == 2 and "4 features" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_a_regression_is_scored_by_r2(hemiola, tmp_path):
    model = tmp_path / "m.npz"
    assert hemiola("train", "diabetes", *SSGD, "--save", model).exit_code == 0
    assert "R² 0." in hemiola("predict", model, "diabetes").stdout


# Ctrl-C


def test_an_interrupted_run_is_resumed_by_the_command_it_prints(tmp_path):
    place = tmp_path / "a run"
    words = ["train", "digits", *SSGD, "--rounds", "100000", "--eval-every", "20"]
    words += ["--checkpoint", place, "--save", tmp_path / "m.npz"]
    with spawn(*words, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (place / FILE).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "the model so far is in" in errors
    sha = Result.load(tmp_path / "m.npz").model.sha256
    reached = int(float(errors.split("interrupted after round ")[1].split(";")[0]))
    again = shlex.split(errors.strip().split("resume with: hemiola ")[1])
    again[again.index("100000")] = str(reached)
    straight = [word for word in again if word not in ("--resume", "--checkpoint", str(place))]
    for line in (again, straight):
        outcome = CliRunner().invoke(app, [*line, "--json", "-"])
        assert json.loads(outcome.stdout)["weights_sha256"] == sha


def test_ctrl_c_outside_of_training_is_quiet(hemiola, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "prepare", interrupted)
    outcome = hemiola("train", "iris", *SSGD)
    assert outcome.exit_code == 130 and outcome.stderr == "hemiola: interrupted\n"


# Faults

SIMULATED = ["--engine", "simulator", "--rounds", "12", "--workers", "3"]


def test_a_run_with_faults_says_what_happened(hemiola, tmp_path):
    faults = ["--fault", "die:worker=1,at=4", "--fault", "poison:worker=2,at=2,until=5"]
    words = ["train", "iris", *SSGD, *SIMULATED, "--json", tmp_path / "run.json"]
    outcome = hemiola(*words, *faults)
    sentence = "1 of 3 workers died; 3 messages that were not finite were refused."
    assert sentence in outcome.stdout
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["incidents"] == sentence
    assert [fault["type"] for fault in document["faults"]] == ["Die", "Poison"]
    history = document["history"]
    assert (history["left"], history["refused"], history["sent"]) == (1, 3, 12 * 3 - 7)
    assert "died" not in hemiola(*words[:-2]).stdout


def test_policies_are_given_as_options(hemiola):
    words = ["train", "iris", *SSGD, *SIMULATED, "--fault", "slow:worker=0,factor=9"]
    assert "1 late message was dropped." in hemiola(*words, "-o", "backups=1").stdout
    outcome = hemiola(*words, "-o", "timeout=0.002", "-o", "late=raise")
    assert outcome.exit_code == 2
    assert "worker 0 did not answer to round 0 within 0.002 seconds" in outcome.stderr


def test_a_run_that_lost_its_workers_leaves_its_model(hemiola, tmp_path):
    words = ["train", "iris", *SSGD, *SIMULATED, "-o", "on_loss=raise", "--eval-every", "1"]
    model = tmp_path / "model.npz"
    outcome = hemiola(*words, "--fault", "die:worker=1,at=4", "--save", model)
    assert outcome.exit_code == 2
    assert "worker 1 died in round 4" in outcome.stderr
    assert f"The model so far is in {model}." in " ".join(outcome.stderr.split("\n"))
    assert Result.load(model).history.last.rounds == 4


def test_a_restarted_run_says_so(hemiola, tmp_path):
    words = ["train", "iris", *SSGD, *SIMULATED, "-o", "on_loss=restart"]
    outcome = hemiola(*words, "--fault", "die:worker=1,at=4", "--checkpoint", tmp_path)
    assert "The run went back to its last checkpoint once." in outcome.stdout
    assert "name a directory" in hemiola(*words).stderr


def test_compare_tells_incidents_and_losses(hemiola):
    words = ["compare", "iris", "--algorithms", "ssgd,asgd", *SIMULATED]
    outcome = hemiola(*words, "--fault", "die:worker=1,at=4", "-o", "on_loss=raise")
    assert outcome.exit_code == 2
    assert "lost workers" in outcome.stdout
    assert "asgd, seed 0: 1 of 3 workers died." in outcome.stdout
    assert "hemiola: ssgd: worker 1 died in round 4" in outcome.stderr


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dei:worker=1,at=2", "did you mean 'die'"),
        ("die:worker=1,att=2", "did you mean 'at'"),
        ("die:worker=9,at=2", "a fault names worker 9, but there are 3"),
    ],
)
@pytest.mark.parametrize("command", ["train", "compare"])
def test_a_wrong_fault_is_refused_before_anything_runs(hemiola, command, fault, message):
    which = SSGD if command == "train" else ["--algorithms", "ssgd"]
    outcome = hemiola(command, "no-such-data", *which, *SIMULATED, "--fault", fault)
    assert outcome.exit_code == 2
    assert message in outcome.stderr


def test_the_policies_are_explained_where_there_are_rounds(hemiola):
    shown = hemiola("algorithms", "fedavg").stdout
    assert "on_loss" in shown and "drop, raise, restart" in shown
    assert "How long a round waits, and for whom" in shown
    assert "How long a round waits" not in hemiola("algorithms", "asgd").stdout
    rows = {row["name"]: row for row in parsed(hemiola("algorithms", "bmuf", "--json"))["options"]}
    assert rows["timeout"] == {"name": "timeout", "type": "float > 0, none", "default": "none"}
    assert "timeout" not in {
        row["name"] for row in parsed(hemiola("algorithms", "asgd", "--json"))["options"]
    }

"""From the times of one run to a simulated cluster that takes the same times."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, model_averaging
from hemiola.calibration import Timing, calibrate, load_timing
from hemiola.cli.output import document, write_json
from hemiola.engines.simulator import Constant, Flat, Links, PerWorker, Simulator, Tiers
from hemiola.errors import DataError, OptionError
from hemiola.history import History
from hemiola.optim import SGD
from hemiola.training import fit

BATCH = MiniBatch(4)
TRUE = Simulator(PerWorker((1e-3, 2e-3, 4e-3), (0.2, 0.5, 0.8)), network=Links((1e-4, 1e-2, 5e-3)))


def written(result, path):
    write_json(path, document(result, {}))
    return path


def timing(step, message=(0.0,), log_sd=None, steps=None):
    n = len(step)
    return Timing(step, log_sd or [0.1] * n, steps or [1.0] * n, list(message))


@pytest.mark.parametrize(
    ("algorithm", "tolerance"),
    [(asgd(SGD(0.1), BATCH), 0.1), (model_averaging(8, SGD(0.1), batch=BATCH), 0.15)],
    ids=["one step a piece", "eight steps a piece"],
)
def test_a_simulated_run_gives_back_its_own_cluster(two_classes, tmp_path, algorithm, tolerance):
    result = fit(algorithm, "logistic", two_classes(), engine=TRUE, workers=3, rounds=1500)
    found = calibrate(Simulator(), load_timing(written(result, tmp_path / "run.json")))
    np.testing.assert_allclose(found.compute.mean, TRUE.compute.mean, rtol=0.08)
    np.testing.assert_allclose(found.compute.sigma, TRUE.compute.sigma, rtol=tolerance)
    np.testing.assert_allclose(found.network.latency, TRUE.network.latency, rtol=1e-6)


def test_the_calibrated_simulator_takes_as_long(two_classes, tmp_path):
    algorithm = model_averaging(4, SGD(0.1), batch=BATCH)
    one = fit(algorithm, "logistic", two_classes(), engine=TRUE, workers=3, rounds=400)
    engine = calibrate(Simulator(), load_timing(written(one, tmp_path / "run.json")))
    two = fit(algorithm, "logistic", two_classes(), engine=engine, workers=3, rounds=400)
    assert two.history.last.seconds == pytest.approx(one.history.last.seconds, rel=0.1)
    assert two.history.waiting_share() == pytest.approx(one.history.waiting_share(), abs=0.05)


@pytest.mark.parametrize("engine", ["threads", "processes", "serial"])
def test_real_runs_are_measured(two_classes, tmp_path, engine):
    algorithm = asgd(SGD(0.1), BATCH)
    result = fit(algorithm, "logistic", two_classes(), engine=engine, workers=2, rounds=50)
    found = load_timing(written(result, tmp_path / "run.json"))
    assert len(found.step_seconds) == 2
    assert all(0 < seconds < 0.1 for seconds in found.step_seconds)
    assert all(seconds >= 0 for seconds in found.message_seconds)
    assert not any(found.message_seconds) or engine != "serial"
    assert found.steps == [1.0, 1.0]


def test_the_first_piece_of_a_worker_does_not_count(two_classes):
    result = fit("asgd", "logistic", two_classes(), workers=2, rounds=5, engine=Simulator())
    assert [sums[0] for sums in result.history.times] == [4.0, 4.0]
    found = Timing.of(result.history, "simulator")
    assert found.step_seconds == pytest.approx([1e-3, 1e-3])
    assert found.log_sd == pytest.approx([0.0, 0.0], abs=1e-6)


def test_workers_that_were_not_measured_get_the_mean_of_the_others():
    found = calibrate(Simulator(), timing([1.0, None, 3.0], [0.0, None, 0.5]))
    assert found.compute.mean == (1.0, 2.0, 3.0)
    assert found.network == Links((0.0, 0.25, 0.5))


def test_the_spread_of_a_step_follows_from_that_of_a_piece():
    found = calibrate(Simulator(), timing([1.0], log_sd=[0.3], steps=[10.0]))
    rng = np.random.default_rng(0)
    sums = [found.compute.of(0).seconds(rng, 10) for _ in range(4000)]
    assert np.log(sums).std() == pytest.approx(0.3, rel=0.1)
    assert np.mean(sums) == pytest.approx(10.0, rel=0.03)


def test_a_network_of_ones_own_stays():
    given = Simulator(network=Tiers(), slow_share=0.5, slow_factor=3.0)
    found = calibrate(given, timing([1.0]), network=False)
    assert found.network == Tiers() and found.slow_factor == 3.0
    assert calibrate(given, timing([1.0])).network == Links((0.0,))


def test_too_short_a_run_says_nothing(two_classes, tmp_path):
    result = fit("ssgd", "logistic", two_classes(), workers=2, rounds=1, engine=Simulator())
    with pytest.raises(DataError, match="no worker did more than one piece"):
        load_timing(written(result, tmp_path / "run.json"))
    with pytest.raises(OptionError, match="no worker did more than one piece"):
        calibrate(Simulator(), Timing.of(History(), "serial"))


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"timing": 3}', '{"timing": {"steps": [1]}}', "\x00",
             '{"timing": {"step_seconds": ["a"], "log_sd": [1], "steps": [1], '
             '"message_seconds": [1]}}']
)  # fmt: skip
def test_files_without_measured_times_are_refused(tmp_path, text):
    file = tmp_path / "run.json"
    file.write_text(text)
    with pytest.raises(DataError, match="holds no measured times"):
        load_timing(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.json"):
        load_timing(tmp_path / "no.json")


def test_the_figures_are_plain_numbers(two_classes, tmp_path):
    result = fit("asgd", "logistic", two_classes(), workers=3, rounds=60, engine=TRUE)
    plain = json.loads(written(result, tmp_path / "run.json").read_text())
    assert set(plain["timing"]) == {"step_seconds", "log_sd", "steps", "message_seconds"}
    assert all(math.isfinite(value) for values in plain["timing"].values() for value in values)
    assert "times" not in plain["history"]
    assert History.from_dict(plain["history"]).records == result.history.records


def test_a_constant_time_is_found_exactly(two_classes, tmp_path):
    engine = Simulator(Constant(0.5), network=Flat(0.25))
    result = fit("asgd", "logistic", two_classes(), workers=2, rounds=8, engine=engine)
    found = calibrate(Simulator(), load_timing(written(result, tmp_path / "run.json")))
    assert found.compute.mean == pytest.approx((0.5, 0.5))
    assert found.compute.sigma == pytest.approx((0.0, 0.0), abs=1e-6)
    assert found.network.latency == pytest.approx((0.25, 0.25))

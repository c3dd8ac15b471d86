"""Which algorithm, when: the literature's rules of thumb in their corner cases."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from typer.testing import CliRunner

from hemiola.advise import advise, measured_step, sample_of, slowed
from hemiola.cli.advise import read_cluster
from hemiola.cli.app import app
from hemiola.dataset import make_dataset
from hemiola.engines.simulator import Factors, LogNormalSpeed, Simulator, Tiers
from hemiola.errors import DataError
from hemiola.training import make_objective

STEP = 1e-3
LAN = Simulator(latency=1e-5, bandwidth=1.25e9)


@pytest.fixture(scope="module")
def noisy():
    """Classes that overlap so much that a step on few samples says little."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 20))
    y = (X @ rng.normal(size=20) * 0.3 + rng.logistic(size=1500) > 0).astype(int)
    return make_dataset(X, y)


def ranking(data, workers, cluster, **options):
    options = {"step_seconds": STEP, "wall": math.inf, **options}
    return advise(data, workers, cluster, **options)[1]


def place(found, family):
    return next(i for i, advice in enumerate(found) if advice.candidate.family == family)


def seconds(found, label):
    return next(advice.seconds for advice in found if advice.candidate.label == label)


def test_a_free_network_and_equal_workers_synchronous(noisy):
    found = ranking(noisy, 8, Simulator())
    assert found[0].candidate.label == "ssgd"
    assert seconds(found, "one worker") > 3 * found[0].seconds


def test_a_network_of_a_megabit_messages_must_be_few(noisy):
    found = ranking(noisy, 8, Simulator(latency=1e-3, bandwidth=1.25e5))
    assert found[0].candidate.family in ("local", "alone")
    assert place(found, "local") < place(found, "synchronous")


def test_half_the_workers_ten_times_slower_nobody_waits_for_them(noisy):
    found = ranking(noisy, 8, Simulator(latency=1e-5, slow_share=0.5, slow_factor=10.0))
    assert found[0].candidate.family in ("hybrid", "asynchronous", "delay-aware")
    assert seconds(found, "ssgd") > 2 * found[0].seconds


def test_two_speeds_hybrid_is_as_good_as_any(noisy):
    found = ranking(noisy, 16, Simulator(latency=1e-5, slow_share=0.25, slow_factor=5.0))
    assert found[0].candidate.label == "hybrid"


def test_one_worker_is_one_worker(noisy):
    found = ranking(noisy, 1, LAN)
    assert [advice.candidate.label for advice in found] == ["one worker"]
    assert found[0].bytes == 0


def test_a_hundred_million_parameters_few_messages(noisy):
    found = ranking(noisy, 8, Simulator(latency=1e-4, bandwidth=1.25e9), parameters=10**8,
                    step_seconds=0.3)  # fmt: skip
    assert found[0].candidate.family in ("local", "alone")
    assert place(found, "local") < place(found, "asynchronous")
    assert found[0].bytes > 1e9


def test_tiny_data_need_no_cluster():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(40, 3))
    tiny = make_dataset(X, (X[:, 0] > 0).astype(int))
    found = ranking(tiny, 8, Simulator(latency=1e-3), step_seconds=1e-5)
    assert found[0].candidate.label == "one worker"


def test_every_speed_different_asynchronous_or_hybrid(noisy):
    found = ranking(noisy, 16, Simulator(latency=1e-5, speed=LogNormalSpeed(1.0)))
    assert found[0].candidate.family in ("hybrid", "asynchronous", "delay-aware")
    assert place(found, "synchronous") > place(found, "asynchronous")


def test_much_staleness_rules_that_know_of_delays_beat_plain_asynchronous(noisy):
    """Where curvatures differ, so that the largest stable rate is small for most coordinates."""
    uneven = make_dataset(noisy.X * np.logspace(-1, 1, 20), noisy.y)
    found = ranking(uneven, 64, Simulator(latency=1e-5, speed=Factors((1.0, 1.5, 2.5, 6.0))))
    aware = min(a.seconds for a in found if a.candidate.family == "delay-aware")
    assert aware <= seconds(found, "asgd")


def test_sites_far_apart_groups_or_few_messages(noisy):
    sites = Simulator(network=Tiers(rack=2, site=2, wide_latency=0.05))
    found = ranking(noisy, 8, sites)
    assert found[0].candidate.family != "synchronous"
    assert seconds(found, "ssgd") > 5 * found[0].seconds


def test_the_reason_and_the_order_are_given(noisy):
    situation, found = advise(noisy, 2, LAN, step_seconds=STEP)
    assert situation.workers == 2 and situation.parameters == 21
    assert all(advice.reason.endswith(".") for advice in found)
    finite = [a.seconds for a in found if math.isfinite(a.seconds)]
    assert all(b >= 0.66 * a for a, b in pairwise(finite))


def test_what_is_measured_and_sampled(noisy):
    assert 1e-7 < measured_step(make_objective("auto", noisy), noisy) < 1
    assert len(sample_of(noisy, 4)) == 1500
    slow = slowed(Simulator(network=Tiers(wide_bandwidth=8.0), server_bandwidth=4.0), 0.5)
    assert (slow.network.wide_bandwidth, slow.server_bandwidth) == (4.0, 2.0)


def test_a_cluster_is_read_from_toml(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('workers = 6\nslow_share = 0.5\n[network]\ntype = "tiers"\nrack = 2\n')
    assert read_cluster(file) == {
        "workers": 6, "slow_share": 0.5, "network": "tiers", "network.rack": 2,
    }  # fmt: skip
    file.write_text("workers: 6")
    with pytest.raises(DataError, match="no TOML file"):
        read_cluster(file)
    with pytest.raises(DataError, match="cannot read"):
        read_cluster(tmp_path / "missing.toml")


def test_the_command_line_advises(tmp_path):
    cluster, out = tmp_path / "c.toml", tmp_path / "advice.json"
    cluster.write_text("workers = 2\nlatency = 0.001\nbandwidth = 125000.0\n")
    words = ["advise", "breast_cancer", "--cluster", str(cluster), "--json", str(out)]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 0, outcome.output
    assert "hemiola train breast_cancer --algorithm" in outcome.output
    advice = json.loads(out.read_text())["advice"]
    assert len(advice) == 9 and advice[0]["command"].startswith("hemiola train")
    cluster.write_text("workers = 2\nlatncy = 0.001\n")
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 2 and "did you mean 'latency'" in outcome.stderr

"""Engine ``spark`` in mode barrier: one job for the run, and what serial computes."""

from __future__ import annotations

import numpy as np
import pytest
from spark_problems import SYNCHRONOUS, algorithm, bits, data, mortal, trained

pytest.importorskip("torch")

from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback
from hemiola.communicate import Synchronous
from hemiola.engines.spark import Spark
from hemiola.errors import DataError, OptionError, UnsupportedError, WorkersLostError
from hemiola.objectives import logistic


def barrier(partitions=None, **options):
    return Spark(mode="barrier", partitions=partitions, **options)


def test_every_synchronous_algorithm_computes_what_serial_computes(session):
    for i, name in enumerate(SYNCHRONOUS):
        rows = data(csr=i % 2 == 1)
        found = trained(name, barrier((1, 2, 4)[i % 3]), on=rows).weights
        wanted = trained(name, "serial", on=rows).weights
        assert np.abs(found - wanted).max() <= 1e-12 * np.abs(wanted).max(), name


@pytest.mark.parametrize("partitions", [1, 2, 4])
def test_in_rank_order_to_the_bits(session, partitions):
    for name in ("ssgd", "bmuf", "eamsgd"):
        engine = barrier(partitions, reduce="ordered")
        assert bits(name, engine) == bits(name, "serial"), name


def test_with_workers_that_no_number_of_partitions_divides(session):
    options = {"workers": 7, "rounds": 4}
    found = bits("fedavg", barrier(3, reduce="ordered"), **options)
    assert found == bits("fedavg", "serial", **options)


def test_a_run_is_one_job_whose_figures_are_those_of_serial(session):
    java = session._jsc.sc()
    before = java.dagScheduler().numTotalJobs()
    found, wanted = (trained("easgd", engine, rounds=8) for engine in (barrier(2), "serial"))
    assert java.dagScheduler().numTotalJobs() == before + 1
    mine, theirs = found.history.records, wanted.history.records
    assert len(mine) == len(theirs) == 9
    for one, other in zip(mine, theirs, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-12)
        assert (one.messages, one.bytes_up, one.bytes_down, one.local_steps) == (
            other.messages, other.bytes_up, other.bytes_down, other.local_steps,
        )  # fmt: skip


def test_a_checkpoint_of_it_is_continued_by_serial_and_the_other_way_round(session, tmp_path):
    whole = bits("eamsgd", "serial", rounds=6)
    there = barrier(2, reduce="ordered")
    for number, (first, then) in enumerate(((there, "serial"), ("serial", there))):
        place = tmp_path / str(number)
        trained("eamsgd", first, rounds=3, checkpoint=place)
        assert bits("eamsgd", then, rounds=6, checkpoint=place, resume=True) == whole


# What is lost


def test_a_task_that_is_lost_ends_the_run_at_once(session, tmp_path):
    with pytest.raises(WorkersLostError, match="Spark gave up") as caught:
        objective = mortal(tmp_path, 1)
        trained(algorithm("ssgd", lr=0.1), barrier(2), objective=objective, rounds=7)
    assert caught.value.result.history.last.updates >= 0


def test_or_takes_it_back_to_its_checkpoint(session, tmp_path):
    graves = tmp_path / "graves"
    graves.mkdir()
    chosen = algorithm("eamsgd", lr=0.1, on_loss="restart", restarts=3)
    found = trained(
        chosen, barrier(2, reduce="ordered"), objective=mortal(graves, 2), rounds=7,
        checkpoint=tmp_path / "kept",
    )  # fmt: skip
    assert len(list(graves.iterdir())) == 2
    assert found.history.restarts == 2
    unharmed = algorithm("eamsgd", lr=0.1)
    assert found.model.sha256 == bits(unharmed, "serial", objective=logistic(0.01), rounds=7)


def test_an_asynchronous_worker_that_is_lost_comes_back(session, tmp_path):
    counts = []

    class UntilAllAreBack(Callback):
        def on_update(self, event):
            counts.append((event.ledger.left, event.ledger.joined))
            worked = event.workers == (2,) and event.ledger.joined
            return "worker 2 works again" if worked else None

    chosen = algorithm("asgd", lr=0.1)
    found = trained(
        chosen, "spark", objective=mortal(tmp_path, 1), workers=3, rounds=10**6,
        callbacks=[UntilAllAreBack()], eval_every=10**6,
    )  # fmt: skip
    assert found.stopped == "worker 2 works again"
    assert counts[-1] == (1, 1)
    assert (1, 0) in counts, "the others went on without it"
    assert found.history.last.loss < found.history.records[0].loss


# What is asynchronous


@pytest.mark.parametrize("name", ["asgd", "ssp", "easgd-async", "downpour", "hybrid"])
def test_asynchronous_algorithms_learn(session, name):
    found = trained(algorithm(name, lr=0.05), "spark", workers=2, rounds=20)
    assert found.history.last.loss < 0.9 * found.history.records[0].loss
    assert found.history.last.updates >= 20


# What it refuses


def test_more_tasks_than_can_run_at_once_are_refused_at_once(session):
    for name, engine in (("ssgd", barrier(5)), ("asgd", "spark")):
        with pytest.raises(UnsupportedError, match=r"can run 4 tasks at once.*needs 5"):
            trained(name, engine, workers=5)


def test_so_are_more_partitions_than_workers(session):
    with pytest.raises(OptionError, match="3 partitions for 2 workers"):
        trained("ssgd", barrier(3), workers=2)
    with pytest.raises(OptionError, match="a task for every worker, here 2"):
        trained("asgd", barrier(1), workers=2)


def test_an_error_in_a_task_is_raised_as_it_is(session, tmp_path):
    from spark_problems import Failing

    objective = Failing(l2=0.01, graves=str(tmp_path))
    with pytest.raises(DataError, match="these samples are no good"):
        trained(algorithm("ssgd", lr=0.1), barrier(2), objective=objective, rounds=9)


def test_the_mode_is_chosen_by_the_algorithm():
    for name in ("bmuf", "asgd", "hybrid"):
        rounds = isinstance(build(name).communicate, Synchronous)
        assert Spark().chosen(build(name)) == ("rounds" if rounds else "barrier")
        assert barrier().chosen(build(name)) == "barrier"

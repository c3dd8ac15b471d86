"""Engine ``spark``: the bits of serial, whatever is lost on the way, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest

pytest.importorskip("pyspark")

from spark_problems import OTHERS, SYNCHRONOUS, Failing, algorithm, bits, data, mortal, trained

from hemiola.algorithms.registry import build
from hemiola.communicate import SharedMemory
from hemiola.data import BlockStream
from hemiola.engines._spark_blocks import block_of
from hemiola.engines.spark import Spark
from hemiola.errors import DataError, OptionError, UnsupportedError, WorkersLostError
from hemiola.faults import Slow
from hemiola.job import Job
from hemiola.objectives import logistic
from hemiola.partition import Shards, ShuffleSplit

PLACES = [str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")]

# The bits of serial


@pytest.mark.parametrize("partitions", [1, 2, 4])
@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_every_synchronous_algorithm_has_the_bits_of_serial(session, name, partitions):
    rows = data(csr=partitions == 2)
    assert bits(name, Spark(partitions=partitions), on=rows) == bits(name, "serial", on=rows)


def test_also_with_workers_that_no_number_of_partitions_divides(session):
    for workers in (1, 3, 7):
        options = {"workers": workers, "rounds": 2}
        assert bits("bmuf", "spark", **options) == bits("bmuf", "serial", **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_also_where_products_are_those_of_blas(session, dtype):
    rows = data(classes=3, dtype=dtype, n=1001)
    for name in ("bmuf", "admm"):
        options = {"objective": "softmax", "on": rows, "rounds": 2}
        assert bits(name, Spark(partitions=3), **options) == bits(name, "serial", **options)


@pytest.mark.parametrize(
    "partition", ["random-sampling", "dirichlet", "whole", "shuffle-split"], ids=str
)
def test_also_however_the_rows_are_dealt(session, partition):
    options = {"partition": partition}
    if partition == "shuffle-split":
        options["partition.reshuffle_every"] = 1
    chosen = algorithm("model-averaging", **options)
    assert bits(chosen, "spark", rounds=5) == bits(chosen, "serial", rounds=5)


def test_what_is_counted_is_what_serial_counts(session):
    found = []
    for engine in ("spark", "serial"):
        last = trained("fedavg", engine).history.last
        found.append((last.local_steps, last.messages, last.bytes_up, last.bytes_down))
    assert found[0] == found[1]


def test_a_checkpoint_of_it_is_continued_by_serial_and_the_other_way_round(session, tmp_path):
    whole = bits("easgd", "serial", rounds=6)
    for first, then in (("spark", "serial"), ("serial", "spark")):
        place = tmp_path / first
        trained("easgd", first, rounds=3, checkpoint=place)
        assert bits("easgd", then, rounds=6, checkpoint=place, resume=True) == whole


# One job a round


def test_a_round_is_one_job_of_one_stage_and_the_lineage_does_not_grow(session):
    java = session._jsc.sc()
    before = java.dagScheduler().numTotalJobs()
    trained("easgd", "spark", rounds=8)
    jobs = range(before, java.dagScheduler().numTotalJobs())
    assert len(jobs) == 8
    java.listenerBus().waitUntilEmpty()
    assert [len(session.statusTracker().getJobInfo(number).stageIds) for number in jobs] == [1] * 8


def test_a_partition_has_the_rows_of_its_workers_and_no_others():
    rows, shuffled = data(csr=True), ShuffleSplit()
    source = Shards(rows, shuffled, 4, 0)
    job = Job(algorithm("bmuf", lr=0.1), logistic(0.01), source, 4, 0, np.zeros(6))
    own = block_of(job, [1, 2]).job.source
    assert len(own.data) == len(source.shard(1)) + len(source.shard(2)) < len(rows)
    batch = job.algorithm.local.batch
    for worker, t in ((1, 0), (2, 17)):
        mine, all_ = own.batch(worker, t, batch), source.batch(worker, t, batch)
        assert (mine.data.X[mine.rows] != all_.data.X[all_.rows]).nnz == 0
        assert mine.address == all_.address
        assert own.samples(worker) == source.samples(worker)
    anew = replace(job, source=Shards(rows, ShuffleSplit(reshuffle_every=1), 4, 0))
    assert len(block_of(anew, [1]).job.source.data) == len(rows)


# What is lost


@pytest.mark.parametrize("name", ["ssgd", "eamsgd"])
def test_a_process_that_is_lost_is_replaced_and_its_work_repeated_to_the_same_bits(
    session, tmp_path, name
):
    options = {"rounds": 7, "workers": 4}
    found = bits(algorithm(name, lr=0.1), "spark", objective=mortal(tmp_path, 2), **options)
    assert len(list(tmp_path.iterdir())) == 2
    assert found == bits(algorithm(name, lr=0.1), "serial", objective=logistic(0.01), **options)


def test_what_is_lost_again_and_again_ends_the_run(session, tmp_path):
    with pytest.raises(WorkersLostError, match=r"Spark gave up a round.*maxFailures") as caught:
        trained(algorithm("ssgd", lr=0.1), "spark", objective=mortal(tmp_path, 99), rounds=7)
    assert len(list(tmp_path.iterdir())) == 4
    assert caught.value.result.history.last.updates >= 0
    assert bits("ssgd", "spark") == bits("ssgd", "serial"), "the session is as good as before"


def test_or_takes_it_back_to_its_checkpoint(session, tmp_path):
    graves = tmp_path / "graves"
    graves.mkdir()
    chosen = algorithm("eamsgd", lr=0.1, on_loss="restart")
    options = {"rounds": 7, "workers": 4}
    found = trained(
        chosen, "spark", objective=mortal(graves, 4), checkpoint=tmp_path / "kept", **options
    )
    assert len(list(graves.iterdir())) == 4
    unharmed = algorithm("eamsgd", lr=0.1)
    assert found.model.sha256 == bits(unharmed, "serial", objective=logistic(0.01), **options)


def test_an_error_in_a_worker_is_raised_as_it_is_and_not_tried_again(session, tmp_path):
    objective = Failing(l2=0.01, graves=str(tmp_path))
    with pytest.raises(DataError, match="these samples are no good") as caught:
        trained(algorithm("ssgd", lr=0.1), "spark", objective=objective, rounds=9)
    assert "worker 0" in caught.value.__notes__[0]
    assert len(list(tmp_path.iterdir())) == 4, "once for each worker"


# What it refuses


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_synchronous_is_refused_in_rounds_by_name(name):
    with pytest.raises(UnsupportedError, match="engine spark"):
        trained(name, Spark(mode="rounds"))


def test_what_shares_memory_is_refused_by_name():
    for name in OTHERS:
        if isinstance(build(name).communicate, SharedMemory):
            with pytest.raises(UnsupportedError, match=r"engine spark.*use engine threads"):
                trained(name, "spark")


def test_faults_are_refused():
    with pytest.raises(UnsupportedError, match="spark injects no faults"):
        trained("ssgd", "spark", faults=[Slow(worker=1, factor=2.0)])


def test_what_arrives_here_cannot_be_sent(session):
    blocks = ((np.eye(4), [0, 1, 0, 1]) for _ in range(1000))
    arriving = BlockStream(blocks, n_features=4, classes=[0, 1], held_out=8)
    with pytest.raises(OptionError, match="arrives in one process; use engine serial"):
        trained(algorithm("ssgd", lr=0.1, batch_size=2), "spark", on=arriving)


def test_more_partitions_than_workers_are_refused(session):
    with pytest.raises(OptionError, match="5 partitions for 4 workers"):
        trained("ssgd", Spark(partitions=5))


def test_another_master_than_the_active_one_is_refused(session):
    for engine in (Spark(master="local[7]"), Spark(conf=("spark.ui.enabled=false",))):
        with pytest.raises(OptionError, match=r"active at local\[4,4\]"):
            trained("ssgd", engine)


def test_settings_that_are_none_are_refused():
    with pytest.raises(OptionError, match="'memory=4g' is no setting of Spark"):
        trained("ssgd", Spark(conf=("memory=4g",)))


# Sessions


def test_an_active_session_is_left_as_it_was(session):
    trained("ssgd", "spark")
    assert session.parallelize(range(5), 2).map(lambda x: x * x).sum() == 30
    assert session.getLocalProperty("spark.jobGroup.id") is None


def alone(*words, cwd):
    """The command line in a process of its own, which finds no Java but the extra's."""
    environment = {k: v for k, v in os.environ.items() if k != "JAVA_HOME"}
    tools = cwd / "bin"
    tools.mkdir()
    for place in ("/usr/bin", "/bin"):
        for tool in Path(place).iterdir():
            if tool.name != "java" and not (tools / tool.name).exists():
                (tools / tool.name).symlink_to(tool)
    (cwd / "tmp").mkdir()
    environment |= {
        "PATH": str(tools), "TMPDIR": str(cwd / "tmp"),
        "PYTHONPATH": os.pathsep.join(filter(None, PLACES)),
    }  # fmt: skip
    command = [sys.executable, "-m", "hemiola", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, cwd=cwd, preexec_fn=_heeding_ctrl_c, **pipes)


def _heeding_ctrl_c():
    """A shell has its jobs in the background ignore it, and they would pass that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


TRAIN = ("train", "breast_cancer", "--algorithm", "bmuf", "--engine", "spark", "-e")


def living(place):
    """Processes that know of this directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(place) in (process / "environ").read_text(errors="replace"):
                found.append((process.name, (process / "cmdline").read_text()[:200]))
    return found


def gone(place):
    """Whether all such processes end soon."""
    end = monotonic() + 60
    while living(place) and monotonic() < end:
        sleep(0.1)
    return not living(place)


def test_the_command_line_needs_no_java_says_nothing_of_its_own_and_leaves_nothing(tmp_path):
    process = alone(*TRAIN, "master=local[2]", "--rounds", "3", "--json", "run.json", cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Spark" not in err and "WARN" not in err and "JVM" not in out + err
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["engine"]["name"] == "spark"
    assert gone(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_nor_does_it_after_an_interruption(tmp_path):
    process = alone(*TRAIN, "master=local[2]", "--rounds", "1000000", cwd=tmp_path)
    log = []
    end = monotonic() + 200
    while not any("_spark_daemon" in command for _, command in log) and monotonic() < end:
        assert process.poll() is None, process.communicate()
        log = living(tmp_path)
        sleep(0.1)
    for _ in range(2):  # the first one waits for the round to end
        process.send_signal(signal.SIGINT)
        sleep(0.2)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert gone(tmp_path)
    assert list((tmp_path / "tmp").iterdir()) == []

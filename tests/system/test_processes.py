"""Engine ``processes``: the same bits as serial, and what happens when processes die."""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
from collections import deque
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from scipy import sparse

from hemiola.algorithm import weight_of
from hemiola.algorithms.registry import RECIPES, build
from hemiola.communicate import Asynchronous, Synchronous
from hemiola.dataset import Batch, make_dataset
from hemiola.engines.processes import Processes
from hemiola.engines.serial import Serial
from hemiola.errors import DataError, UnsupportedError, WorkersLostError
from hemiola.job import Job
from hemiola.learning_rate import with_learning_rate
from hemiola.objectives import LinearObjective, logistic
from hemiola.optim import Adam
from hemiola.partition import Shards
from hemiola.penalty import with_penalty
from hemiola.types import freeze

sys.path.append(str(Path(__file__).parents[2]))  # workers import this module

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")

SMALL = {
    "model-averaging": {"steps": 3},
    "one-shot-averaging": {"steps": 12},
    "fedavg": {"participation": 0.6, "epochs": 2},
    "ditto": {"participation": 0.6},
    "bmuf": {"steps": 3},
    "bmuf-adam": {"steps": 3},
    "slowmo": {"steps": 3},
    "post-local-sgd": {"steps": 3, "switch": 2},
    "diloco": {"steps": 3},
    "streaming-diloco": {"steps": 9, "fragments": 3, "delay": 1},
    "easgd": {"period": 3},
    "eamsgd": {"period": 3},
}
SYNCHRONOUS = [n for n in RECIPES if isinstance(build(n).communicate, Synchronous)]
ASYNCHRONOUS = [n for n in RECIPES if n not in SYNCHRONOUS]


def algorithm(name, **options):
    return build(name, {**SMALL.get(name, {}), **options})


def data(csr=False, n=600, p=4):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.8)
    y = (X @ rng.normal(size=p) + rng.normal(size=n) > 0).astype(int)
    return make_dataset(sparse.csr_array(X) if csr else X, y)


def job(chosen, workers, *, samples=None, objective=None, d=None):
    samples = data() if samples is None else samples
    w0 = np.random.default_rng(5).normal(size=d or samples.n_features + 1)
    source = Shards(samples, chosen.partition, workers, 0)
    chosen = with_penalty(chosen, objective or logistic(0.01), samples)
    chosen = with_learning_rate(chosen, objective or logistic(0.01), samples, source, workers)
    return Job(chosen, objective or logistic(0.01), source, workers, 0, w0)


def weights(engine, of, updates, resume=None):
    """The model after every update, the ledger and the last snapshot."""
    models = []
    with closing(engine.run(of, resume)) as events:
        for event in islice(events, updates):
            models.append(of.algorithm.aggregate.model(event.server).copy())
        return np.array(models), event.ledger, event.snapshot()


def last(events, count):
    """The last one of so many."""
    return deque(islice(events, count), maxlen=1)[0]


def workers():
    """The living worker processes of this process, by rank."""
    found = {p.name: p.pid for p in multiprocessing.active_children()}
    return [pid for name, pid in sorted(found.items()) if name.startswith("hemiola-worker-")]


def kill(rank, number=signal.SIGKILL):
    found = {p.name: p.pid for p in multiprocessing.active_children()}
    os.kill(found[f"hemiola-worker-{rank}"], number)


def shared_memory():
    return {name for name in os.listdir("/dev/shm") if name.startswith(("hemiola", "psm_"))}


def eventually(condition, seconds=30):
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end, "waited in vain"
        sleep(0.02)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    files, memory = len(os.listdir("/proc/self/fd")), shared_memory()
    warm = multiprocessing.forkserver._forkserver._forkserver_pid is not None
    yield
    gc.collect()  # mapped memory that a traceback holds
    assert not workers()
    assert shared_memory() <= memory
    if warm:
        assert len(os.listdir("/proc/self/fd")) <= files


# --- the same bits ---------------------------------------------------------------------------


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_synchronous_runs_are_serial_ones_to_the_bit(name, csr):
    for workers in (1, 2, 4):
        of = job(algorithm(name), workers, samples=data(csr))
        updates = of.algorithm.communicate.rounds or 6
        ours, ledger, snapshot = weights(Processes(), of, updates)
        theirs, reference, expected = weights(Serial(), of, updates)
        np.testing.assert_array_equal(ours, theirs)
        assert (ledger.messages, ledger.bytes_up, ledger.bytes_down, ledger.local_steps) == (
            reference.messages, reference.bytes_up, reference.bytes_down, reference.local_steps
        )  # fmt: skip
        np.testing.assert_equal(snapshot["workers"], expected["workers"])


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_one_asynchronous_worker_is_a_serial_one_to_the_bit(name):
    of = job(algorithm(name), 1)
    ours, theirs = weights(Processes(), of, 20), weights(Serial(), of, 20)
    np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize("carry", ["keep", "average"])
def test_messages_change_their_size(carry):
    """The first model comes down alone, later ones with the averaged moments of Adam."""
    of = job(algorithm("bmuf", optimizer=Adam(0.05), carry=carry), 2)
    ours, theirs = weights(Processes(), of, 8), weights(Serial(), of, 8)
    np.testing.assert_array_equal(ours[0], theirs[0])


@dataclass(frozen=True)
class Growing:
    """up = g, and arrays beside it whose names, number, type and size differ from step to step."""

    def init(self, w0):
        return {"t": 0}

    def work(self, state, down, task):
        t = state["t"] = state["t"] + 1
        extra = {f"x{i}": np.full((i, t * 1000 % 7), t, np.float32) for i in range(t % 4)}
        total = sum(x.sum() for x in extra.values())
        return state, freeze(g=0.1 * down["w"] + total, weight=weight_of(1), **extra)


def test_any_message_passes_at_any_step():
    of = job(replace(algorithm("asgd", lr=0.1), local=Growing()), 1)
    ours, theirs = weights(Processes(), of, 40), weights(Serial(), of, 40)
    np.testing.assert_array_equal(ours[0], theirs[0])


@dataclass(frozen=True)
class Pull:
    """Gradient of |w|^2 / 2, on no data."""

    def init(self, w0):
        return {"t": 0}

    def work(self, state, down, task):
        state["t"] += 1
        return state, freeze(g=down["w"].copy(), weight=weight_of(1))


def test_big_messages():
    of = job(replace(algorithm("asgd", lr=0.1), local=Pull()), 2, d=1_000_000)
    with closing(Processes().run(of)) as events:
        event = last(events, 20)
        ratio = event.server["w"] / of.w0
    assert event.ledger.bytes_up == 20 * (8_000_000 + 8)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)
    assert 0 < ratio[0] < 1


@pytest.mark.parametrize("name", ["bmuf", "easgd", "eamsgd"])
def test_resuming_synchronous_runs(name):
    of = job(algorithm(name), 3)
    whole, _, _ = weights(Serial(), of, 8)
    first, _, snapshot = weights(Processes(), of, 3)
    rest, _, _ = weights(Processes(), of, 5, snapshot)
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)


def test_resuming_asynchronous_runs():
    one = job(algorithm("asgd"), 1)
    whole, _, _ = weights(Serial(), one, 9)
    first, _, snapshot = weights(Processes(), one, 4)
    rest, _, _ = weights(Processes(), one, 5, snapshot)
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
    four = job(algorithm("asgd"), 4)
    _, ledger, snapshot = weights(Processes(), four, 10)
    assert len(snapshot["pending"]) == 4
    _, ledger, _ = weights(Processes(), four, 10, snapshot)
    assert sum(ledger.updates) == 20


# --- data ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snoop(LinearObjective):
    """A gradient of zeros and ones: what is known of the arrays in the worker."""

    def grad(self, w, batch):
        X = batch.data.X
        arrays = [X.data, X.indices, X.indptr] if sparse.issparse(X) else [X]
        g = np.zeros_like(w)
        g[0] = any(array.flags.writeable for array in [*arrays, batch.data.y])
        g[1] = any(array.flags.owndata for array in [*arrays, batch.data.y])
        maps = Path("/proc/self/maps").read_text().splitlines()
        spans = [line.split() for line in maps if "hemiola-parcel" in line]
        address = arrays[0].__array_interface__["data"][0]
        ends = [[int(x, 16) for x in span[0].split("-")] for span in spans]
        g[2] = not any(a <= address < b for a, b in ends)
        g[3] = any(span[1] != "r--s" for span in spans)
        return g


@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_data_are_shared_and_read_only(csr):
    of = job(algorithm("ssgd", lr=1.0), 2, samples=data(csr, n=3000), objective=Snoop())
    models, _, _ = weights(Processes(), of, 1)
    np.testing.assert_array_equal(models[0], of.w0)


def test_memory_has_no_names():
    with closing(Processes().run(job(algorithm("asgd"), 2))) as events:
        next(events)
        for pid in ("self", *workers()):
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert "memfd:hemiola" in maps
            assert "/dev/shm" not in maps


# --- deaths ----------------------------------------------------------------------------------


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_asgd_goes_on_when_workers_are_killed(deaths):
    of = job(algorithm("asgd", lr=0.5), 4)
    whole = Batch(of.source.data)
    target = min(of.objective.value(w, whole) for w in weights(Serial(), of, 400)[0]) + 0.02
    with closing(Processes().run(of)) as events:
        for event in events:
            if event.step == 20:
                for pid in workers()[:deaths]:
                    os.kill(pid, signal.SIGKILL)
            gone = event.ledger.left == deaths
            if gone and of.objective.value(event.server["w"], whole) <= target:
                break
            assert event.step < 50_000
        assert event.ledger.left == deaths
        before = list(event.ledger.updates)
        event = last(events, 40)
        moved = [after > b for after, b in zip(event.ledger.updates, before, strict=True)]
        assert moved == [False] * deaths + [True] * (4 - deaths)


def test_synchronous_rounds_go_on_with_the_rest():
    of = job(algorithm("bmuf"), 4)
    with closing(Processes().run(of)) as events:
        for event in islice(events, 30):
            if event.step == 10:
                os.kill(workers()[2], signal.SIGKILL)
    assert event.ledger.left == 1
    assert list(event.workers) == [0, 1, 3]
    assert np.isfinite(event.server["w"]).all()


def test_members_that_die_while_they_sit_out_a_round():
    of = job(algorithm("fedavg", participation=0.5), 4)
    with closing(Processes().run(of)) as events:
        event = next(events)
        os.kill(workers()[next(k for k in range(4) if k not in event.workers)], signal.SIGKILL)
        for event in islice(events, 30):
            assert len(event.workers) in (1, 2)
    assert event.ledger.left == 1


@pytest.mark.parametrize("name", ["asgd", "ssgd"])
def test_all_workers_are_killed(name):
    with closing(Processes().run(job(algorithm(name), 3))) as events:
        next(events)
        for pid in workers():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkersLostError, match="all workers"):
            for _ in events:
                pass


def test_asynchronous_runs_go_on_beside_a_stopped_worker():
    of = job(algorithm("asgd"), 3)
    with closing(Processes(timeout=None).run(of)) as events:
        next(events)
        os.kill(workers()[1], signal.SIGSTOP)
        event = last(events, 300)
    first, stopped, third = event.ledger.updates[:3]
    assert event.ledger.left == 0
    assert stopped < 50  # what it had on its way
    assert first + stopped + third == 301


def test_a_worker_that_hangs_is_killed_after_the_timeout():
    of = job(algorithm("ssgd"), 3)
    with closing(Processes(timeout=0.5).run(of)) as events:
        next(events)
        os.kill(workers()[1], signal.SIGSTOP)
        event = last(events, 5)
    assert event.ledger.left == 1
    assert list(event.workers) == [0, 2]


@dataclass(frozen=True)
class Slow(LinearObjective):
    """Computes for much longer than the timeout."""

    def grad(self, w, batch):
        end = monotonic() + 2.0
        while monotonic() < end:
            pass
        return np.ones_like(w)


def test_long_work_is_not_hanging():
    of = job(algorithm("ssgd"), 1, objective=Slow())
    with closing(Processes(timeout=0.8).run(of)) as events:
        assert next(events).ledger.left == 0


@pytest.mark.parametrize("name", ["asgd", "ssgd"])
def test_dead_workers_rejoin(name):
    of = job(algorithm(name), 3)
    with closing(Processes(rejoin=True).run(of)) as events:
        next(events)
        first = workers()
        os.kill(first[0], signal.SIGKILL)
        for event in events:
            if event.ledger.joined:
                break
            assert event.step < 1_000_000
        before = event.ledger.updates[0]
        event = last(events, 60)
        assert len(set(workers()) - set(first)) == 1
    assert event.ledger.left == event.ledger.joined == 1
    assert event.ledger.updates[0] > before


@pytest.mark.parametrize("name", ["asgd", "ssp", "easgd"])
def test_a_resumed_run_has_all_its_workers(name):
    """Also those that died while, or just before, the snapshot was taken."""
    far = {"s": 50} if name == "ssp" else {}  # else all soon wait for the one that is stopped
    of = job(algorithm(name, **far), 4)
    with closing(Processes().run(of)) as events:
        next(events)
        kill(0)
        next(e for e in events if e.ledger.left)
        if isinstance(of.algorithm.communicate, Asynchronous):
            kill(1, signal.SIGSTOP)  # so that it dies at work
        event = last(events, 5)
        kill(1)
        kill(2)
        snapshot = event.snapshot()
    assert snapshot["away"] == [0]
    assert snapshot["workers"][1] is None is snapshot["workers"][2]
    _, ledger, _ = weights(Processes(), of, 80, snapshot)
    assert (ledger.left, ledger.joined) == (3, 3)
    grown = np.array(ledger.updates) - snapshot["ledger"]["updates"]
    assert (grown > 0).all()


# --- errors ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken(LinearObjective):
    remedy: bool = False

    def grad(self, w, batch):
        raise DataError("mend it so.") if self.remedy else KeyError("no such thing")


def test_an_exception_in_a_worker_reaches_the_caller():
    of = job(algorithm("ssgd"), 2, objective=Broken())
    with pytest.raises(RuntimeError, match=r"worker \d failed: KeyError") as caught:
        weights(Processes(), of, 1)
    assert "no such thing" in str(caught.value)
    assert "in grad" in str(caught.value)
    of = job(algorithm("asgd"), 2, objective=Broken(remedy=True))
    with pytest.raises(DataError, match="mend it so") as remedied:
        weights(Processes(), of, 1)
    assert "in grad" in remedied.value.__notes__[0]


def test_what_cannot_be_sent_is_refused():
    @dataclass(frozen=True)
    class Local(LinearObjective):
        pass

    with pytest.raises(UnsupportedError, match="top level"):
        weights(Processes(), job(algorithm("ssgd"), 2, objective=Local()), 1)


# --- nothing is left behind ------------------------------------------------------------------

SCRIPT = """
import multiprocessing, multiprocessing.forkserver
import hemiola
from hemiola.callbacks import Callback
class Tell(Callback):
    def on_update(self, event):
        if event.step == 8:
            children = multiprocessing.active_children()
            server = multiprocessing.forkserver._forkserver._forkserver_pid
            print(server, *(child.pid for child in children), flush=True)
def main():
    data = hemiola.load("breast_cancer")
    hemiola.fit({name!r}, "logistic", data, engine="processes", workers=2, rounds=10**7,
                eval_every=10**4, callbacks=[Tell()])
"""
GUARDED = SCRIPT + "if __name__ == '__main__':\n    main()\n"


@pytest.fixture
def script(tmp_path):
    """(name) -> a running script that trains for ever, and the processes that it started."""
    started = []

    def start(name):
        path = tmp_path / "train.py"
        path.write_text(GUARDED.format(name=name))
        process = subprocess.Popen(
            [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 3, process.stderr.read()
        return process, pids

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("name", ["asgd", "bmuf"])
def test_ctrl_c(script, name):
    process, pids = script(name)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "TrainingInterrupted" in errors
    assert errors.count("Traceback") == 1  # the workers say nothing
    eventually(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_is_killed(script, number):
    process, pids = script("asgd")
    process.send_signal(number)
    process.wait(timeout=60)
    eventually(lambda: not any(map(alive, pids)))


def test_the_fork_server_is_killed(script):
    process, pids = script("asgd")
    os.kill(pids[0], signal.SIGKILL)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    eventually(lambda: not any(map(alive, pids)))


def test_a_script_without_a_guard(tmp_path):
    path = tmp_path / "unguarded.py"
    path.write_text(SCRIPT.format(name="asgd") + "main()\n")
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "under  if __name__ == '__main__':" in done.stderr

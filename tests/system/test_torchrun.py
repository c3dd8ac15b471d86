"""Engine ``torchrun``: serial's bits, or all but rounding; dead ranks."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from hemiola.algorithms.registry import RECIPES, build
from hemiola.callbacks import Callback
from hemiola.communicate import Synchronous
from hemiola.dataset import make_dataset
from hemiola.engines.torchrun import Torchrun
from hemiola.errors import DataError, OptionError, UnsupportedError, WorkersLostError
from hemiola.faults import Die, Hang, Poison, Slow
from hemiola.objectives import LinearObjective
from hemiola.replay import replay
from hemiola.trace import load_trace
from hemiola.training import fit

pytest.importorskip("torch")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's"),
    pytest.mark.usefixtures("fresh_fork_server"),
]
sys.path.append(str(Path(__file__).parents[2]))  # ranks import this module

SMALL = {
    "model-averaging": {"steps": 3, "optimizer": "adam", "carry": "average"},
    "one-shot-averaging": {"steps": 12},
    "fedavg": {"participation": 0.5, "epochs": 2},
    "bmuf": {"steps": 3},
    "easgd": {"period": 3},
    "eamsgd": {"period": 3},
    "dc-asgd": {"lr": 0.05},  # its compensation grows with a staleness that nothing bounds here
}
SYNCHRONOUS = [n for n in RECIPES if isinstance(build(n).communicate, Synchronous)]
ASYNCHRONOUS = [n for n in RECIPES if n not in SYNCHRONOUS]
ORDERED = Torchrun(reduce="ordered", timeout=300)


def algorithm(name, **options):
    return build(name, {**SMALL.get(name, {}), **options})


def data(dtype=np.float64):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 4)).astype(dtype)
    return make_dataset(X, (X @ rng.normal(size=4) + rng.normal(size=200) > 0).astype(int))


def trained(name, engine, *, objective="logistic", workers=4, rounds=6, on=None, **options):
    chosen = algorithm(name) if isinstance(name, str) else name
    samples = data() if on is None else on
    return fit(chosen, objective, samples, engine=engine, workers=workers, rounds=rounds, **options)


def ranks():
    """The living processes that this one has started, by rank."""
    found = {p.name: p for p in multiprocessing.active_children()}
    return {n: p for n, p in found.items() if n.startswith("hemiola-rank-")}


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert not ranks()


# The same as serial


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_rounds_in_order_have_the_bits_of_serial(name):
    here, there = (trained(name, e) for e in ("serial", ORDERED))
    assert there.model.sha256 == here.model.sha256
    assert there.history.last.bytes_up == here.history.last.bytes_up
    assert there.history.last.local_steps == here.history.last.local_steps


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("reduce", ["ordered", "sum"])
def test_fewer_ranks_than_workers_find_the_same(count, reduce):
    engine = Torchrun(reduce=reduce, ranks=count, timeout=300)
    here, there = (trained("bmuf", e) for e in ("serial", engine))
    if reduce == "ordered":
        assert there.model.sha256 == here.model.sha256
    assert there.weights == pytest.approx(here.weights, rel=1e-12)


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_an_all_reduce_differs_by_rounding(name):
    here, there = (trained(name, e) for e in ("serial", Torchrun(timeout=300)))
    assert there.weights == pytest.approx(here.weights, rel=1e-12)
    assert there.history.last.bytes_up == here.history.last.bytes_up


def test_a_round_is_one_all_reduce(monkeypatch):
    from hemiola.engines._ring import Ring

    sums, plain = [], Ring.sum
    monkeypatch.setattr(Ring, "sum", lambda ring, own: sums.append(own.size) or plain(ring, own))
    trained("ssgd", Torchrun(timeout=300), workers=2, rounds=20)
    twice, end = 2, 1  # two rounds have told the total weight before it is guessed
    assert len(sums) == 20 + twice + end


def test_a_wrong_guess_of_the_total_weight_does_not_matter(tmp_path):
    X = np.random.default_rng(3).normal(size=(203, 4))  # shards of 51, 51, 51, 50 rows
    uneven = make_dataset(X, (X[:, 0] > 0).astype(int))
    chosen = algorithm("fedavg", participation=0.75)
    kept = {"on": uneven, "rounds": 20, "eval_every": 3}
    here = trained(chosen, "serial", checkpoint=tmp_path / "a", **kept)
    there = trained(chosen, Torchrun(ranks=2, timeout=300), checkpoint=tmp_path / "b", **kept)
    assert there.weights == pytest.approx(here.weights, rel=1e-11)


def test_single_precision_stays_single():
    here, there = (trained("ssgd", e, on=data(np.float32)) for e in ("serial", ORDERED))
    assert there.model.sha256 == here.model.sha256
    summed = trained("ssgd", Torchrun(ranks=2), on=data(np.float32))
    assert summed.weights.dtype == np.float32
    assert summed.weights == pytest.approx(here.weights, rel=1e-5)


@pytest.mark.parametrize(("at", "until"), [(1, 4), (5, 6)])  # before ranks guess, and after
def test_a_message_that_is_not_finite_is_dropped_alike(at, until):
    faults = [Poison(worker=2, at=at, until=until)]
    here = trained("bmuf", "threads", rounds=9, faults=faults)
    ordered = trained("bmuf", ORDERED, rounds=9, faults=faults)
    summed = trained("bmuf", Torchrun(ranks=2, timeout=300), rounds=9, faults=faults)
    assert ordered.model.sha256 == here.model.sha256
    assert summed.weights == pytest.approx(here.weights, rel=1e-12)
    assert summed.history.refused == here.history.refused == until - at


def test_a_network_is_trained_as_on_serial():
    here, there = (
        trained(algorithm("bmuf", lr=0.05), e, objective="mlp(hidden=4)")
        for e in ("serial", Torchrun(reduce="ordered", ranks=2))
    )
    assert there.model.sha256 == here.model.sha256


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_asynchronous_runs_are_replayed_to_the_bit(name, tmp_path):
    recording = {} if name == "hybrid" else {"trace": tmp_path / "t"}
    result = trained(name, Torchrun(timeout=300), workers=2, rounds=10, **recording)
    history = result.history
    assert history.last.updates > 0 and np.isfinite(result.weights).all()
    if recording:
        again = replay(load_trace(tmp_path / "t"), data())
        assert again.model.sha256 == result.model.sha256


# Checkpoints


def test_a_run_is_resumed_to_the_same_bits_here_and_on_serial(tmp_path):
    whole = trained("eamsgd", "serial", rounds=8)
    for first, second in ((ORDERED, "serial"), ("serial", ORDERED)):
        place = tmp_path / str(first)[:8]
        trained("eamsgd", first, rounds=4, checkpoint=place)
        again = trained("eamsgd", second, rounds=8, checkpoint=place, resume=True)
        assert again.model.sha256 == whole.model.sha256


def test_an_asynchronous_run_is_resumed(tmp_path):
    trained("easgd-async", Torchrun(), workers=2, rounds=5, checkpoint=tmp_path)
    result = trained(
        "easgd-async", Torchrun(), workers=2, rounds=9, checkpoint=tmp_path, resume=True
    )
    assert result.history.last.updates == 18


# Dead ranks


def test_rounds_do_not_go_on_without_a_rank():
    with pytest.raises(WorkersLostError, match=r"rank 1 ended by signal 9.*on_loss=restart") as it:
        trained("bmuf", ORDERED, workers=2, faults=[Die(worker=1, at=3)])
    assert it.value.result.history.last.rounds == 3


def test_rounds_go_back_to_a_checkpoint_with_all_ranks(tmp_path):
    chosen = algorithm("bmuf", on_loss="restart")
    result = trained(
        chosen, ORDERED, workers=2, rounds=8, checkpoint=tmp_path, faults=[Die(worker=1, at=5)]
    )
    assert result.history.restarts == 1
    assert result.model.sha256 == trained("bmuf", "serial", workers=2, rounds=8).model.sha256


def test_asynchronous_runs_go_on_without_a_dead_worker():
    faults = [Die(1, at=2), Slow(0, factor=30), Slow(2, factor=30)]  # or they do it all
    result = trained("asgd", Torchrun(timeout=300), workers=3, rounds=40, faults=faults)
    assert result.history.left == 1
    assert result.history.last.updates == 120
    assert result.history.worker_updates[1] == 2


def test_a_worker_that_died_comes_back():
    faults = [Die(1, at=2, back_after=0.0), Slow(0, factor=30)]
    result = trained("asgd", Torchrun(timeout=300), workers=2, rounds=300, faults=faults)
    assert result.history.left == result.history.joined == 1
    assert result.history.worker_updates[1] > 2


def test_a_worker_that_hangs_is_given_up():
    result = trained("asgd", Torchrun(timeout=6), workers=2, rounds=20, faults=[Hang(1, at=3)])
    assert result.history.last.updates == 40


def test_nobody_is_waited_for_for_ever():
    with pytest.raises(WorkersLostError, match="did not answer in time"):
        trained("ssgd", Torchrun(timeout=3), workers=2, faults=[Hang(1, at=2)])


# Ends


class Broken(LinearObjective):
    """Fails in one worker."""

    def grad(self, w, batch):
        if batch.address is not None and batch.address[1:] == (1, 2):
            raise DataError("the third batch of worker 1 is broken")
        return super().grad(w, batch)


@pytest.mark.parametrize("name", ["ssgd", "asgd"])
def test_an_exception_of_a_worker_is_raised_here(name):
    chosen, many = algorithm(name, lr=0.1), 300  # nobody does all before worker 1 has done three
    with pytest.raises(DataError, match="third batch of worker 1") as caught:
        trained(chosen, Torchrun(timeout=300), objective=Broken(), workers=2, rounds=many)
    assert any("in " in note for note in caught.value.__notes__)


@pytest.mark.parametrize("name", ["ssgd", "asgd"])
def test_closing_early_frees_processes_and_port(name, monkeypatch):
    from tests.system.test_processes import job

    from hemiola.engines import _ranks

    places = []
    opened = _ranks.open_store
    monkeypatch.setattr(_ranks, "open_store", lambda: places.append(opened()) or places[-1])
    with closing(Torchrun().run(job(algorithm(name), 2))) as events:
        assert [event.step for event in islice(events, 3)] == [1, 2, 3]
        assert len(ranks()) == (1 if name == "ssgd" else 2)
    assert not ranks()
    port = places.pop()[0].port
    socket.create_server(("127.0.0.1", port)).close()


class StopsAt(Callback):
    """Ends a run after some updates."""

    def on_start(self, job, updates): ...
    def on_resume(self, records): ...
    def on_record(self, record, w): ...
    def on_end(self): ...
    def on_update(self, event):
        return "enough" if event.step == 3 else None


def test_one_rank_s_wish_to_stop_ends_all():
    result = trained("ssgd", ORDERED, rounds=50, callbacks=[StopsAt()])
    assert result.stopped == "enough" and result.history.last.updates == 3


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import hemiola\n"
        "hemiola.fit('asgd', 'logistic', hemiola.load('wine'), engine='torchrun', workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "put it under  if __name__ == '__main__':" in done.stderr.splitlines()[-1]


# What makes no sense


@pytest.mark.parametrize(
    ("engine", "name", "message"),
    [
        (Torchrun(ranks=5), "ssgd", "5 ranks for 4 workers"),
        (Torchrun(ranks=2), "asgd", "are for synchronous algorithms"),
        (Torchrun(backend="nccl"), "asgd", "are for synchronous algorithms"),
    ],
)
def test_what_makes_no_sense_is_refused(engine, name, message):
    with pytest.raises(OptionError, match=message):
        trained(name, engine)


@pytest.mark.parametrize("fault", [Die(0, at=1), Hang(1, at=1)])
def test_the_process_of_the_user_is_spared(fault):
    with pytest.raises(OptionError, match="part of this process"):
        trained("ssgd", Torchrun(ranks=2), workers=4, faults=[fault])


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UnsupportedError, match="MASTER_ADDR"):
        trained("ssgd", Torchrun())

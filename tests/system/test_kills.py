"""kill -9 of a worker, of the server, of the launcher, at random moments on engine ``torchrun``.

Twice, or as often as the environment's HEMIOLA_KILLS says.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import pytest

from hemiola.storage import load_nest

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")

KILLS = int(os.environ.get("HEMIOLA_KILLS", "2"))
CASES = [
    ("ssgd", "worker"),
    ("asgd", "launcher"),  # the server is in there
    ("asgd", "worker"),
    ("ssgd", "launcher"),
    ("asgd", "torchrun's server"),
    ("ssgd", "torchrun"),
]
ROUNDS, EVERY, PATIENCE = 600, 20, 120.0
MARK = "HEMIOLA_MARK"


class Started:
    """A command line whose processes can be told by a mark in their environment."""

    def __init__(self, words: list[str], directory: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.errors = directory / f"errors-{self.mark}"
        environment = {**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1"}
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                words, env=environment, stdout=subprocess.DEVNULL, stderr=errors
            )

    def alive(self) -> list[int]:
        """All its processes, also those whose parents are gone, but for zombies."""
        wanted = f"{MARK}={self.mark}".encode()
        return [p for p in map(int, filter(str.isdigit, os.listdir("/proc"))) if _has(p, wanted)]

    def ranks(self) -> list[int]:
        """Children of the process that forks them, or of torchrun."""
        me, alive = self.process.pid, self.alive()
        forkers = {p for p in alive if _parent(p) == me}
        return sorted(p for p in alive if _parent(p) in forkers)

    def wait(self) -> int:
        """The exit code, once all its processes are gone. Fails when that takes too long."""
        until = monotonic() + PATIENCE
        while self.process.poll() is None or self.alive():
            assert monotonic() < until, f"still there: {self.alive()}; {self.errors.read_text()}"
            sleep(0.05)
        return self.process.returncode

    def close(self) -> None:
        for pid in self.alive():
            _kill(pid)
        self.process.wait()


def _has(pid: int, wanted: bytes) -> bool:
    try:
        return wanted in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it was done
        os.kill(pid, signal.SIGKILL)


def command(algorithm: str, directory: Path, under_torchrun: bool, *more: str) -> list[str]:
    start = [sys.executable, "-m", "hemiola"]
    if under_torchrun:
        ranks = "2" if algorithm == "ssgd" else "3"
        start = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--rdzv-backend",
                 "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--nproc-per-node", ranks, "-m", "--",
                 "hemiola"]  # fmt: skip
    return [
        *start, "train", "breast_cancer", "--algorithm", algorithm, "--engine",
        "torchrun", "--workers", "2", "--rounds", str(ROUNDS), "--eval-every", str(EVERY),
        "-e", "timeout=20", "--checkpoint", str(directory / "kept"), "--log",
        str(directory / "log"), "--json", str(directory / "result"), *more,
    ]  # fmt: skip


def rounds_seen(log: Path) -> float:
    """Rounds of the last evaluation that the log holds whole."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    return float(json.loads(whole[-1])["rounds"]) if whole else 0.0


def victim(run: Started, who: str, rng: random.Random) -> int:
    if who in ("launcher", "torchrun"):
        return run.process.pid
    if who == "worker":
        return rng.choice(run.ranks() or [run.process.pid])
    children = [p for p in run.alive() if _parent(p) == run.process.pid]
    of_rank = {p: Path(f"/proc/{p}/environ").read_bytes() for p in children}
    return next(p for p, text in of_rank.items() if b"\0RANK=0\0" in text)


def _resume(checkpoint: Path, seen: float) -> list[str]:
    """How to go on, at most an interval of checkpoints back; before the first, from the start."""
    if seen <= EVERY and not checkpoint.exists():
        return []
    kept = load_nest(checkpoint)
    assert kept["history"]["records"][-1]["rounds"] >= seen - EVERY
    return ["--resume"]


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_ends_and_can_be_resumed(number, tmp_path):
    rng = random.Random(number)
    algorithm, who = CASES[number % len(CASES)]
    under = who.startswith("torchrun")
    log, after = tmp_path / "log", rng.randrange(1, 20) * EVERY
    run = Started(command(algorithm, tmp_path, under), tmp_path)
    try:
        while rounds_seen(log) < after and run.process.poll() is None:
            sleep(rng.random() / 50)
        if run.process.poll() is None:
            _kill(victim(run, who, rng))
        code = run.wait()
    finally:
        run.close()
    seen = rounds_seen(log)
    errors = run.errors.read_text()
    if code == 0:
        assert seen == ROUNDS
        return
    assert (algorithm, who) != ("asgd", "worker"), errors
    assert code < 0 or under or "Traceback" not in errors, errors
    resume = _resume(tmp_path / "kept" / "checkpoint.npz", seen)
    again = Started(command(algorithm, tmp_path, under, *resume), tmp_path)
    try:
        assert again.wait() == 0, again.errors.read_text()
    finally:
        again.close()
    assert rounds_seen(log) == ROUNDS

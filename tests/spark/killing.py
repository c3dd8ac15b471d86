"""Killing processes of Spark at random moments."""

from __future__ import annotations

import os
import random
import signal
from contextlib import suppress
from pathlib import Path
from threading import Timer

from hemiola.callbacks import Callback

ROUNDS = 12
EXECUTOR = "CoarseGrainedExecutorBackend"
DAEMON = "-m hemiola.engines._spark_daemon"


def processes():
    """Number, parent and command line of all processes."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            status = (place / "stat").read_text().rpartition(")")[2].split()
            command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            yield int(place.name), int(status[1]), command


def descendants(of):
    """Command lines by number of all processes that this one has started, or those of these."""
    found, known = {}, list(processes())
    front = {of}
    while front:
        below = {pid: command for pid, parent, command in known if parent in front}
        found |= below
        front = set(below)
    return found


def python_workers():
    """Those that are forked from one that runs the daemon."""
    mine = descendants(os.getpid())
    parents = {pid: parent for pid, parent, _ in processes()}
    return [
        pid
        for pid, command in mine.items()
        if DAEMON in command and DAEMON in mine.get(parents.get(pid), "")
    ]


def executors():
    """The Java processes that run a cluster's tasks."""
    return [pid for pid, command in descendants(os.getpid()).items() if EXECUTOR in command]


class Killer(Callback):
    """Kills one of the victims at a random moment within so many seconds of a random round."""

    def __init__(self, victims, seed, within):
        self._victims, self._within = victims, within
        self._random = random.Random(seed)
        self._round = self._random.randrange(2, ROUNDS - 2)
        self.killed = []
        self._timer = None

    def _kill(self):
        victims = sorted(self._victims())
        if victims:
            victim = self._random.choice(victims)
            os.kill(victim, signal.SIGKILL)
            self.killed.append(victim)

    def on_update(self, event):
        if event.step != self._round or self.killed:
            return
        if not self._within:
            self._kill()
            return
        self._timer = Timer(self._random.random() * self._within, self._kill)
        self._timer.start()

    def on_end(self):
        if self._timer is not None:
            self._timer.join()

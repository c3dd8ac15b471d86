"""Threads that stay: one and the same work for each of them, over and over.

Python threads run in parallel as far as their work is inside compiled kernels, which hold no lock.
Starting a thread costs about 100 us, waking one that is there about 10 us, and meeting another one
inside a kernel (:mod:`hemiola.kernels.barrier`) a fraction of one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

_Work = Callable[[int], Any]


class Team:
    """``size`` threads, the calling one included. They end with the team, at the latest.

    >>> team = Team(3)
    >>> team.run(lambda k: 10 * k)
    [0, 10, 20]
    >>> team.close()
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._inboxes: list[SimpleQueue[_Work | None]] = [SimpleQueue() for _ in range(size - 1)]
        self._done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
        threads = [
            Thread(
                target=_serve, args=(k, inbox, self._done), name=f"hemiola-team-{k}", daemon=True
            )
            for k, inbox in enumerate(self._inboxes, start=1)
        ]
        for thread in threads:
            thread.start()
        self.close = weakref.finalize(self, _end, self._inboxes, threads)

    def run(self, work: Callable[[int], T]) -> list[T]:
        """``work(k)`` on thread k = 0..size-1 at the same time; the results in this order.

        Raises the first thread's exception after all have come to an end.
        """
        for inbox in self._inboxes:
            inbox.put(work)
        outcomes = [_call(0, work), *(self._done.get() for _ in self._inboxes)]
        outcomes.sort(key=lambda outcome: outcome[0])
        for _, _, error in outcomes:
            if error is not None:
                raise error
        return [result for _, result, _ in outcomes]


def _call(k: int, work: _Work) -> tuple[int, Any, BaseException | None]:
    try:
        return k, work(k), None
    except BaseException as error:  # handed to the caller, who raises it
        return k, None, error


def _serve(k: int, inbox: SimpleQueue[_Work | None], done: SimpleQueue[Any]) -> None:
    while (work := inbox.get()) is not None:
        outcome = _call(k, work)
        del work  # what it refers to may be the team itself
        done.put(outcome)
        del outcome


def _end(inboxes: list[SimpleQueue[_Work | None]], threads: list[Thread]) -> None:
    for inbox in inboxes:
        inbox.put(None)
    for thread in threads:
        thread.join()

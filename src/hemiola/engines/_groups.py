"""The loop of grouped workers: rounds inside each group, no waiting across groups.

A group reads once for all its members and sends one joined message; to the server it is one worker
that is known by the number of the group's first. With one group this is the loop of rounds, with a
group a worker the asynchronous one, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hemiola.algorithm import Info, weight_of
from hemiola.communicate import Grouped
from hemiola.engines._executor import Arrival, Change, Executor, as_arrival
from hemiola.engines._server import Server, reduce_arrivals
from hemiola.engines._speeds import Speeds
from hemiola.errors import OptionError
from hemiola.grouping import Groups
from hemiola.job import GROUP, LEAD, Event, Job
from hemiola.types import Array, Message, State, copy_state, freeze, nbytes


@dataclass
class Round:
    """What a group is doing. ``number`` is that of its first worker, ``left`` counts the rounds of
    its own to go, ``started`` and ``state`` are the model it began at and its own server."""

    number: int
    members: list[int]
    read: int
    owed: set[int]
    arrivals: list[Arrival] = field(default_factory=list)
    left: int = 0
    started: Array | None = None
    state: State = None
    weight: float = 0.0


def grouped(job: Job, executor: Executor, resume: State | None) -> Iterator[Event]:
    """Run a grouped algorithm on an executor."""
    groups = GroupLoop(job, executor, resume)
    if resume is None:
        groups.begin()
    else:
        yield from groups.revive()
    while True:
        happened = executor.next()
        if happened is None:
            raise groups.server.abandoned(groups.server.at_work)
        event = groups.take(happened)
        if event is not None:
            executor.pause()
            yield event
            executor.resume()


class GroupLoop:
    """Groups at work. ``decide`` tells the new groups when there are to be other ones; by default
    that is asked of the workers' speeds."""

    def __init__(
        self,
        job: Job,
        executor: Executor,
        resume: State | None = None,
        decide: Callable[[], Groups | None] | None = None,
    ) -> None:
        discipline = job.algorithm.communicate
        assert isinstance(discipline, Grouped)
        self.discipline = discipline
        self.server = Server(job, executor, resume)
        self._speeds = Speeds(discipline, job.workers)
        self._decide = decide or self._by_speed
        self._number = list(range(job.workers))  # of each worker's group
        self._members: dict[int, list[int]] = {}
        self._rounds: dict[int, Round] = {}  # by worker at work
        self._idle_since: dict[int, float] = {}
        self._parked: set[int] = set()
        self._own: dict[int, Array] = {}  # models that groups keep between exchanges
        self._books: dict[int, dict[str, Any]] = {}
        if resume is None:
            self._idle_since = dict.fromkeys(range(job.workers), executor.now())
            self._assign(self._first_groups())
        else:
            self._restore(resume)

    def _first_groups(self) -> Groups:
        workers = self.server.job.workers
        groups = self.discipline.groups or tuple((worker,) for worker in range(workers))
        named = sum(len(group) for group in groups)
        if named != workers:
            raise OptionError(f"groups name {named} workers, but there are {workers}.")
        return groups

    @property
    def groups(self) -> Groups:
        """Who works together now."""
        return tuple(tuple(members) for _, members in sorted(self._members.items()))

    # --- what happens ------------------------------------------------------------------------

    def begin(self) -> None:
        """Let all groups begin that can."""
        self._launch(list(self._members))

    def revive(self) -> Iterator[Event]:
        """After a snapshot of which some workers did not come back at work: let them go on."""
        server, now = self.server, self.server.executor.now()
        there = server.at_work | server.ticks.away | self._idle_since.keys()
        for worker in set(range(server.job.workers)) - there:
            self._idle_since[worker] = now
            group = self._rounds.pop(worker, None)
            if group is None:
                continue
            group.owed.discard(worker)
            staleness = None if group.owed else self._finish(group)
            if staleness is not None:
                yield server.event(group.members, staleness, self.snapshot)
        self.begin()

    def take(self, happened: Arrival | Change) -> Event | None:
        """Take in what happened; an event if the server was updated by it."""
        done = self._hear(happened)
        staleness = None if done is None else self._finish(done)
        if done is None or staleness is None:
            return None
        return self.server.event(done.members, staleness, self.snapshot)

    def _hear(self, happened: Arrival | Change) -> Round | None:
        """The round that is complete by what happened, if any."""
        if isinstance(happened, Arrival):
            return self._arrive(happened)
        return self._change(happened)

    def _arrive(self, arrival: Arrival) -> Round | None:
        server, worker = self.server, arrival.worker
        self._speeds.note(arrival, server.executor.now() - server.begun[worker])
        server.receive(arrival, inside=True)
        self._idle_since[worker] = arrival.finished
        done = self._rounds.pop(worker)
        done.owed.discard(worker)
        if not server.refuses(arrival.up):
            done.arrivals.append(arrival)
        return done if not done.owed else None

    def _change(self, change: Change) -> Round | None:
        worker = change.worker
        self.server.change(change)
        if change.joined:
            self._idle_since[worker] = self.server.executor.now()
            self._launch([self._number[worker]])
            return None
        self._idle_since.pop(worker, None)
        done = self._rounds.pop(worker, None)
        if done is None:
            self._launch([self._number[worker]])
            return None
        done.owed.discard(worker)
        return done if not done.owed else None

    # --- rounds ------------------------------------------------------------------------------

    def _launch(self, numbers: list[int]) -> None:
        """Begin these groups' next rounds, as far as their members are idle and may go on."""
        ticks, max_lead = self.server.ticks, self.discipline.max_lead
        for number in numbers:
            members = [k for k in self._members.get(number, ()) if k not in ticks.away]
            if not members or any(k not in self._idle_since for k in members):
                continue
            if max_lead is not None and min(map(ticks.lead, members)) > max_lead:
                self._parked.add(number)
                continue
            self._parked.discard(number)
            self._begin(number, members)

    def _begin(self, number: int, members: list[int]) -> None:
        server = self.server
        down = server.read_for(number, members)
        group = Round(number, members, server.step, set())
        inside = self.discipline.inside
        if inside is not None:
            group.left, group.started = inside.rounds, self._start_of(number, down)
            group.state = inside.aggregate.init(group.started, len(members))
            down = inside.aggregate.pull(group.state, 0)
        self._send(group, down)

    def _start_of(self, number: int, down: Message) -> Array:
        """The model at which a group's own rounds begin: the server's, or its own, pulled back."""
        if "w" in down:
            return down["w"]
        own = self._own.get(number, self.server.job.w0)
        started: Array = own - down["e"]
        return started

    def _send(self, group: Round, down: Message) -> None:
        """Let all members work on one message."""
        server, now = self.server, self.server.executor.now()
        group.arrivals, group.owed = [], set(group.members)
        server.ledger.bytes_inside += (len(group.members) - 1) * nbytes(down)
        for worker in group.members:
            server.ledger.waiting += now - self._idle_since.pop(worker)
            self._rounds[worker] = group
            server.dispatch(worker, down)

    def _finish(self, done: Round) -> int | None:
        """Join a round's messages; the staleness of the server's update, None if there is none."""
        if done.arrivals and self._goes_on_inside(done):
            return None
        staleness = self._push(done) if done.arrivals else None
        if staleness is None:
            self.server.complete()
        regroup = self._decide()
        if regroup is None:
            self._launch(sorted({self._number[k] for k in done.members} | self._parked))
        else:
            self._assign(regroup)
            self.begin()
        return staleness

    def _goes_on_inside(self, done: Round) -> bool:
        """Take in one of the group's own rounds and begin the next, if there is one to go."""
        inside = self.discipline.inside
        if inside is None:
            return False
        joined, weight = self._join(done)
        there = [arrival.worker for arrival in done.arrivals]
        number = inside.rounds - done.left
        info = Info(number, there, weight, 0, len(done.members), number)
        done.state = inside.aggregate.push(done.state, joined, info)
        done.weight += weight
        done.left -= 1
        done.members = [k for k in done.members if k not in self.server.ticks.away]
        if done.left and done.members:
            self.server.ledger.pieces += len(there)  # the last round's are counted by the server
            self._send(done, inside.aggregate.pull(done.state, 0))
            return True
        return False

    def _join(self, done: Round) -> tuple[Message, float]:
        arrivals = sorted(done.arrivals, key=lambda arrival: arrival.worker)
        self.server.ledger.bytes_inside += sum(nbytes(a.up) for a in arrivals[1:])
        return reduce_arrivals(self.server.job, arrivals)

    def _push(self, done: Round) -> int:
        server = self.server
        there = sorted(arrival.worker for arrival in done.arrivals)
        up, weight = self._message(done)
        server.ledger.messages += 1
        server.ledger.up(done.number, nbytes(up))
        tick = server.ticks[there[0]] - 1
        staleness = server.step - done.read
        server.push(up, Info(server.step, there, weight, staleness, len(self._members), tick,
                             server.ticks.lowest, done.number))  # fmt: skip
        book = self._books.get(done.number)
        if book is not None:
            book["updates"] += 1
            book["staleness"] += staleness
            book["samples"] += weight
        return staleness

    def _message(self, done: Round) -> tuple[Message, float]:
        """What the group sends, and the samples behind it."""
        inside = self.discipline.inside
        if inside is None:
            up, weight = self._join(done)
        else:
            assert done.started is not None
            own = inside.aggregate.model(done.state)
            self._own[done.number] = own
            up, weight = freeze(g=done.started - own, x=own), done.weight
        share = self._speeds.share(done.arrivals, len(self._members))
        if share != 1.0 and self.discipline.scale == "linear" and "g" in up:
            up = {**up, "g": share * up["g"]}
        return freeze(**up, weight=weight_of(weight)), weight

    # --- who works together ------------------------------------------------------------------

    def _assign(self, groups: Groups) -> None:
        """Rounds under way are finished as they were begun."""
        job = self.server.job
        self._members = {group[0]: list(group) for group in groups}
        for number, members in self._members.items():
            for worker in members:
                self._number[worker] = number
                if job.trace is not None:
                    job.trace.note(GROUP, worker, self.server.executor.now())
                    job.trace.note(LEAD, number, self.server.executor.now())
        expected = self._speeds.settle(groups)
        if expected is not None or self.discipline.groups is not None:
            now = self.server.executor.now()
            self._books = self.server.ledger.open_groups(self._members, expected, now)

    def _by_speed(self) -> Groups | None:
        return self._speeds.regroup(self.server.ticks.away)

    # --- snapshots ---------------------------------------------------------------------------

    def snapshot(self) -> State:
        """Everything that a resumed run needs."""
        under_way = {group.number: group for group in self._rounds.values()}
        saved = self.server.snapshot()
        return {**saved, "groups": copy_state({
            "members": [self._members[number] for number in sorted(self._members)],
            "rounds": [_plain(group) for _, group in sorted(under_way.items())],
            "idle_since": {str(k): since for k, since in self._idle_since.items()},
            "parked": sorted(self._parked),
            "own": {str(number): own for number, own in self._own.items()},
            "speeds": self._speeds.snapshot(),
        })}  # fmt: skip

    def _restore(self, resume: State) -> None:
        saved = copy_state(resume["groups"])
        self._members = {int(group[0]): [int(k) for k in group] for group in saved["members"]}
        for number, members in self._members.items():
            for worker in members:
                self._number[worker] = number
        for plain in saved["rounds"]:
            plain["arrivals"] = [as_arrival(arrival) for arrival in plain["arrivals"]]
            group = Round(**{**plain, "owed": {int(k) for k in plain["owed"]}})
            self._rounds.update(dict.fromkeys(group.owed, group))
        self._idle_since = {int(k): since for k, since in saved["idle_since"].items()}
        self._parked = {int(number) for number in saved["parked"]}
        self._own = {int(number): own for number, own in saved["own"].items()}
        self._speeds.restore(saved["speeds"])
        self._books = self.server.ledger.open_books()


def _plain(group: Round) -> dict[str, Any]:
    arrivals = [arrival._asdict() for arrival in group.arrivals]
    return {**vars(group), "owed": sorted(group.owed), "arrivals": arrivals}

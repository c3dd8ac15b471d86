"""Components, their allocation, and executions that interleave on purpose.

The engine of these tests runs the cores' programs in pure Python and switches between them at
random after every single read and write of a shared number. Along a plan without conflicts the
outcome is that of the serial loop, bit for bit; without one it is not.
"""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from hemiola.algorithms.conflicts import (
    Touched,
    choose_batch,
    forecast,
    label,
    label_by_propagation,
    load_labels,
    save_labels,
    schedule,
    serial,
)
from hemiola.algorithms.linear_passes import gaps
from hemiola.errors import OptionError
from hemiola.kernels.components import allocate
from hemiola.team import Team

USERS, ITEMS, RANK = 40, 50, 2


def touched_by(supports, n):
    starts = np.append(0, np.cumsum([len(s) for s in supports]))
    columns = np.concatenate([*supports, []])
    return Touched(starts.astype(np.uint64), columns.astype(np.uint32), n)


def random_problem(seed, n=30, d=60, most=3):
    rng = np.random.default_rng(seed)
    supports = [rng.choice(d, rng.integers(0, most + 1), replace=False) for _ in range(n)]
    return supports, touched_by(supports, d), rng


def parts_of(plan, b):
    """Positions of each core in batch b."""
    bounds = plan.bounds[b * plan.cores : (b + 1) * plan.cores + 1]
    return [plan.position[s:e] for s, e in pairwise(bounds)]


# Components


def components_by_search(supports, rows):
    """Depth first over the graph of conflicts, written out."""
    names = [-1] * len(rows)
    for start in range(len(rows)):
        stack = [start] if names[start] < 0 else []
        while stack:
            i = stack.pop()
            names[i] = start
            near = set(supports[rows[i]])
            stack += [k for k in range(len(rows)) if names[k] < 0 and near & set(supports[rows[k]])]
    return names


@pytest.mark.parametrize("seed", range(20))
def test_union_find_and_label_propagation_find_the_same_components(seed):
    supports, touched, rng = random_problem(seed)
    rows = rng.integers(0, len(supports), 25)  # the same sample may appear twice
    expected = components_by_search(supports, rows)
    assert label(touched, rows, len(rows)).tolist() == expected
    assert label_by_propagation(touched, rows).tolist() == expected


def test_label_propagation_gives_up_on_a_long_chain_and_is_right_all_the_same():
    n = 60
    chain = touched_by([[i, i + 1] for i in range(n)], n + 1)
    rows = np.random.default_rng(0).permutation(n)
    assert (label_by_propagation(chain, rows, rounds=3) == 0).all()
    assert (label_by_propagation(chain, rows, rounds=100) == 0).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_batches_are_planned_apart_whoever_plans_them(threads):
    _, touched, rng = random_problem(3, n=100)
    order, batch = rng.permutation(100), 17
    found = label(touched, order, batch, Team(threads))
    for begin in range(0, 100, batch):
        alone = label(touched, order[begin : begin + batch], batch)
        assert (found[begin : begin + batch] == alone).all()


def test_disjoint_supports_give_components_of_one():
    touched = touched_by([[2 * i, 2 * i + 1] for i in range(20)], 40)
    assert label(touched, np.arange(20), 20).tolist() == list(range(20))


def test_two_copies_of_a_sample_are_in_one_component():
    touched = touched_by([[0], [1]], 2)
    assert label(touched, np.array([0, 1, 0]), 3).tolist() == [0, 1, 0]


# Allocation


def shortest(loads, cores):
    """By brute force."""
    return min(
        max(sum(np.array(loads)[np.array(who) == p]) for p in range(cores))
        for who in product(range(cores), repeat=len(loads))
    )


@pytest.mark.parametrize("seed", range(30))
def test_largest_first_is_within_grahams_bound(seed):
    rng = np.random.default_rng(seed)
    cores = int(rng.integers(2, 4))
    loads = rng.integers(0, 20, rng.integers(1, 8))
    chosen, busy = allocate(loads, cores)
    assert (np.bincount(chosen, weights=loads, minlength=cores) == busy).all()
    assert busy.max() <= (4 / 3 - 1 / (3 * cores)) * shortest(loads, cores) + 1e-9
    assert busy.max() >= max(loads.sum() / cores, loads.max())


def test_the_bound_is_reached_by_grahams_example():
    loads = np.array([3, 3, 2, 2, 2])
    assert allocate(loads, 2)[1].max() == 7 and shortest(loads, 2) == 6


# Schedules


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("batch", "cores"), [(1, 2), (7, 1), (10, 2), (30, 4), (100, 3)])
def test_a_schedule_has_everything_once_in_order_and_nobody_shares(seed, batch, cores):
    supports, touched, rng = random_problem(seed, n=50)
    order = rng.permutation(50)
    labels = label(touched, order, batch)
    plan = schedule(labels, touched.load[order], batch, cores)
    assert sorted(plan.position) == list(range(50))
    for b in range(plan.batches):
        parts = parts_of(plan, b)
        inside = np.arange(50)[b * batch : (b + 1) * batch]
        assert sorted(np.concatenate(parts)) == inside.tolist()
        seen = [{c for t in part for c in supports[order[t]]} for part in parts]
        assert sum(map(len, seen)) == len(set().union(*seen)), "a parameter of two cores"
        assert all((np.diff(part) > 0).all() for part in parts)
        assert plan.busy[b].tolist() == [touched.load[order[part]].sum() for part in parts]
        assert plan.largest[b] <= plan.busy[b].max()


def test_the_batch_grows_while_its_components_can_be_balanced():
    rng = np.random.default_rng(0)
    loose = touched_by(rng.integers(0, 100_000, (4000, 2)).tolist(), 100_000)
    tight = touched_by([[0]] * 4000, 1)
    assert choose_batch(loose, 2) == 4000
    assert forecast(loose, 4000, 2).pays
    assert choose_batch(tight, 2) == 125
    seen = forecast(tight, 125, 2)
    assert (seen.balance, seen.largest, seen.pays) == (1.0, 1.0, False)


def test_a_plan_comes_back_from_disk_or_is_refused(tmp_path):
    path, labels = tmp_path / "plan.npz", np.arange(5, dtype=np.int32)
    save_labels(path, labels, 5, "key")
    read, batch = load_labels(path, None, "key")
    assert (read == labels).all() and batch == 5
    with pytest.raises(OptionError, match="other data"):
        load_labels(path, None, "another key")
    with pytest.raises(OptionError, match="batches of 5, not 6"):
        load_labels(path, 6, "key")


# Interleaved execution


class Factors:
    """SGD for matrix completion; a shared number is (row, place)."""

    def __init__(self, seed, n=80):
        rng = np.random.default_rng(seed)
        self.pairs = np.column_stack([rng.integers(0, USERS, n), rng.integers(0, ITEMS, n)])
        self.z = rng.normal(size=n).tolist()
        rows = np.add(self.pairs, [0, USERS])
        self.touched = touched_by(rows.tolist(), USERS + ITEMS)
        self.start = {
            (row, k): float(rng.normal()) for row in range(USERS + ITEMS) for k in range(RANK)
        }

    def reads(self, j):
        u, v = np.add(self.pairs[j], [0, USERS])
        return [(int(row), k) for row in (u, v) for k in range(RANK)]

    def update(self, old, j, t):
        left, right = old[:RANK], old[RANK:]
        e = sum(a * b for a, b in zip(left, right, strict=True)) - self.z[j]
        return [a - 0.1 * e * b for a, b in zip(left, right, strict=True)] + [
            b - 0.1 * e * a for a, b in zip(left, right, strict=True)
        ]


class LazySVRG:
    """Least squares with ridge; a shared number is a weight or the count of steps it has seen."""

    def __init__(self, seed, n=60, d=150):
        rng = np.random.default_rng(seed)
        self.supports = [rng.choice(d, 3, replace=False).tolist() for _ in range(n)]
        self.touched = touched_by(self.supports, d)
        self.mean = rng.normal(size=d).tolist()
        self.keep, self.drift = (array.tolist() for array in gaps(0.01, n))
        self.start = {("x", v): float(rng.normal()) for v in range(d)}
        self.start.update({("last", v): 0 for v in range(d)})

    def reads(self, j):
        return [(kind, v) for kind in ("x", "last") for v in self.supports[j]]

    def update(self, old, j, t):
        support = self.supports[j]
        new = []
        for v, x, last in zip(support, old[: len(support)], old[len(support) :], strict=True):
            new.append(x * self.keep[t - last] - 0.1 * self.mean[v] * self.drift[t - last])
        e = sum(new) - 1.0
        return [0.99 * x - 0.1 * (e + self.mean[v]) for v, x in zip(support, new, strict=True)] + [
            t + 1
        ] * len(support)


class LazySAGA(LazySVRG):
    """Shared are, besides, the mean gradient and each sample's slope."""

    def __init__(self, seed, n=60, d=150):
        super().__init__(seed, n, d)
        rng = np.random.default_rng(seed)
        self.n = n
        self.start.update({("mean", v): float(rng.normal()) for v in range(d)})
        self.start.update({("slope", j): float(rng.normal()) for j in range(n)})

    def reads(self, j):
        return [*super().reads(j), *(("mean", v) for v in self.supports[j]), ("slope", j)]

    def update(self, old, j, t):
        m = len(self.supports[j])
        xs, lasts, means, slope = old[:m], old[m : 2 * m], old[2 * m : 3 * m], old[-1]
        xs = [
            x * self.keep[t - last] - 0.1 * mean * self.drift[t - last]
            for x, last, mean in zip(xs, lasts, means, strict=True)
        ]
        new = sum(xs) - 1.0
        g = new - slope
        xs = [0.99 * x - 0.1 * (g + mean) for x, mean in zip(xs, means, strict=True)]
        return [*xs, *[t + 1] * m, *(mean + g / self.n for mean in means), new]


PROBLEMS = [Factors, LazySVRG, LazySAGA]


def program(problem, shared, order, positions):
    """What a core does, a single read or write at a time."""
    for t in positions:
        j, old = order[t], []
        for place in problem.reads(j):
            old.append(shared[place])
            yield
        for place, value in zip(problem.reads(j), problem.update(old, j, t), strict=True):
            shared[place] = value
            yield


def interleave(programs, rng):
    programs = list(programs)
    while programs:
        k = rng.integers(len(programs))
        if next(programs[k], "over") == "over":
            programs.pop(k)


def execute(problem, order, phases, seed):
    """Each phase is a list of cores' positions, and all cores wait at its end."""
    shared, rng = dict(problem.start), np.random.default_rng(seed)
    for phase in phases:
        interleave((program(problem, shared, order, part) for part in phase), rng)
    return shared


def phases_of(problem, order, batch, cores):
    labels = label(problem.touched, order, batch)
    plan = schedule(labels, problem.touched.load[order], batch, cores)
    return [parts_of(plan, b) for b in range(plan.batches)]


@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize(("batch", "cores"), [(1, 3), (12, 1), (12, 2), (20, 3), (60, 4)])
def test_cyclades_equals_the_serial_loop_whatever_the_interleaving(kind, batch, cores):
    for seed in range(4):
        problem = kind(seed)
        order = np.random.default_rng(seed).integers(0, len(problem.touched.load), 60)
        alone = execute(problem, order, [[range(60)]], 0)
        assert execute(problem, order, phases_of(problem, order, batch, cores), seed) == alone


@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_same_updates_without_a_plan_do_not(kind):
    problem, order = kind(0), np.arange(60)
    alone = execute(problem, order, [[range(60)]], 0)
    hogwild = [[range(k, 60, 3) for k in range(3)]]
    assert all(execute(problem, order, hogwild, seed) != alone for seed in range(5))


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_missing_barrier_is_noticed(kind):
    problem, order = kind(1), np.arange(60)
    alone = execute(problem, order, [[range(60)]], 0)
    phases = phases_of(problem, order, 12, 3)
    running_on = [[np.concatenate(parts) for parts in zip(*phases, strict=True)]]
    assert any(execute(problem, order, running_on, seed) != alone for seed in range(5))


def test_another_order_inside_a_component_is_noticed():
    problem, order = Factors(2), np.arange(60)
    alone = execute(problem, order, [[range(60)]], 0)
    backwards = [[part[::-1] for part in phase] for phase in phases_of(problem, order, 20, 2)]
    assert execute(problem, order, backwards, 0) != alone


class Groups:
    """Least squares; each weight belongs to a group of samples that are all alike."""

    def __init__(self, groups=6, each=8):
        self.touched = touched_by([[j // each] for j in range(groups * each)], groups)
        self.start = dict.fromkeys(range(groups), 0.0)
        self.each = each

    def reads(self, j):
        return [j // self.each]

    def update(self, old, j, t):
        return [old[0] - 0.9 * (old[0] - 1.0)]  # of curvature 1: stable below 2


def adding(problem, shared, order, positions):
    """A core of Hogwild!, whose additions are atomic: none is lost, but all may be stale."""
    for t in positions:
        j, old = order[t], []
        for place in problem.reads(j):
            old.append(shared[place])
            yield
        changed = zip(problem.reads(j), problem.update(old, j, t), old, strict=True)
        for place, value, before in changed:
            shared[place] += value - before
            yield


def in_lockstep(programs):
    programs = list(programs)
    while programs:
        programs = [core for core in programs if next(core, "over") != "over"]


def test_hogwild_diverges_at_a_rate_at_which_cyclades_converges():
    """Eight cores that read before any of them writes make a step that is eight times too long."""
    problem, cores = Groups(), 8
    order = np.tile(np.arange(48), 3)
    shared = dict(problem.start)
    in_lockstep(adding(problem, shared, order, range(k, 144, cores)) for k in range(cores))
    assert min(abs(value - 1) for value in shared.values()) > 100
    shared = dict(problem.start)
    for phase in phases_of(problem, order, 48, cores):
        in_lockstep(program(problem, shared, order, part) for part in phase)
    assert max(abs(value - 1) for value in shared.values()) < 1e-9
    assert shared == execute(problem, order, [[range(144)]], 0)


def test_serial_is_everything_in_order():
    plan = serial(np.ones(7, dtype=np.int64), 3)
    assert plan.position.tolist() == list(range(7))
    assert plan.bounds.tolist() == [0, 3, 6, 7] and plan.balance == 1.0

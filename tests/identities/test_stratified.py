"""Stratified SGD is serial SGD in the order of its strata, and so is Cyclades in its own order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hemiola.algorithms import cyclades, stratified
from hemiola.algorithms.stratified import parts
from hemiola.dataset import make_dataset
from hemiola.errors import OptionError
from hemiola.job import Work
from hemiola.objectives import factorization, squared
from hemiola.rng import stream
from hemiola.training import fit

USERS, ITEMS, RANK, L2, LR = 60, 50, 3, 0.05, 0.05


def ratings(n=600, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    u = np.append(np.arange(USERS), rng.integers(0, USERS, n - USERS))
    v = np.append(np.arange(ITEMS), (ITEMS * rng.random(n - ITEMS) ** 2).astype(int))
    L, R = rng.normal(size=(USERS, RANK)), rng.normal(size=(ITEMS, RANK))
    z = 3 + (L[u] * R[v]).sum(axis=1) + 0.1 * rng.normal(size=n)
    return make_dataset(np.column_stack([u, v]).astype(dtype), z, regression=True)


def trained(algorithm, data, objective, threads=1, epochs=2, seed=1):
    solver = algorithm.solver
    plan = solver.prepare(Work(objective, data, threads, seed))
    state = solver.init(plan, objective.init(data, np.random.default_rng(2)))
    for epoch in range(epochs):
        solver.epoch(plan, state, epoch)
    return solver.model(plan, state), plan


def serial_sgd(data, objective, sequence):
    """One rating after another, (rating, rate) each; both gradients at the old values."""
    w = objective.init(data, np.random.default_rng(2))
    L, R = objective.factors(w)
    for i, lr in sequence:
        u, v = data.X[i].astype(int)
        left, right = L[u].copy(), R[v].copy()
        e = objective.mean + left[:-1] @ right[:-1] + left[-1] + right[-1] - data.y[i]
        L[u] -= lr * (e * np.append(right[:-1], 1) + objective.l2 * left)
        R[v] -= lr * (e * np.append(left[:-1], 1) + objective.l2 * right)
    return w


def test_stratified_sgd_is_serial_sgd_in_the_order_of_the_strata(same):
    data = ratings()
    objective, d, seed = factorization(data, RANK, L2), 4, 1
    order = stream(seed, "stratified").permutation(len(data))
    u, v = data.X[order].astype(int).T
    i, j = parts(u, d)[u], parts(v, d)[v]
    sequence = []
    for epoch in range(2):
        for s in stream(seed, "strata", epoch).permutation(d):
            for block in range(d):
                inside = (i == block) & (j == (block + s) % d)
                sequence += [(k, LR * 0.9**epoch) for k in order[inside]]
    w, _ = trained(stratified(LR, 0.9, d), data, objective, seed=seed)
    same(w, serial_sgd(data, objective, sequence))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_stratified_sgd_gives_the_same_bits_on_any_number_of_threads(dtype):
    data = ratings(dtype=dtype)
    objective = factorization(data, RANK, L2)
    alone, _ = trained(stratified(LR, blocks=4), data, objective)
    for threads in (2, 3, 4):
        w, plan = trained(stratified(LR, blocks=4), data, objective, threads)
        assert (w == alone).all() and w.dtype == dtype
        assert 1 < plan.balance <= threads


def test_blocks_of_a_stratum_share_no_user_and_no_item():
    data = ratings()
    _, plan = trained(stratified(LR, blocks=3), data, factorization(data, RANK), 3, epochs=0)
    assert plan.ratings.sum() == len(data) and plan.ratings.shape == (3, 3)
    for s in range(3):
        lists = [slice(*plan.bounds[3 * s + k : 3 * s + k + 2]) for k in range(3)]
        for numbers in (plan.passes.users, plan.passes.items):
            sets = [set(numbers[part]) for part in lists]
            assert sum(map(len, sets)) == len(set().union(*sets))


def test_cyclades_is_serial_sgd_in_its_order(same):
    data = ratings()
    objective, seed = factorization(data, RANK, L2), 1
    order = stream(seed, "cyclades").permutation(len(data))
    sequence = [(k, LR * 0.9**epoch) for epoch in range(2) for k in order]
    alone, _ = trained(cyclades(lr=LR, decay=0.9), data, objective, seed=seed)
    same(alone, serial_sgd(data, objective, sequence))
    for threads, batch in [(2, 10), (3, 15), (2, 1), (2, 600)]:
        w, plan = trained(
            cyclades(lr=LR, decay=0.9, batch_size=batch), data, objective, threads, seed=seed
        )
        assert (w == alone).all()
        assert plan.team.size == (threads if 1 < batch < 600 else 1)


@pytest.mark.parametrize("algorithm", [stratified(LR), cyclades(lr=LR, decay=0.95)])
def test_ratings_are_learned(algorithm):
    data = ratings(3000)
    objective = replace(factorization(data, RANK), l2=1e-3)
    result = fit(algorithm, objective, data, engine="threads", workers=2, rounds=60)
    assert result.history.metric == "r2" and result.history.last.score > 0.95
    assert objective.rmse(result.weights, data) < 0.4


def test_what_they_cannot_do_they_say(line):
    data = ratings()
    objective = factorization(data, RANK)
    with pytest.raises(OptionError, match="need as many blocks, not 2; give blocks=3"):
        trained(stratified(blocks=2), data, objective, 3)
    with pytest.raises(OptionError, match="for matrix factorisation"):
        trained(stratified(), line(), squared())
    with pytest.raises(OptionError, match="no svrg here"):
        trained(cyclades("svrg", LR), data, objective)
    with pytest.raises(OptionError, match="give a learning rate"):
        fit("cyclades", objective, data, engine="threads")


def test_words_tell_what_to_expect():
    data = ratings()
    algorithm = stratified(blocks=4)
    _, plan = trained(algorithm, data, factorization(data), 2, epochs=0)
    said = algorithm.solver.words(plan)
    assert said[0] == "Stratified: 4 strata of 4 blocks a pass." and "times as fast" in said[1]

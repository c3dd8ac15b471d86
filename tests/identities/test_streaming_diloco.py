"""Streaming DiLoCo against its pseudo-code, DiLoCo, and workers that never meet."""

from __future__ import annotations

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import diloco, streaming_diloco
from hemiola.algorithms.hybrid import hybrid
from hemiola.algorithms.streaming_diloco import Fragments
from hemiola.errors import OptionError
from hemiola.objectives import logistic
from hemiola.optim import SGD, AdamW, HeavyBall, Nesterov
from hemiola.training import fit

WORKERS, ROUNDS, D = 4, 9, 7
BATCH = MiniBatch(4)
OUTER = Nesterov(0.7, 0.9)


def learn(run, two_classes, algorithm, rounds=ROUNDS):
    data = two_classes(64, D - 1)
    return run(algorithm, logistic(0.01), data, workers=WORKERS, updates=rounds)


@pytest.mark.parametrize("server", [OUTER, SGD(1.0), HeavyBall(0.5, 0.5)])
@pytest.mark.parametrize("inner", [SGD(0.3), AdamW(0.05)])
def test_one_fragment_without_delay_is_diloco_bit_for_bit(run, two_classes, server, inner):
    ours = learn(run, two_classes, streaming_diloco(3, 1, 0, 0.0, "strided", server, inner, BATCH))
    theirs = learn(run, two_classes, diloco(3, server, inner, BATCH))
    np.testing.assert_array_equal(ours.models, theirs.models)


def coordinates(P, pattern):
    """The coordinates of every fragment."""
    strided = [list(range(p, D, P)) for p in range(P)]
    edges = [p * D // P for p in range(P + 1)]
    return strided if pattern == "strided" else [
        list(range(*edges[p : p + 2])) for p in range(P)
    ]  # fmt: skip


def as_published(result, gradient, data, steps, P, tau, alpha, pattern, *, flat=False):
    """One loop over steps. Fragment p is due when t is (p + 1) H/P plus a multiple of H; what its
    outer step gave is merged tau steps later. ``flat`` shares one buffer (a mistake)."""
    gap, fragments = steps // P, coordinates(P, pattern)
    theta, mine = result.w0.copy(), [result.w0.copy() for _ in range(WORKERS)]
    buffers, arriving, models = np.zeros(D), {}, []
    count = np.zeros(P, dtype=int)
    for t in range(ROUNDS * gap + 1):
        if t and t % gap == 0:
            p = (t // gap - 1) % P
            at = fragments[p]
            delta = np.mean([theta[at] - w[at] for w in mine], axis=0)
            if flat:
                buffers *= 0.9
                buffers[at] += delta
            else:
                buffers[at] = 0.9 * buffers[at] + delta
            theta[at] = theta[at] - 0.7 * (delta + 0.9 * buffers[at])
            arriving[t + tau] = (at, theta[at].copy())
            count[p] += 1
            models.append(theta.copy())
        if t in arriving:
            at, fragment = arriving.pop(t)
            for w in mine:
                w[at] = alpha * w[at] + (1 - alpha) * fragment
        if t == ROUNDS * gap:
            break
        for k, w in enumerate(mine):
            w -= 0.3 * gradient(w, data, result.job.source.batch(k, t, BATCH).rows, 0.01)
    return models, mine, count


CASES = [
    (4, 1, 0, 0.0, "sequential"),
    (4, 1, 3, 0.5, "sequential"),
    (6, 2, 0, 0.0, "strided"),
    (6, 3, 1, 0.5, "sequential"),
    (9, 3, 2, 0.25, "strided"),
    (7, 7, 0, 0.5, "sequential"),
    (6, 2, 2, 0.0, "strided"),
]


@pytest.mark.parametrize(("steps", "P", "tau", "alpha", "pattern"), CASES)
def test_streaming_diloco_does_what_its_pseudo_code_says(
    run, two_classes, gradient, same, steps, P, tau, alpha, pattern
):
    algorithm = streaming_diloco(steps, P, tau, alpha, pattern, OUTER, SGD(0.3), BATCH)
    result = learn(run, two_classes, algorithm)
    models, mine, count = as_published(
        result, gradient, two_classes(64, D - 1), steps, P, tau, alpha, pattern
    )
    same(result.models, models)
    states = [state["w"] for state in result.snapshot["workers"]]
    if tau == 0:  # the transcription has merged the last fragment already
        last = coordinates(P, pattern)[(ROUNDS - 1) % P]
        mine = [w.copy() for w in mine]
        for w, state in zip(mine, states, strict=True):
            w[last] = state[last]
    same(states, mine)
    assert count.max() - count.min() <= 1


@pytest.mark.parametrize(
    ("change", "least"),
    [({"tau": 0}, 1e-4), ({"tau": 2}, 1e-4), ({"alpha": 0.0}, 1e-4), ({"flat": True}, 1e-4),
     ({"pattern": "strided"}, 1e-4)],
)  # fmt: skip
def test_another_delay_mixture_cut_or_a_shared_buffer_is_noticed(
    run, two_classes, gradient, apart, change, least
):
    algorithm = streaming_diloco(9, 3, 1, 0.5, "sequential", OUTER, SGD(0.3), BATCH)
    result = learn(run, two_classes, algorithm)
    options = {"steps": 9, "P": 3, "tau": 1, "alpha": 0.5, "pattern": "sequential", **change}
    wrong, _, _ = as_published(result, gradient, two_classes(64, D - 1), **options)
    assert apart(result.models, wrong) > least


@pytest.mark.parametrize("tau", [0, 2])
def test_workers_that_mix_nothing_in_never_communicate(run, two_classes, local_sgd, same, tau):
    data = two_classes(64, D - 1)
    algorithm = streaming_diloco(6, 2, tau, 1.0, optimizer=SGD(0.3), batch=BATCH)
    result = learn(run, two_classes, algorithm)
    for k, state in enumerate(result.snapshot["workers"]):
        rows = [result.job.source.batch(k, t, BATCH).rows for t in range(3 * ROUNDS)]
        same(state["w"], local_sgd(result.w0, data, rows, 0.3, 0.01))


@pytest.mark.parametrize("pattern", ["sequential", "strided"])
@pytest.mark.parametrize("count", [1, 2, 5, D])
def test_fragments_cover_every_coordinate_once(count, pattern):
    cut, seen = Fragments(count, pattern), np.zeros(D, dtype=int)
    for p in range(count):
        seen[cut.part(p, D)] += 1
        assert cut.part(p, D) == cut.part(p + count, D)
        assert np.arange(D)[cut.part(p, D)].tolist() == coordinates(count, pattern)[p]
    assert (seen == 1).all()


@pytest.mark.parametrize("pattern", ["sequential", "strided"])
def test_a_round_moves_the_fragment_that_is_due_and_no_other(run, two_classes, pattern):
    algorithm = streaming_diloco(6, 3, 1, 0.5, pattern, OUTER, SGD(0.3), BATCH)
    result = learn(run, two_classes, algorithm)
    before = result.w0
    for n, model in enumerate(result.models):
        assert np.flatnonzero(model != before).tolist() == coordinates(3, pattern)[n % 3]
        before = model


def test_every_fragment_has_an_outer_state_of_its_own_that_is_kept(run, two_classes):
    algorithm = streaming_diloco(6, 3, 1, 0.5, "sequential", OUTER, SGD(0.3), BATCH)
    result = learn(run, two_classes, algorithm)
    for n, (old, new) in enumerate(zip(result.servers, result.servers[1:], strict=False), 1):
        changed = [
            (a["v"] != b["v"]).any()
            for a, b in zip(old["optimizers"], new["optimizers"], strict=True)
        ]
        assert changed == [p == n % 3 for p in range(3)]
    kept = result.snapshot["server"]["optimizers"]
    assert [memory["v"].size for memory in kept] == [2, 2, 3]


def test_messages_are_as_many_times_smaller_as_there_are_fragments(run, two_classes):
    P, steps = 7, 14
    stream = streaming_diloco(steps, P, 1, 0.5, optimizer=SGD(0.3), batch=BATCH)
    ours = learn(run, two_classes, stream, rounds=P).ledger
    whole = learn(run, two_classes, diloco(steps, optimizer=SGD(0.3), batch=BATCH), rounds=1).ledger
    assert ours.local_steps == whole.local_steps == steps * WORKERS
    weights = 8 * WORKERS
    assert ours.bytes_up - P * weights == whole.bytes_up - weights
    assert ours.bytes_up / P < whole.bytes_up / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 10, "fragments": 3}, "steps = 10 must be a multiple of fragments = 3"),
        ({"steps": 6, "fragments": 3, "delay": 2}, "delay of 2 steps is no shorter than the 2"),
        ({"mix": 1.5}, "mix should be less than or equal to 1"),
        ({"fragments": 0}, "count should be greater than or equal to 1"),
        ({"pattern": "zigzag"}, "pattern"),
    ],
)
def test_impossible_cuts_and_delays_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        streaming_diloco(**options)


def test_more_fragments_than_weights_are_refused(two_classes):
    with pytest.raises(OptionError, match="4 weights cannot be cut into 5 fragments"):
        fit(streaming_diloco(), "logistic", two_classes(64), rounds=1)


def test_groups_that_would_not_begin_at_their_model_are_refused():
    with pytest.raises(OptionError, match="streaming-diloco cannot work inside groups"):
        hybrid(inner=streaming_diloco(batch=BATCH))
    assert hybrid(inner=diloco(batch=BATCH), rounds=2).communicate.inside.rounds == 2

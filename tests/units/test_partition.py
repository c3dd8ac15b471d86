"""Who holds which samples, and in which order they are drawn."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemiola.algorithm import MiniBatch
from hemiola.data.streams import LogisticStream
from hemiola.errors import DataError, OptionError
from hemiola.partition import (
    ByLabel,
    Contiguous,
    Dirichlet,
    Online,
    RandomSampling,
    Shards,
    ShuffleSplit,
    Whole,
)
from hemiola.rng import stream

DISJOINT = [ShuffleSplit(), Contiguous(), ByLabel(1), ByLabel(2), Dirichlet(0.1), Dirichlet(10.0)]
DRAWS = ["shuffled", "replacement", "bernoulli"]


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.data())
def test_disjoint_partitions_deal_every_sample_once(n, data):
    workers = data.draw(st.integers(1, n))
    y = rng(n).integers(0, 3, n)
    for partition in DISJOINT:
        if isinstance(partition, ByLabel) and n < workers * partition.pieces:
            continue
        shards = partition.split(y, workers, rng(1))
        assert len(shards) == workers
        assert sorted(np.concatenate(shards).tolist()) == list(range(n))
        assert all(len(shard) for shard in shards)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.data())
def test_even_partitions_differ_by_one_sample_at_most(n, data):
    workers = data.draw(st.integers(1, n))
    for partition in (ShuffleSplit(), Contiguous()):
        sizes = [len(shard) for shard in partition.split(np.zeros(n), workers, rng())]
        assert max(sizes) - min(sizes) <= 1


def test_the_permutation_does_not_depend_on_the_number_of_workers():
    orders = [
        np.concatenate(ShuffleSplit().split(np.zeros(50), workers, rng())) for workers in (1, 3, 7)
    ]
    assert all((order == orders[0]).all() for order in orders)
    assert (orders[0] != np.arange(50)).any()


def test_a_contiguous_cut_keeps_the_order():
    shards = Contiguous().split(np.zeros(7), 3, rng())
    assert [shard.tolist() for shard in shards] == [[0, 1, 2], [3, 4], [5, 6]]


def test_dealing_by_label_gives_a_worker_few_labels():
    y = rng().permutation(np.repeat(np.arange(10), 20))
    for pieces in (1, 2, 3):
        shards = ByLabel(pieces).split(y, 10, rng(1))
        assert all(len(np.unique(y[shard])) <= 2 * pieces for shard in shards)
        assert np.mean([len(np.unique(y[shard])) for shard in shards]) < 2 * pieces
    exactly = ByLabel(2).split(y, 5, rng(1))  # ten pieces, a label each
    assert [len(np.unique(y[shard])) for shard in exactly] == [2] * 5


def test_dealing_by_label_needs_a_sample_a_piece():
    with pytest.raises(DataError, match="7 samples cannot be cut into 8 pieces; use fewer"):
        ByLabel(2).split(np.zeros(7), 4, rng())


def skew(y, shards):
    """Mean over the workers of the share of their commonest label."""
    return np.mean([np.bincount(y[shard]).max() / len(shard) for shard in shards])


def test_dirichlet_goes_from_one_label_a_worker_to_all_alike():
    y = np.repeat(np.arange(5), 400)
    skews = [skew(y, Dirichlet(alpha).split(y, 5, rng(2))) for alpha in (1e-3, 0.5, 1e4)]
    assert skews[0] > 0.85
    assert skews[0] > skews[1] > skews[2]
    assert skews[2] < 0.22


def test_dirichlet_leaves_no_worker_empty():
    y = np.repeat([0, 1], 10)
    for seed in range(20):
        shards = Dirichlet(1e-3).split(y, 15, rng(seed))
        assert min(map(len, shards)) >= 1
        assert sorted(np.concatenate(shards).tolist()) == list(range(20))


def test_random_sampling_has_the_capacities_that_were_asked_for():
    y = np.zeros(100)
    assert [len(s) for s in RandomSampling().split(y, 3, rng())] == [34, 34, 34]
    assert [len(s) for s in RandomSampling(7).split(y, 3, rng())] == [7, 7, 7]
    assert [len(s) for s in RandomSampling((1, 500, 3)).split(y, 3, rng())] == [1, 500, 3]
    with pytest.raises(DataError, match="capacity names 2 workers, but there are 3"):
        RandomSampling((1, 2)).split(y, 3, rng())


def test_random_sampling_leaves_one_in_e_samples_unused():
    n = 20_000
    drawn = np.concatenate(RandomSampling().split(np.zeros(n), 4, rng()))
    assert len(drawn) == n
    assert 1 - len(np.unique(drawn)) / n == pytest.approx(math.exp(-1), abs=0.01)


def test_the_whole_is_everything_for_everyone():
    assert [s.tolist() for s in Whole().split(np.zeros(4), 3, rng())] == [[0, 1, 2, 3]] * 3


def epochs_of(source, worker, mini_batch, count):
    """The samples of each of the first epochs, in the order in which they were drawn."""
    steps = source.steps_per_epoch(worker, mini_batch)
    return [
        np.concatenate(
            [source.batch(worker, t, mini_batch).rows for t in range(e * steps, (e + 1) * steps)]
        )
        for e in range(count)
    ]


@pytest.mark.parametrize("partition", [*DISJOINT, RandomSampling(), RandomSampling((5, 9, 40))])
@pytest.mark.parametrize("size", [1, 4, 0.3, None, 1000])
def test_an_epoch_has_every_sample_of_the_shard_once(two_classes, partition, size):
    source = Shards(two_classes(50), partition, 3, 7)
    for worker in range(3):
        shard = np.sort(source.shard(worker))
        assert source.samples(worker) == len(shard)
        for drawn in epochs_of(source, worker, MiniBatch(size), 3):
            np.testing.assert_array_equal(np.sort(drawn), shard)


def test_every_epoch_has_an_order_of_its_own(two_classes):
    source = Shards(two_classes(50), ShuffleSplit(), 2, 0)
    orders = [tuple(o) for worker in range(2) for o in epochs_of(source, worker, MiniBatch(4), 6)]
    assert len(set(orders)) == 12


def test_the_order_does_not_depend_on_the_batch_size(two_classes):
    source = Shards(two_classes(50), ShuffleSplit(), 2, 0)
    for small, large in zip(
        epochs_of(source, 1, MiniBatch(3), 4), epochs_of(source, 1, MiniBatch(7), 4), strict=True
    ):
        np.testing.assert_array_equal(small, large)


def test_a_shard_stays_the_same_set_until_the_next_global_reshuffle(two_classes):
    source = Shards(two_classes(60), ShuffleSplit(reshuffle_every=3), 3, 0)
    sets = [frozenset(drawn.tolist()) for drawn in epochs_of(source, 1, MiniBatch(5), 9)]
    assert sets[0] == sets[1] == sets[2]
    assert sets[3] == sets[4] == sets[5]
    assert len({sets[0], sets[3], sets[6]}) == 3
    for epoch in range(9):
        dealt = np.concatenate([source.shard(k, epoch) for k in range(3)])
        assert sorted(dealt.tolist()) == list(range(60))


@pytest.mark.parametrize(
    "partition",
    [ShuffleSplit(1), RandomSampling(None, 1), RandomSampling((9, 30, 4, 11), 1), Contiguous(1),
     Whole(1), ByLabel(2, 1), ByLabel(3, 1), Dirichlet(0.5, 1), Dirichlet(0.1, 2)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 4, None])
def test_a_shard_that_is_dealt_anew_is_drawn_completely_before_the_next(
    two_classes, partition, size
):
    """The draws are epoch after epoch: each a permutation of that epoch's shard."""
    source, mini_batch = Shards(two_classes(63), partition, 4, 2), MiniBatch(size)
    for worker in range(4):
        expected = [np.sort(source.shard(worker, epoch)) for epoch in range(4)]
        drawn, t = [], 0
        while len(drawn) < sum(map(len, expected)):
            drawn += source.batch(worker, t, mini_batch).rows.tolist()
            t += 1
        for shard in expected:
            found, drawn = drawn[: len(shard)], drawn[len(shard) :]
            np.testing.assert_array_equal(np.sort(found), shard)


def test_a_resumed_run_does_not_shuffle_again_what_lies_behind_it(two_classes, monkeypatch):
    mini_batch, far = MiniBatch(5), 4000
    expected = Shards(two_classes(), ShuffleSplit(), 4, 0)
    rows = [expected.batch(0, t, mini_batch).rows for t in range(far + 1)][-1]
    shuffled = []

    def counting(*address):
        shuffled.append(address)
        return stream(*address)

    resumed = Shards(two_classes(), ShuffleSplit(), 4, 0)
    monkeypatch.setattr("hemiola.partition.sources.stream", counting)
    np.testing.assert_array_equal(resumed.batch(0, far, mini_batch).rows, rows)
    assert len(shuffled) <= 3


@pytest.mark.parametrize("draw", ["replacement", "bernoulli"])
@pytest.mark.parametrize("partition", [ShuffleSplit(1), Dirichlet(0.3, 1), ByLabel(3, 1)], ids=str)
def test_independent_draws_come_from_a_shard_of_the_worker(two_classes, partition, draw):
    source = Shards(two_classes(63), partition, 4, 2)
    for worker in range(4):
        held = [set(source.shard(worker, e).tolist()) for e in range(70)]
        for t in range(60):
            rows = set(source.batch(worker, t, MiniBatch(0.3, draw)).rows.tolist())
            assert any(rows <= shard for shard in held)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("partition", [ShuffleSplit(2), Dirichlet(0.5), Whole()], ids=str)
def test_a_batch_is_a_pure_function_of_seed_worker_and_step(two_classes, partition, draw):
    data, mini_batch = two_classes(60), MiniBatch(4, draw)
    one, other = (Shards(data, partition, 3, 9) for _ in range(2))
    places = [(k, t) for k in range(3) for t in range(40)]
    there = {place: one.batch(*place, mini_batch).rows for place in places}
    for i in rng(3).permutation(len(places)):
        np.testing.assert_array_equal(other.batch(*places[i], mini_batch).rows, there[places[i]])


def test_asking_for_another_batch_size_in_between_changes_nothing(two_classes):
    data = two_classes(60)
    fresh, used = (Shards(data, ShuffleSplit(), 2, 0) for _ in range(2))
    for t in range(12):
        used.batch(1, t, MiniBatch(None))
        used.batch(1, 3 * t, MiniBatch(5, "replacement"))
        np.testing.assert_array_equal(
            used.batch(1, t, MiniBatch(4)).rows, fresh.batch(1, t, MiniBatch(4)).rows
        )


@pytest.mark.parametrize("draw", DRAWS)
def test_workers_seeds_and_steps_draw_differently(two_classes, draw):
    data, mini_batch = two_classes(400), MiniBatch(40, draw)
    drawn = {
        tuple(Shards(data, Whole(), 3, seed).batch(k, t, mini_batch).rows.tolist())
        for seed in range(3)
        for k in range(3)
        for t in range(5)
    }
    assert len(drawn) == 45


def test_a_bernoulli_batch_has_its_size_on_average_only(two_classes):
    source = Shards(two_classes(200), ShuffleSplit(), 2, 0)
    sizes = [len(source.batch(0, t, MiniBatch(0.1, "bernoulli"))) for t in range(3000)]
    assert np.mean(sizes) == pytest.approx(10, abs=0.25)
    assert np.var(sizes) == pytest.approx(9, rel=0.15)
    for t in range(50):
        rows = source.batch(0, t, MiniBatch(30, "bernoulli")).rows
        assert len(np.unique(rows)) == len(rows)


def test_drawing_with_replacement_repeats_samples(two_classes):
    source = Shards(two_classes(60), ShuffleSplit(), 2, 0)
    batches = [source.batch(0, t, MiniBatch(20, "replacement")).rows for t in range(300)]
    assert all(len(rows) == 20 for rows in batches)
    assert any(len(np.unique(rows)) < 20 for rows in batches)
    counts = np.bincount(np.concatenate(batches), minlength=60)
    assert set(np.flatnonzero(counts)) == set(source.shard(0).tolist())
    assert counts[counts > 0] == pytest.approx(200, rel=0.3)


def test_consecutive_steps_do_not_repeat_a_batch(two_classes):
    source = Shards(two_classes(60), ShuffleSplit(), 2, 0)
    for draw in DRAWS:
        batches = [source.batch(0, t, MiniBatch(5, draw)).rows.tolist() for t in range(30)]
        assert all(a != b for a, b in pairwise(batches))


def test_more_workers_than_samples_are_refused(two_classes):
    with pytest.raises(DataError, match=r"5 workers for 4 samples: .* use at most 4 workers"):
        Shards(two_classes(4), ShuffleSplit(), 5, 0)
    assert Shards(two_classes(4), ShuffleSplit(), 4, 0).samples(3) == 1


@pytest.mark.parametrize(
    ("mini_batch", "n", "count"),
    [
        (MiniBatch(0.1), 99, 10),
        (MiniBatch(0.1), 3, 1),
        (MiniBatch(32), 20, 20),
        (MiniBatch(32), 40, 32),
        (MiniBatch(None), 20, 20),
        (MiniBatch("7"), 20, 7),
    ],
)
def test_batch_sizes_are_counts_or_fractions(mini_batch, n, count):
    assert mini_batch.count(n) == count


@pytest.mark.parametrize("size", [0, -3, 0.0, -0.5, 1.5, "some"])
def test_impossible_batch_sizes_are_refused(size):
    with pytest.raises(OptionError, match="MiniBatch"):
        MiniBatch(size)


def test_impossible_partitions_are_refused():
    for make in (
        lambda: Dirichlet(0.0),
        lambda: ByLabel(0),
        lambda: RandomSampling(0),
        lambda: ShuffleSplit(0),
        lambda: MiniBatch(4, "sorted"),
    ):
        with pytest.raises(OptionError):
            make()


def test_online_draws_are_never_repeated():
    source = Online(LogisticStream(n_features=3), 5)
    seen = [source.batch(k, t, MiniBatch(8)) for k in range(4) for t in range(25)]
    rows = {tuple(row) for batch in seen for row in batch.data.X.tolist()}
    assert len(rows) == 4 * 25 * 8
    again = Online(LogisticStream(n_features=3), 5).batch(2, 7, MiniBatch(8))
    np.testing.assert_array_equal(again.data.X, seen[2 * 25 + 7].data.X)
    np.testing.assert_array_equal(again.data.y, seen[2 * 25 + 7].data.y)
    held_out = LogisticStream(n_features=3).draw(stream(5, "evaluation"), 100).X
    assert not rows & {tuple(row) for row in held_out.tolist()}


def test_online_workers_count_alike_and_a_batch_needs_a_count():
    source = Online(LogisticStream(n_features=3), 0)
    assert source.samples(0) == source.steps_per_epoch(0, MiniBatch(8)) == 1
    for size in (None, 0.1):
        with pytest.raises(DataError, match="give a count"):
            source.batch(0, 0, MiniBatch(size))

"""Figures of histories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hemiola.errors import OptionError
from hemiola.history import History, Record
from hemiola.plots import check_extension, curve, plot_histories, plot_residuals, smooth


def history(seed: int, n: int = 30) -> History:
    rng = np.random.default_rng(seed)
    records = [
        Record(i, i, 4 * i, 0.1 * i, 1 / (1 + i) + 0.01 * rng.random(), 0.5, 0.9, 1, 1, 1, 0.0)
        for i in range(n)
    ]
    return History(records=records)


@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_figures_are_written_in_the_format_of_their_ending(tmp_path, ending, magic):
    path = tmp_path / f"figure.{ending}"
    plot_histories({"a": [history(0), history(1)], "b": [history(2)]}, path, "title")
    assert path.read_bytes().startswith(magic)


def test_an_unknown_ending_is_refused_by_name():
    with pytest.raises(OptionError, match=r"\.doc"):
        check_extension("figure.doc")


def test_several_runs_give_their_mean_and_standard_deviation():
    runs = [history(seed) for seed in range(3)]
    points = curve(runs, "rounds", "loss")
    losses = np.array([run.column("loss") for run in runs])
    np.testing.assert_allclose(points.y, losses.mean(axis=0), rtol=1e-12)
    assert points.sd.shape == points.y.shape and (points.sd >= 0).all()


def test_smoothing_keeps_a_constant_and_damps_noise():
    noise = np.random.default_rng(0).normal(size=300)
    np.testing.assert_allclose(smooth(np.ones(50)), 1.0)
    assert smooth(noise)[100:].std() < 0.5 * noise.std()


def test_runs_of_different_lengths_are_compared_where_all_have_points():
    points = curve([history(0, 30), history(1, 11)], "rounds", "loss")
    assert points.x[0] == 0 and points.x[-1] == 10
    assert len(points.x) == len(points.y) == len(points.sd)


def test_the_first_point_is_not_smoothed_into_the_others():
    y = np.array([100.0] + [1.0] * 99)
    np.testing.assert_allclose(smooth(y), y)


def test_a_single_record_and_many_labels_can_be_drawn(tmp_path):
    runs = {f"label {i}": [history(i, 1 + i % 2)] for i in range(12)}
    plot_histories({**runs, "none": [History()]}, tmp_path / "a.png", "title")
    assert (tmp_path / "a.png").stat().st_size


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(OptionError, match="nothing to draw"):
        plot_histories({"a": [History()]}, tmp_path / "a.png", "title")


def test_drawing_leaves_no_global_state(tmp_path):
    import matplotlib.pyplot as plt

    plot_histories({"a": [history(0)]}, tmp_path / "a.png", "title")
    assert plt.get_fignums() == []


def test_residuals_are_drawn_where_there_are_any(tmp_path):
    with pytest.raises(OptionError, match="no residuals to draw"):
        plot_residuals(history(0), tmp_path / "a.png", "title")
    measures = {"primal_allowed": 0.1, "dual_allowed": 0.2, "rho": 1.0}
    run = history(0)
    run.records[2:] = [
        replace(record, measures={**measures, "primal": 1 / (1 + i), "dual": 0.5**i})
        for i, record in enumerate(run.records[2:])
    ]
    plot_residuals(run, tmp_path / "a.png", "title")
    assert (tmp_path / "a.png").stat().st_size > 5000

"""Timelines: spans that cover a run, pictures of them, and traces for Perfetto."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

from hemiola.algorithm import MiniBatch
from hemiola.algorithms import asgd, fedavg, model_averaging, ssp
from hemiola.engines.simulator import Constant, LogNormal, LogNormalSpeed, Simulator
from hemiola.errors import OptionError
from hemiola.gantt import plot_timeline
from hemiola.job import Timeline
from hemiola.optim import SGD
from hemiola.replay import replay
from hemiola.timeline import KINDS, check_timeline, save_timeline, spans, trace_events
from hemiola.trace import load_trace
from hemiola.training import fit

BATCH = MiniBatch(4)
ALGORITHMS = [
    model_averaging(3, SGD(0.1), batch=BATCH),
    fedavg(0.5, 1, SGD(0.1), batch=BATCH),
    asgd(SGD(0.1), BATCH),
    ssp(1, optimizer=SGD(0.1), batch=BATCH),
]
UNEVEN = Simulator(LogNormal(1.0, 0.7), latency=0.2, speed=LogNormalSpeed(0.8))


def recorded(*pieces):
    """A timeline of pieces (worker, begun, computed, finished)."""
    timeline = Timeline()
    for piece in pieces:
        timeline.note(*piece)
    return timeline


def by_worker(events):
    """The complete events of each worker, by time."""
    rows = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            rows[event["tid"]].append(event)
    return {tid: sorted(row, key=lambda event: event["ts"]) for tid, row in rows.items()}


def test_a_piece_is_computed_in_the_middle_of_its_way():
    found = spans(recorded((0, 1.0, 2.0, 5.0)), workers=1, end=6.0)
    rows = zip(found.kinds, found.start, found.stop, strict=True)
    assert [(KINDS[kind], start, stop) for kind, start, stop in rows] == [
        ("communicate", 1.0, 2.0), ("compute", 2.0, 4.0), ("communicate", 4.0, 5.0),
        ("wait", 5.0, 6.0),
    ]  # fmt: skip


def test_the_gap_between_two_pieces_is_waiting_and_the_last_piece_may_be_unfinished():
    timeline = recorded((0, 0.0, 1.0, 1.0), (0, 3.0, 1.0, 4.0), (1, 0.0, 2.0, 2.0))
    timeline.begin(1, 3.0)
    found = spans(timeline, workers=3, end=6.0)
    assert found.seconds() == {"compute": 4.0, "wait": 2.0 + 2.0 + 1.0 + 6.0, "unfinished": 3.0}
    timeline.drop(1)
    assert spans(timeline, workers=3, end=6.0).seconds()["wait"] == 2.0 + 2.0 + 4.0 + 6.0


def test_work_that_nobody_measured_is_one_span():
    assert spans(recorded((0, 0.0, 0.0, 2.0)), workers=1, end=2.0).seconds() == {"work": 2.0}


def test_an_empty_timeline_has_only_waiting():
    assert spans(Timeline(), workers=2, end=3.0).seconds() == {"wait": 6.0}


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.name)
def test_the_spans_of_a_simulated_run_cover_it_without_overlap(two_classes, tmp_path, algorithm):
    file = tmp_path / "run.json"
    result = fit(
        algorithm, "logistic", two_classes(), engine=UNEVEN, workers=5, rounds=20, timeline=file
    )
    events = json.loads(file.read_text())
    rows, end = by_worker(events), result.history.last.seconds
    assert set(rows) == set(range(5))
    for row in rows.values():
        stops = [event["ts"] + event["dur"] for event in row]
        starts = [event["ts"] for event in row]
        assert starts[0] == 0.0
        np.testing.assert_allclose(starts[1:], stops[:-1], atol=2e-3)  # a nanosecond and rounding
        assert sum(event["dur"] for event in row) == pytest.approx(1e6 * end, rel=1e-9)
    waited = sum(e["dur"] for row in rows.values() for e in row if e["name"] == "wait") / 1e6
    kinds = {event["name"] for row in rows.values() for event in row}
    if algorithm.name == "model-averaging":
        assert kinds == {"compute", "communicate", "wait"}
        assert waited == pytest.approx(result.history.last.waiting, rel=1e-6)
    if algorithm.name == "asgd":
        assert kinds == {"compute", "communicate", "unfinished"}


def test_shares_are_those_of_the_virtual_clock(two_classes, tmp_path):
    file = tmp_path / "run.json"
    engine = Simulator(Constant(1.0), latency=0.25, slow_share=0.5, slow_factor=2.0)
    fit(ALGORITHMS[0], "logistic", two_classes(), engine=engine, workers=2, rounds=4, timeline=file)
    totals = defaultdict(float)
    for worker, row in by_worker(json.loads(file.read_text())).items():
        for event in row:
            totals[worker, event["name"]] += event["dur"] / 1e6
    assert totals == pytest.approx({
        (0, "compute"): 4 * 6.0, (0, "communicate"): 4 * 0.5,
        (1, "compute"): 4 * 3.0, (1, "communicate"): 4 * 0.5, (1, "wait"): 4 * 3.0,
    })  # fmt: skip


def test_events_name_groups_and_workers():
    timeline = recorded((0, 0.0, 1.0, 1.0), (1, 0.0, 1.0, 1.0), (2, 0.0, 1.0, 1.0))
    events = list(trace_events(spans(timeline, 3, 1.0), groups=[[0, 2], [1]]))
    names = {(e["name"], e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M"}
    assert names == {
        ("process_name", 0, 0): "group 0", ("process_name", 1, 0): "group 1",
        ("thread_name", 0, 0): "worker 0", ("thread_name", 1, 1): "worker 1",
        ("thread_name", 0, 2): "worker 2",
    }  # fmt: skip
    spans_ = [event for event in events if event["ph"] == "X"]
    assert [(event["pid"], event["tid"]) for event in spans_] == [(0, 0), (1, 1), (0, 2)]
    assert spans_[0] == {"name": "compute", "ph": "X", "ts": 0.0, "dur": 1e6, "pid": 0, "tid": 0}


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_timeline_is_drawn_in_the_format_of_its_ending(two_classes, tmp_path, ending, magic):
    file = tmp_path / f"run.{ending}"
    fit(ALGORITHMS[2], "logistic", two_classes(), engine=UNEVEN, workers=4, rounds=5, timeline=file)
    assert file.read_bytes().startswith(magic)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_many_workers_groups_and_a_window_can_be_drawn(tmp_path):
    pieces = [(k, float(n), 0.5, n + 0.9) for k in range(300) for n in range(40)]
    found = spans(recorded(*pieces), 300, 50.0)
    groups = [list(range(0, 300, 2)), list(range(1, 300, 2))]
    plot_timeline(found, tmp_path / "a.png", groups, "many", window=(3.0, 7.0))
    plot_timeline(spans(Timeline(), 0, 0.0), tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size and (tmp_path / "b.png").stat().st_size


def test_unknown_endings_are_refused_before_training(two_classes, tmp_path):
    with pytest.raises(OptionError, match=r"'\.doc'; use \.png, \.svg, \.pdf .* or \.json"):
        fit("asgd", "logistic", two_classes(), timeline=tmp_path / "run.doc")
    with pytest.raises(OptionError, match="without extension"):
        check_timeline("run")
    with pytest.raises(OptionError, match="json"):
        save_timeline(tmp_path / "run.doc", Timeline(), 1, 1.0)


@pytest.mark.parametrize("engine", ["serial", "threads", "processes"])
def test_real_engines_have_timelines_too(two_classes, tmp_path, engine):
    file = tmp_path / "run.json"
    result = fit(
        ALGORITHMS[2], "logistic", two_classes(), engine=engine, workers=2, rounds=30, timeline=file
    )
    for row in by_worker(json.loads(file.read_text())).values():
        for one, two in pairwise(row):
            assert one["ts"] + one["dur"] <= two["ts"] + 2e-3
        assert sum(event["dur"] for event in row) <= 1e6 * result.history.last.seconds * (1 + 1e-6)


def test_a_replay_has_the_recorded_times(two_classes, tmp_path):
    data, trace = two_classes(), tmp_path / "run.trace"
    files = [tmp_path / "first.json", tmp_path / "again.json"]
    fit(
        ALGORITHMS[2], "logistic", data, engine=UNEVEN, workers=4, rounds=10,
        trace=trace, timeline=files[0],
    )  # fmt: skip
    replay(load_trace(trace), data, timeline=files[1])
    first, again = (json.loads(file.read_text()) for file in files)
    assert first == again


def test_a_trace_without_compute_times_is_drawn_as_whole_pieces(two_classes, tmp_path):
    data, trace, file = two_classes(), tmp_path / "run.trace", tmp_path / "again.json"
    fit(ALGORITHMS[2], "logistic", data, engine=UNEVEN, workers=3, rounds=6, trace=trace)
    recorded_ = load_trace(trace)
    saved = recorded_.trace.snapshot()
    del saved["computed"]
    recorded_.trace.restore(saved)
    replay(recorded_, data, timeline=file)
    assert {e["name"] for e in json.loads(file.read_text()) if e["ph"] == "X"} == {
        "work", "unfinished",
    }  # fmt: skip


def test_a_resumed_run_has_the_timeline_of_its_own_part(two_classes, tmp_path):
    options = {"engine": UNEVEN, "workers": 3, "checkpoint": tmp_path / "kept", "eval_every": 1}
    first = fit(ALGORITHMS[2], "logistic", two_classes(), rounds=5, **options)
    file = tmp_path / "run.json"
    result = fit(
        ALGORITHMS[2], "logistic", two_classes(), rounds=9, resume=True, timeline=file, **options
    )
    for row in by_worker(json.loads(file.read_text())).values():
        assert row[0]["ts"] / 1e6 <= first.history.last.seconds + 1
        assert row[-1]["ts"] + row[-1]["dur"] == pytest.approx(1e6 * result.history.last.seconds)

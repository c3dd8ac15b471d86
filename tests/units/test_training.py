"""One run from its input to its result: stopping, keeping, failing and being interrupted."""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import asdict

import numpy as np
import pytest
from scipy import sparse

from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback, EarlyStopping, JsonLines, TargetLoss, TimeLimit
from hemiola.data.streams import LinearStream, LogisticStream
from hemiola.dataset import Batch, Dataset, make_dataset
from hemiola.engines.simulator import Constant, Simulator
from hemiola.errors import (
    DataError,
    DivergedError,
    HemiolaError,
    OptionError,
    TrainingInterrupted,
)
from hemiola.objectives import LinearObjective, logistic, squared
from hemiola.reference import pooled_optimum
from hemiola.result import Result
from hemiola.training import fit, make_objective

ENGINES = ["serial", "threads", "simulator"]


class Watching(Callback):
    """Remembers which hooks were called, and with what."""

    def __init__(self, name="it", log=None):
        self.name, self.log = name, [] if log is None else log
        self.models = []

    def on_start(self, job, updates):
        self.log.append((self.name, "start", updates))

    def on_update(self, event):
        self.log.append((self.name, "update", event.step))

    def on_record(self, record, model):
        self.log.append((self.name, "record", record.updates))
        self.models.append(model)

    def on_end(self):
        self.log.append((self.name, "end"))


class At(Callback):
    """Does something at one update."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_update(self, event):
        return self.action() if event.step == self.step else None


def interrupt():
    signal.raise_signal(signal.SIGINT)


# What a run consists of


def test_rounds_and_evaluations_are_as_many_as_asked_for(two_classes):
    history = fit("bmuf", "logistic", two_classes(), rounds=10, eval_every=4).history
    assert history.column("rounds").tolist() == [0, 4, 8, 10]
    assert history.column("updates").tolist() == [0, 4, 8, 10]
    assert history.last.local_steps == 10 * 10 * 4


def test_an_asynchronous_round_is_an_update_a_worker(two_classes):
    result = fit("asgd", "logistic", two_classes(), rounds=10, eval_every=5, workers=3)
    assert result.history.column("updates").tolist() == [0, 15, 30]
    assert result.history.column("rounds").tolist() == [0, 5, 10]
    assert result.history.worker_updates == [10, 10, 10]


def test_about_a_hundred_evaluations_by_default(two_classes):
    assert len(fit("ssgd", "logistic", two_classes(), rounds=730).history.records) == 106
    assert len(fit("ssgd", "logistic", two_classes(), rounds=7).history.records) == 8


def test_evaluating_more_often_does_not_change_the_run(two_classes):
    shas = {
        fit("asgd", "logistic", two_classes(), rounds=12, eval_every=e).model.sha256
        for e in (1, 5, None)
    }
    assert len(shas) == 1


def test_a_longer_run_begins_like_a_shorter_one(two_classes):
    short, long = (
        fit("bmuf", "logistic", two_classes(), rounds=rounds, eval_every=1, engine="simulator")
        for rounds in (5, 9)
    )
    assert short.history.records == long.history.records[:6]


def test_records_say_what_the_model_does_on_the_data(two_classes):
    data, held_out = two_classes(60), two_classes(30, seed=9)
    result = fit("bmuf", "logistic", data, rounds=8, eval_data=held_out)
    objective, last = logistic(1 / 60), result.history.last
    assert last.loss == objective.value(result.weights, Batch(data))
    assert last.eval_loss == objective.value(result.weights, Batch(held_out))
    assert last.score == (objective.predict(result.weights, held_out.X) == held_out.y).mean()
    assert result.history.metric == "accuracy"


def test_a_regression_is_scored_by_its_explained_variance(line):
    data = line(80)
    result = fit("ssgd", "squared", data, rounds=100)
    rest = np.square(data.y - result.model.predict(data.X)).sum()
    total = np.square(data.y - data.y.mean()).sum()
    assert result.history.metric == "r2"
    assert result.history.last.score == pytest.approx(1 - rest / total)
    assert result.history.last.score > 0.4


@pytest.mark.parametrize("name", ["ssgd", "model-averaging", "bmuf", "asgd"])
def test_training_comes_close_to_the_pooled_optimum(two_classes, name):
    data, objective = two_classes(120), logistic(0.05)
    best = pooled_optimum(objective, data)[1]
    result = fit(build(name, {"batch_size": 0.5}), objective, data, rounds=150, keep_best=True)
    assert best - 1e-9 <= objective.value(result.weights, Batch(data)) < best + 0.01


def test_labels_come_back_as_they_were():
    X = np.array([[1.0], [2.0], [-1.0], [-2.0]])
    for labels in (["yes", "yes", "no", "no"], [5, 5, -3, -3], [True, True, False, False]):
        result = fit("ssgd", "auto", (X, labels), rounds=50, workers=2)
        assert result.model.predict(X).tolist() == labels


@pytest.mark.parametrize("kind", [str, object])
def test_a_saved_result_is_the_same_model(two_classes, tmp_path, kind):
    data = two_classes()
    y = np.array(["no", "yes"], dtype=kind)[data.y]
    result = fit("bmuf", "logistic", (data.X, y), rounds=3)
    result.save(tmp_path / "model.npz")
    loaded = Result.load(tmp_path / "model.npz")
    assert loaded.model.sha256 == result.model.sha256
    assert loaded.model.predict(data.X).tolist() == result.model.predict(data.X).tolist()
    assert loaded.history == result.history
    assert (loaded.settings, loaded.stopped) == (result.settings, result.stopped)


def test_the_objective_follows_from_the_targets(two_classes, line):
    assert make_objective("auto", two_classes()) == logistic(1 / 60)
    assert make_objective("auto", line()) == squared(1 / 60)
    three = make_dataset(np.eye(3), [0, 1, 2])
    assert make_objective("auto", three).loss == "softmax"
    assert make_objective("logistic", three).loss == "softmax"
    assert make_objective("hinge", two_classes(), l2=0.0) == LinearObjective("hinge")


def test_a_pair_of_arrays_is_as_good_as_a_data_set(two_classes):
    data = two_classes()
    one, other = (fit("bmuf", "logistic", given, rounds=3) for given in (data, (data.X, data.y)))
    assert one.model.sha256 == other.model.sha256


@pytest.mark.parametrize("objective", ["squared", squared(1 / 60)], ids=["name", "object"])
def test_a_pair_with_real_targets_is_a_regression_under_squared_loss(line, objective):
    data = line(60)
    one, other = (fit("ssgd", objective, given, rounds=40) for given in (data, (data.X, data.y)))
    assert one.model.sha256 == other.model.sha256
    assert other.history.metric == "r2"
    np.testing.assert_array_equal(other.model.predict(data.X), one.model.predict(data.X))


def test_squared_loss_on_class_numbers_predicts_numbers(two_classes):
    """Whole numbers as targets of a squared loss are numbers, not names."""
    data = two_classes(60)
    y = 10.0 * data.y + 5.0
    result = fit("ssgd", "squared", (data.X, y), rounds=200)
    predicted = result.model.predict(data.X)
    assert predicted.dtype.kind == "f"
    assert np.square(predicted - y).mean() < np.square(y - y.mean()).mean()


@pytest.mark.parametrize("stream", [LogisticStream(n_features=4), LinearStream(n_features=4)])
@pytest.mark.parametrize("engine", ENGINES)
def test_learning_online(stream, engine):
    algorithm = build("bmuf", {"batch_size": 8, "steps": 5})
    result = fit(algorithm, "auto", stream, rounds=60, engine=engine)
    assert result.history.last.loss < 0.8 * result.history.records[0].loss
    assert result.model.sha256 == fit(algorithm, "auto", stream, rounds=60).model.sha256


def test_learning_online_needs_a_count_of_samples():
    with pytest.raises(DataError, match="give a count"):
        fit("ssgd", "auto", LogisticStream(n_features=4), rounds=2)


def test_a_run_may_start_elsewhere(two_classes):
    data = two_classes()
    first = fit("ssgd", "logistic", data, rounds=20)
    second = fit("ssgd", "logistic", data, rounds=1, w0=first.weights)
    assert second.history.records[0].loss == first.history.last.loss


def test_the_data_are_not_changed(two_classes):
    for csr in (False, True):
        data, same = two_classes(csr=csr), two_classes(csr=csr)
        fit("bmuf", "logistic", data, rounds=3)
        assert (data.X != same.X).sum() == 0 and (data.y == same.y).all()


# Stopping


def test_a_run_stops_when_it_reaches_its_target(two_classes):
    whole = fit("bmuf", "logistic", two_classes(), rounds=50, eval_every=1)
    losses = whole.history.column("loss")
    target = (losses[0] + losses.min()) / 2
    result = fit(
        "bmuf", "logistic", two_classes(), rounds=50, eval_every=1, callbacks=[TargetLoss(target)]
    )
    first = int(np.flatnonzero(losses <= target)[0])
    assert result.history.last.rounds == first
    assert result.stopped == f"the training loss reached the target {target:g}"


def test_a_run_stops_when_its_time_is_over(two_classes):
    result = fit(
        "ssgd",
        "logistic",
        two_classes(),
        rounds=50,
        engine=Simulator(Constant(2.0)),
        callbacks=[TimeLimit(9.0)],
    )
    assert result.history.last.seconds == 10.0
    assert result.history.last.rounds == 5
    assert result.stopped == "the time limit of 9 s was reached"


def test_a_run_stops_when_it_no_longer_improves(two_classes):
    data = two_classes()
    result = fit(
        build("ssgd", {"batch_size": "all"}),
        "logistic",
        data,
        rounds=5000,
        eval_every=1,
        callbacks=[EarlyStopping(patience=4, min_delta=1e-4)],
    )
    losses = result.history.column("eval_loss")
    assert result.stopped == "the evaluation loss has not improved for 4 evaluations"
    assert 10 < len(losses) < 4000
    assert losses[-5] - losses[-1] < 1e-3
    assert (-np.diff(losses[:-5]) > 0).all()


def test_patience_counts_evaluations_in_a_row(two_classes):
    stopping = EarlyStopping(patience=3)
    record = fit("ssgd", "logistic", two_classes(), rounds=1).history.last
    losses = [5, 4, 4, 4, 3, 3, 3, 3]
    answers = [
        stopping.on_record(type(record)(**{**asdict(record), "eval_loss": float(loss)}), None)
        for loss in losses
    ]
    assert [answer is None for answer in answers] == [True] * 7 + [False]


def test_stopping_between_evaluations_evaluates_once_more(two_classes):
    result = fit(
        "ssgd",
        "logistic",
        two_classes(),
        rounds=50,
        eval_every=10,
        callbacks=[At(13, lambda: "enough")],
    )
    assert result.stopped == "enough"
    assert result.history.column("rounds").tolist() == [0, 10, 13]


def test_all_rounds_were_done(two_classes):
    assert fit("ssgd", "logistic", two_classes(), rounds=3).stopped == "all rounds were done"


def test_callbacks_are_called_in_order(two_classes):
    log = []
    first, second = Watching("first", log), Watching("second", log)
    fit("asgd", "logistic", two_classes(), rounds=1, workers=2, callbacks=[first, second])
    names = ["first", "second"]
    assert log == [
        *[(name, "start", 2) for name in names],
        *[(name, "update", 1) for name in names],
        *[(name, "update", 2) for name in names],
        *[(name, "record", 2) for name in names],
        ("second", "end"),
        ("first", "end"),
    ]


def test_callbacks_end_when_the_run_fails(two_classes):
    watching = Watching()

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fit("ssgd", "logistic", two_classes(), callbacks=[watching, At(3, fail)])
    assert watching.log[-1] == ("it", "end")
    assert ("it", "update", 3) in watching.log and ("it", "update", 4) not in watching.log


@pytest.mark.parametrize("name", ["ssgd", "bmuf", "easgd", "asgd", "fedavg"])
def test_models_given_to_callbacks_are_read_only_and_stay_valid(two_classes, name):
    watching = Watching()
    result = fit(name, "logistic", two_classes(), rounds=6, eval_every=1, callbacks=[watching])
    losses = [logistic(1 / 60).value(w, Batch(two_classes())) for w in watching.models]
    assert losses == result.history.column("loss")[1:].tolist()
    assert not any(w.flags.writeable for w in watching.models)


def test_every_evaluation_is_a_line_of_json(two_classes, tmp_path):
    path = tmp_path / "log.jsonl"
    result = fit("bmuf", "logistic", two_classes(), rounds=5, callbacks=[JsonLines(path)])
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert lines == [asdict(record) for record in result.history.records[1:]]
    with pytest.raises(DataError, match="cannot write"):
        fit("bmuf", "logistic", two_classes(), rounds=5, callbacks=[JsonLines(tmp_path)])


@pytest.mark.parametrize("name", ["bmuf", "asgd"])
def test_the_lines_of_a_resumed_run_go_on_after_those_of_its_checkpoint(
    two_classes, tmp_path, name
):
    path, place = tmp_path / "log.jsonl", tmp_path / "run"
    options = {"eval_every": 1, "checkpoint": place, "callbacks": [JsonLines(path)]}
    fit(name, "logistic", two_classes(), rounds=3, **options)
    earlier = path.read_text()
    path.write_text(earlier + '{"rounds": 4.0, "upd')  # written after the last checkpoint
    result = fit(name, "logistic", two_classes(), rounds=6, resume=True, **options)
    assert path.read_text().startswith(earlier)
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert lines == [asdict(record) for record in result.history.records[1:]]
    assert [line["rounds"] for line in lines] == [1, 2, 3, 4, 5, 6]

    fit(name, "logistic", two_classes(), rounds=6, resume=True, **options)
    assert [json.loads(text) for text in path.read_text().splitlines()] == lines


def test_the_best_model_is_kept(two_classes):
    data, held_out = two_classes(), two_classes(200, seed=4)
    algorithm = build("ssgd", {"lr": 8.0, "batch_size": 1})
    options = {"rounds": 60, "eval_every": 1, "eval_data": held_out}
    last, best = (
        fit(algorithm, "logistic", data, keep_best=keep, **options) for keep in (False, True)
    )
    losses = last.history.column("eval_loss")
    assert losses.argmin() != len(losses) - 1
    value = logistic(1 / 60).value(best.weights, Batch(held_out))
    assert value == losses.min()
    assert logistic(1 / 60).value(last.weights, Batch(held_out)) == losses[-1]


def test_the_best_model_is_the_best_on_the_evaluation_data(two_classes):
    data = two_classes()
    contrary = make_dataset(data.X, 1 - data.y)
    options = {"rounds": 30, "eval_every": 1, "eval_data": contrary, "keep_best": True}
    result = fit(build("ssgd", {"batch_size": "all"}), "logistic", data, **options)
    assert (np.diff(result.history.column("loss")) < 0).all()
    assert result.history.column("eval_loss").argmin() == 0
    assert (result.weights == 0).all()


def test_the_start_may_be_the_best(two_classes):
    data = two_classes()
    best = pooled_optimum(logistic(1 / 60), data)[0]
    algorithm = build("ssgd", {"lr": 5.0, "batch_size": 1})
    result = fit(algorithm, "logistic", data, rounds=9, keep_best=True, w0=best)
    np.testing.assert_array_equal(result.weights, best)


# Failing


def test_a_diverging_run_fails_with_the_last_good_weights(line):
    data = line(60)
    algorithm = build("ssgd", {"lr": 30.0, "batch_size": "all"})
    with pytest.raises(DivergedError) as caught:
        fit(algorithm, "squared", data, rounds=2000, eval_every=1)
    message, result = str(caught.value), caught.value.result
    assert "training diverged by round" in message and "learning rate 30:" in message
    assert "ten times smaller" in message
    assert result.stopped == "diverged"
    assert np.isfinite(result.weights).all()
    last = result.history.last
    assert squared(1 / 60).value(result.weights, Batch(data)) == last.loss
    assert np.isfinite(last.loss)


def test_a_diverging_run_can_return_its_best_weights(line):
    algorithm = build("ssgd", {"lr": 30.0, "batch_size": "all"})
    with pytest.raises(DivergedError) as caught:
        fit(algorithm, "squared", line(60), rounds=2000, keep_best=True)
    result = caught.value.result
    assert (result.weights == 0).all()
    assert result.history.records[0].loss == result.history.column("eval_loss").min()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["ssgd", "bmuf", "asgd", "easgd"])
def test_divergence_is_noticed_everywhere(line, engine, name):
    algorithm = build(name, {"lr": 1e6})
    with pytest.raises(DivergedError):
        fit(algorithm, "squared", line(60), rounds=300, engine=engine)
    assert not [t for t in threading.enumerate() if t.name.startswith("hemiola")]


def test_a_diverged_run_leaves_its_last_good_checkpoint(line, tmp_path):
    algorithm = build("ssgd", {"lr": 3.0, "batch_size": "all"})
    options = {"eval_every": 1, "checkpoint": tmp_path}
    with pytest.raises(DivergedError) as caught:
        fit(algorithm, "squared", line(60), rounds=500, **options)
    good = caught.value.result.history.last.rounds
    assert good >= 1
    resumed = fit(algorithm, "squared", line(60), rounds=int(good), resume=True, **options)
    assert resumed.model.sha256 == caught.value.result.model.sha256


@pytest.mark.parametrize("w0", [[np.nan] * 4, [np.inf] * 4, [0.0] * 3, ["a"] * 4, np.zeros((2, 2))])
def test_an_impossible_start_is_refused(two_classes, w0):
    with pytest.raises(OptionError, match="w0"):
        fit("ssgd", "logistic", two_classes(), w0=np.array(w0))


# Ctrl-C


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["bmuf", "asgd"])
def test_an_interrupted_run_keeps_its_model_and_can_be_resumed(two_classes, tmp_path, engine, name):
    data, options = two_classes(), {"engine": engine, "rounds": 12, "workers": 3, "eval_every": 4}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted) as caught:
        fit(name, "logistic", data, checkpoint=tmp_path, callbacks=[At(7, interrupt)], **options)
    assert signal.getsignal(signal.SIGINT) is before
    stopped = caught.value
    assert stopped.checkpoint == tmp_path
    assert stopped.result.stopped == "interrupted"
    last = stopped.result.history.last
    assert last.updates == 7
    assert str(stopped) == f"interrupted after round {last.rounds:g}"
    assert logistic(1 / 60).value(stopped.result.weights, Batch(data)) == last.loss

    resumed = fit(name, "logistic", data, checkpoint=tmp_path, resume=True, **options)
    assert resumed.history.last.rounds == 12
    if (name, engine) != ("asgd", "threads"):
        whole = fit(name, "logistic", data, **options)
        assert resumed.model.sha256 == whole.model.sha256
        assert resumed.history.last.loss == whole.history.last.loss


def test_an_interruption_is_a_keyboard_interrupt_without_a_checkpoint_too(two_classes):
    with pytest.raises(KeyboardInterrupt) as caught:
        fit("bmuf", "logistic", two_classes(), callbacks=[At(2, interrupt)])
    assert caught.value.checkpoint is None
    assert caught.value.result.history.last.rounds == 2


def test_the_second_interrupt_stops_at_once(two_classes):
    watching = Watching()

    def twice():
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt) as caught:
        fit("bmuf", "logistic", two_classes(), callbacks=[At(2, twice), watching])
    assert not isinstance(caught.value, TrainingInterrupted)
    assert watching.log[-1] == ("it", "end")
    assert ("it", "update", 2) not in watching.log


def test_an_interrupt_in_the_last_round_comes_too_late(two_classes):
    result = fit("bmuf", "logistic", two_classes(), rounds=5, callbacks=[At(5, interrupt)])
    assert result.stopped == "all rounds were done"


def test_a_run_in_another_thread_leaves_signals_alone(two_classes):
    found = []
    before = signal.getsignal(signal.SIGINT)

    def learn():
        found.append(fit("bmuf", "logistic", two_classes(), rounds=3))
        found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=learn)
    thread.start()
    thread.join()
    assert found[0].model.sha256 == fit("bmuf", "logistic", two_classes(), rounds=3).model.sha256
    assert found[1] is before


# Input that makes no sense


def bad(value, where="X"):
    X, y = np.ones((6, 2)), np.array([0.0, 1.0] * 3)
    (X if where == "X" else y)[(2, 1) if where == "X" else 3] = value
    return X, y


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("csr", [False, True], ids=["dense", "csr"])
def test_features_that_are_not_finite_are_refused(value, csr):
    X, y = bad(value)
    with pytest.raises(DataError, match=r"some features are NaN or infinite; drop those rows or"):
        fit("ssgd", "logistic", (sparse.csr_array(X) if csr else X, y))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_labels_that_are_not_finite_are_refused(value):
    with pytest.raises(DataError, match="some labels are NaN or infinite"):
        fit("ssgd", "logistic", bad(value, "y"))


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((4, 2)), [0, 1, 0], "4 rows but 3 labels; each row needs one label"),
        (np.ones(4), [0, 1, 0, 1], r"expected a table of samples and features, found shape \(4,\)"),
        (np.ones((0, 2)), [], r"found shape \(0, 2\)"),
        (np.ones((4, 0)), [0, 1, 0, 1], r"found shape \(4, 0\)"),
        ([["a", "b"], ["c", "d"]], [0, 1], "features must be numbers"),
        (np.ones((4, 2)), [1, 1, 1, 1], "all labels are 1; a classifier needs at least two"),
    ],
)
def test_tables_that_make_no_sense_are_refused(X, y, message):
    with pytest.raises(DataError, match=message):
        fit("ssgd", "logistic", (X, y))


def test_objectives_that_do_not_fit_the_labels_are_refused(two_classes, line):
    three = make_dataset(np.eye(6), [0, 1, 2] * 2)
    for objective, data, message in (
        (logistic(), three, "logistic loss tells two classes apart, the data have 3; use softmax"),
        ("hinge", three, "hinge loss tells two classes apart"),
        ("logistic", line(), "logistic loss needs classes"),
        ("softmax", line(), "softmax loss needs classes"),
        ("squared", make_dataset(np.eye(4), ["a", "b"] * 2), "squared loss needs numbers"),
    ):
        with pytest.raises(DataError, match=message):
            fit("ssgd", objective, data)


def test_evaluation_data_must_match(two_classes, line):
    with pytest.raises(DataError, match="evaluation data have 5 features, the training data 3"):
        fit("ssgd", "logistic", two_classes(), eval_data=two_classes(20, 5))
    other = make_dataset(two_classes().X, two_classes().y + 1)
    with pytest.raises(DataError, match="evaluation data have other classes"):
        fit("ssgd", "logistic", two_classes(), eval_data=other)


def test_more_workers_than_samples_are_refused(two_classes):
    with pytest.raises(DataError, match=r"80 workers for 60 samples: .*use at most 60 workers"):
        fit("ssgd", "logistic", two_classes(), workers=80)


@pytest.mark.parametrize("name", ["workers", "rounds", "eval_every"])
@pytest.mark.parametrize("value", [0, -2, 1.5, "4"])
def test_counts_must_be_whole_and_positive(two_classes, name, value):
    with pytest.raises(OptionError, match=f"{name} must be a whole number of at least 1, not"):
        fit("ssgd", "logistic", two_classes(), **{name: value})


@pytest.mark.parametrize("name", ["workers", "rounds", "eval_every"])
def test_counts_may_be_numpy_integers(two_classes, name):
    plain, numpy = (
        fit("ssgd", "logistic", two_classes(), **{"rounds": 3, name: value})
        for value in (3, np.int64(3))
    )
    assert plain.model.sha256 == numpy.model.sha256


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "1"])
def test_impossible_seeds_are_refused_in_words(two_classes, seed):
    with pytest.raises(OptionError, match="seed"):
        fit("ssgd", "logistic", two_classes(), rounds=1, seed=seed)


def test_unknown_names_are_answered_with_the_nearest(two_classes):
    with pytest.raises(OptionError, match="no algorithm 'bmfu'; did you mean 'bmuf'"):
        fit("bmfu", "logistic", two_classes())
    with pytest.raises(OptionError, match="no engine 'seriall'; did you mean 'serial'"):
        fit("bmuf", "logistic", two_classes(), engine="seriall")
    with pytest.raises(OptionError, match="loss"):
        fit("bmuf", "logistics", two_classes())


@pytest.mark.parametrize("y", [[0, 1] * 2, [0.5, 1.5, 2.5, 3.5]])
def test_every_refusal_is_one_kind_of_error(y):
    for X in (np.full((4, 1), np.nan), np.ones((3, 1)), "text"):
        with pytest.raises(HemiolaError):
            fit("ssgd", "auto", (X, y))


def test_one_feature_one_worker_and_one_round_are_enough():
    data = make_dataset([[1.0], [-1.0]], [1, 0])
    assert isinstance(data, Dataset)
    for name in ("ssgd", "bmuf", "easgd", "asgd", "fedavg"):
        assert fit(name, "logistic", data, workers=1, rounds=1).weights.shape == (2,)
        assert fit(name, "logistic", data, workers=2, rounds=1).weights.shape == (2,)

"""``hemiola train``: one algorithm, one run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hemiola.algorithm import AnyAlgorithm
from hemiola.callbacks import Callback, JsonLines
from hemiola.cli import groups, output
from hemiola.cli.groups import Announce
from hemiola.cli.progress import ProgressBar
from hemiola.cli.recipes import build_algorithms, may_stream, refuse_unsupported
from hemiola.cli.setup import Prepared, Setup, build_engine, count_rounds, prepare
from hemiola.contracts import Engine
from hemiola.errors import DivergedError, OptionError, TrainingInterrupted, WorkersLostError
from hemiola.plots import check_extension, plot_asynchrony, plot_histories, plot_residuals
from hemiola.result import Result
from hemiola.timeline import check_timeline
from hemiola.trace import TraceFile
from hemiola.training import fit


@dataclass(frozen=True)
class Run:
    """What ``train`` has beyond the common set-up."""

    algorithm: str
    options: Sequence[str]
    seed: int
    checkpoint: Path | None
    resume: bool
    json: Path | None
    log: Path | None
    plot: Path | None
    save: Path | None
    trace: Path | None
    timeline: Path | None
    staleness_plot: Path | None
    residual_plot: Path | None

    def check(self) -> None:
        """Everything that would fail after training fails here."""
        for picture in (self.plot, self.staleness_plot, self.residual_plot):
            if picture is not None:
                check_extension(picture)
        if self.timeline is not None:
            check_timeline(self.timeline)
        if self.resume and self.checkpoint is None:
            raise OptionError("--resume needs the directory to resume from: add --checkpoint DIR.")
        files = (self.json, self.log, self.plot, self.save, self.trace, self.timeline)
        output.check_places((*files, self.staleness_plot, self.residual_plot), (self.checkpoint,))

    def silent(self) -> Run:
        """The same without any files, for a process beside the one that writes them."""
        return replace(
            self, json=None, log=None, plot=None, save=None, trace=None, timeline=None,
            staleness_plot=None, residual_plot=None,
        )  # fmt: skip


def train(setup: Setup, run: Run) -> None:
    """Train, show and write what was asked for."""
    run.check()
    algorithms = build_algorithms([run.algorithm], run.options)
    setup = setup.with_engine(algorithms.values())
    engine = build_engine(setup.engine_name, setup.engine_options)
    leads = bool(getattr(engine, "leads", True))
    run = run if leads else run.silent()
    setup.befalling()
    refuse_unsupported(algorithms, engine)
    prepared = prepare(setup, from_disk=may_stream(algorithms[run.algorithm]))
    try:
        result = _fit(setup, run, algorithms[run.algorithm], engine, prepared)
    except DivergedError as error:
        saved = _rescued(error.result, run, prepared)
        raise DivergedError(_with_place(error, "The last good weights are in", saved)) from None
    except WorkersLostError as error:
        saved = _rescued(error.result, run, prepared)
        raise WorkersLostError(_with_place(error, "The model so far is in", saved)) from None
    except TrainingInterrupted as stop:
        saved = _rescued(stop.result, run, prepared)
        model = f"; the model so far is in {saved}" if saved else ""
        raise TrainingInterrupted(f"{stop}{model}; {_how_to_resume(run)}", stop.result) from None
    if leads:
        _report(_with_scaling(result, prepared), setup, run, prepared)


def _fit(
    setup: Setup, run: Run, algorithm: AnyAlgorithm, engine: Engine, prepared: Prepared
) -> Result:
    callbacks: list[Callback] = list(setup.callbacks())
    if getattr(engine, "leads", True):
        screen = output.console(stderr=str(run.json) == "-")
        callbacks = [Announce(screen), ProgressBar(run.algorithm), *callbacks]
    if run.log is not None:
        callbacks.append(JsonLines(run.log))
    return fit(
        algorithm,
        prepared.objective,
        prepared.train,
        engine=engine,
        workers=setup.workers,
        rounds=count_rounds(setup, algorithm, prepared.train),
        seed=run.seed,
        eval_data=prepared.test,
        eval_every=setup.eval_every,
        callbacks=callbacks,
        checkpoint=run.checkpoint,
        resume=run.resume,
        keep_best=setup.keep_best,
        faults=setup.befalling(),
        trace=None if run.trace is None else TraceFile(run.trace, setup.origin()),
        timeline=run.timeline,
    )


def _with_scaling(result: Result, prepared: Prepared) -> Result:
    """The result with a model that takes raw features."""
    return replace(result, model=replace(result.model, standardizer=prepared.standardizer))


def _rescued(result: object, run: Run, prepared: Prepared) -> Path | None:
    """Save what there is of a run that did not end well, if models are saved at all."""
    if run.save is None or not isinstance(result, Result):
        return None
    _with_scaling(result, prepared).save(run.save)
    return run.save


def _with_place(error: Exception, what: str, saved: Path | None) -> str:
    return f"{error} {what} {saved}." if saved else str(error)


def _how_to_resume(run: Run) -> str:
    if run.checkpoint is None:
        return "with --checkpoint DIR it could be resumed"
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return f"resume with: hemiola {shlex.join([*words, '--resume'])}"


def _report(result: Result, setup: Setup, run: Run, prepared: Prepared) -> None:
    data, engine = prepared.describe(), setup.engine_name
    if run.json is not None:
        output.write_json(run.json, output.document(result, data, setup.keep_best))
    if run.plot is not None:
        title = f"{prepared.train.name}, {setup.workers} workers, engine {engine}"
        curves = {run.algorithm: [result.history]}
        plot_histories(curves, run.plot, title, output.seconds_label(engine))
    if run.save is not None:
        result.save(run.save)
    if run.residual_plot is not None:
        plot_residuals(result.history, run.residual_plot, f"{run.algorithm}: residuals")
    if run.staleness_plot is not None:
        plot_asynchrony({run.algorithm: result.history}, run.staleness_plot, run.algorithm)
    console = output.console(stderr=str(run.json) == "-")
    console.print(f"{run.algorithm} on {prepared.words()}", markup=False, highlight=False)
    console.print(output.summary(result, data, setup.keep_best))
    table = output.staleness(result.history)
    if table is not None:
        console.print(output.staleness_words(result.history), highlight=False)
        console.print(table, "")
    by_group = groups.measured(result.history)
    if by_group is not None:
        console.print(by_group)
    if incidents := result.history.incidents():
        console.print(incidents, "", highlight=False)
    places = {"figure": run.plot, "model": run.save, "JSON": run.json, "log": run.log}
    places |= {"trace": run.trace, "timeline": run.timeline}
    places |= {"figure of staleness": run.staleness_plot}
    places |= {"figure of residuals": run.residual_plot}
    output.name_places(console, places)

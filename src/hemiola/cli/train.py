"""``hemiola train``: one algorithm, one run."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from hemiola.callbacks import Callback, EarlyStopping, JsonLines, TargetLoss, TimeLimit
from hemiola.cli import output
from hemiola.cli.progress import ProgressBar
from hemiola.cli.setup import Prepared, Setup, build_algorithms, build_engine, count_rounds, prepare
from hemiola.errors import DivergedError, OptionError, TrainingInterrupted
from hemiola.plots import check_extension, plot_histories
from hemiola.result import Result
from hemiola.training import fit


@dataclass(frozen=True)
class Run:
    """What ``train`` has beyond the common set-up."""

    algorithm: str
    options: list[str]
    seed: int
    checkpoint: Path | None
    resume: bool
    keep_best: bool
    target_loss: float | None
    time_limit: float | None
    patience: int | None
    json: Path | None
    log: Path | None
    plot: Path | None
    save: Path | None


def train(setup: Setup, run: Run) -> None:
    """Train, show and write what was asked for."""
    if run.plot is not None:
        check_extension(run.plot)
    if run.resume and run.checkpoint is None:
        raise OptionError("--resume needs the directory to resume from: add --checkpoint DIR.")
    output.check_places((run.json, run.log, run.plot, run.save), (run.checkpoint,))
    engine = build_engine(setup.engine, setup.engine_options)
    algorithm = build_algorithms([run.algorithm], run.options)[run.algorithm]
    prepared = prepare(setup)
    try:
        result = fit(
            algorithm,
            prepared.objective,
            prepared.train,
            engine=engine,
            workers=setup.workers,
            rounds=count_rounds(setup, algorithm, prepared.train),
            seed=run.seed,
            eval_data=prepared.test,
            eval_every=setup.eval_every,
            callbacks=_callbacks(run),
            checkpoint=run.checkpoint,
            resume=run.resume,
            keep_best=run.keep_best,
        )
    except DivergedError as error:
        _rescue(error, run, prepared)
        raise
    except TrainingInterrupted as stop:
        raise TrainingInterrupted(f"{stop}; {_how_to_resume(run)}", stop.result) from None
    _report(_with_scaling(result, prepared), setup, run, prepared)


def _callbacks(run: Run) -> list[Callback]:
    callbacks: list[Callback] = [ProgressBar(run.algorithm)]
    if run.target_loss is not None:
        callbacks.append(TargetLoss(run.target_loss))
    if run.time_limit is not None:
        callbacks.append(TimeLimit(run.time_limit))
    if run.patience is not None:
        callbacks.append(EarlyStopping(run.patience))
    if run.log is not None:
        callbacks.append(JsonLines(run.log))
    return callbacks


def _with_scaling(result: Result, prepared: Prepared) -> Result:
    """The result with a model that takes raw features."""
    return replace(result, model=replace(result.model, standardizer=prepared.standardizer))


def _rescue(error: DivergedError, run: Run, prepared: Prepared) -> None:
    if run.save is not None and isinstance(error.result, Result):
        _with_scaling(error.result, prepared).save(run.save)
        error.args = (f"{error} The last good weights are in {run.save}.",)


def _how_to_resume(run: Run) -> str:
    if run.checkpoint is None:
        return "with --checkpoint DIR it could be resumed."
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return f"resume with: hemiola {shlex.join([*words, '--resume'])}"


def _report(result: Result, setup: Setup, run: Run, prepared: Prepared) -> None:
    if run.json is not None:
        output.write_json(run.json, output.document(result, prepared.describe()))
    if run.plot is not None:
        plot_histories({run.algorithm: [result.history]}, run.plot, prepared.train.name)
    if run.save is not None:
        result.save(run.save)
    if run.json is not None and str(run.json) == "-":
        return
    console = output.console()
    console.print(output.summary(result, setup.workers, setup.engine == "simulator"))
    table = output.staleness(result.history)
    if table is not None:
        console.print(table)
    for what, path in (("figure", run.plot), ("model", run.save), ("JSON", run.json)):
        if path is not None:
            console.print(f"{what}: {path}", highlight=False)

"""``hemiola compare``: several algorithms on one data set, one table, one figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAVY
from rich.table import Table

from hemiola.algorithm import AnyAlgorithm
from hemiola.cli import output
from hemiola.cli.progress import make_progress
from hemiola.cli.recipes import build_algorithms, refuse_unsupported
from hemiola.cli.setup import Prepared, Setup, build_engine, count_rounds, prepare
from hemiola.contracts import Engine
from hemiola.errors import DivergedError, OptionError, TrainingInterrupted, WorkersLostError
from hemiola.objectives import LinearObjective
from hemiola.plots import check_extension, plot_asynchrony, plot_histories
from hemiola.reference import pooled_optimum
from hemiola.result import Result
from hemiola.run import score
from hemiola.training import fit

OPTIMUM = "pooled L-BFGS"

LEGEND = (
    "gap: training loss above the optimum of the pooled data; waiting: share of the workers' time"
)

Results = dict[str, list[Result]]
Failures = dict[str, DivergedError | WorkersLostError]


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` has beyond the common set-up."""

    names: Sequence[str]
    options: Sequence[str]
    seeds: range
    json: Path | None
    plot: Path | None
    staleness_plot: Path | None = None

    def check(self) -> None:
        """Everything that would fail after training fails here."""
        if not self.names or not self.seeds:
            raise OptionError("give at least one algorithm and one seed.")
        for picture in (self.plot, self.staleness_plot):
            if picture is not None:
                check_extension(picture)
        output.check_places((self.json, self.plot, self.staleness_plot))


def compare(setup: Setup, wanted: Comparison) -> None:
    """Run every algorithm with every seed; the split of the data stays the same.

    Raises :class:`DivergedError` or :class:`WorkersLostError`, once everything is shown, if some
    algorithm diverged or lost its workers.
    """
    wanted.check()
    setup.befalling()
    algorithms = build_algorithms(wanted.names, wanted.options)
    setup = setup.with_engine(algorithms.values())
    engine = build_engine(setup.engine_name, setup.engine_options)
    refuse_unsupported(algorithms, engine)
    prepared = prepare(setup)
    results, failed = _run_all(setup, algorithms, engine, prepared, wanted.seeds)
    _report(setup, wanted, prepared, results, failed)
    if failed:
        kind = type(next(iter(failed.values())))
        raise kind(" ".join(f"{name}: {error}" for name, error in failed.items()))


def _run_all(
    setup: Setup,
    algorithms: dict[str, AnyAlgorithm],
    engine: Engine,
    prepared: Prepared,
    seeds: range,
) -> tuple[Results, Failures]:
    """The results by algorithm; none for an algorithm that failed with some seed."""
    results: Results = {name: [] for name in algorithms}
    failed: Failures = {}
    total = len(algorithms) * len(seeds)
    with make_progress() as progress:
        task = progress.add_task("", total=total, state="")
        for name, algorithm in algorithms.items():
            for seed in seeds:
                number = len(seeds) * list(algorithms).index(name) + seed - seeds.start + 1
                label = f"run {number} of {total}"
                progress.update(
                    task, description=f"{name}, seed {seed}", state=label, completed=number - 1
                )
                progress.refresh()
                try:
                    results[name].append(_run(setup, algorithm, engine, prepared, seed))
                except (DivergedError, WorkersLostError) as error:
                    failed[name], results[name] = error, []
                    break
                except TrainingInterrupted as stop:
                    raise TrainingInterrupted(
                        f"interrupted in {label}; nothing was written", stop.result
                    ) from None
    return results, failed


def _run(
    setup: Setup, algorithm: AnyAlgorithm, engine: Engine, prepared: Prepared, seed: int
) -> Result:
    result = fit(
        algorithm,
        prepared.objective,
        prepared.train,
        engine=engine,
        workers=setup.workers,
        rounds=count_rounds(setup, algorithm, prepared.train),
        seed=seed,
        eval_data=prepared.test,
        eval_every=setup.eval_every,
        callbacks=setup.callbacks(),
        keep_best=setup.keep_best,
        faults=setup.befalling(),
    )
    return replace(result, model=replace(result.model, standardizer=prepared.standardizer))


def _report(
    setup: Setup, wanted: Comparison, prepared: Prepared, results: Results, failed: Failures
) -> None:
    best = _optimum(prepared)
    if wanted.plot is not None and any(results.values()):
        histories = {name: [r.history for r in runs] for name, runs in results.items()}
        title = f"{prepared.train.name}, {setup.workers} workers, engine {setup.engine_name}"
        plot_histories(histories, wanted.plot, title, output.seconds_label(setup.engine_name))
    if wanted.staleness_plot is not None and any(results.values()):
        firsts = {name: runs[0].history for name, runs in results.items() if runs}
        title = f"{prepared.train.name}, {setup.workers} workers, engine {setup.engine_name}"
        label = output.seconds_label(setup.engine_name)
        plot_asynchrony(firsts, wanted.staleness_plot, title, label)
    if wanted.json is not None:
        data = prepared.describe()
        runs = {
            name: [output.document(result, data, setup.keep_best) for result in some]
            for name, some in results.items()
        }
        output.write_json(wanted.json, {"data": data, "pooled_optimum": best, "runs": runs})
    console = output.console(stderr=str(wanted.json) == "-")
    count = len(wanted.seeds)
    console.print(
        f"{prepared.words()}; {setup.workers} workers, engine {setup.engine_name}, "
        f"{count} seed{'s' if count > 1 else ''}",
        markup=False,
        highlight=False,
    )
    console.print(_table(setup, prepared, results, failed, best))
    console.print(LEGEND)
    for name, seed, incidents in _incidents(results, wanted.seeds):
        console.print(f"{name}, seed {seed}: {incidents}", highlight=False)
    places = {"figure": wanted.plot, "JSON": wanted.json}
    output.name_places(console, places | {"figure of staleness": wanted.staleness_plot})


def _optimum(prepared: Prepared) -> dict[str, float] | None:
    """Of the pooled data; hinge loss and networks have none to compute in this way."""
    objective = prepared.objective
    if not isinstance(objective, LinearObjective) or objective.loss == "hinge":
        return None
    weights, loss = pooled_optimum(prepared.objective, prepared.train)
    held_out = prepared.train if prepared.test is None else prepared.test
    return {"loss": loss, "score": score(prepared.objective, weights, held_out)}


def _table(
    setup: Setup,
    prepared: Prepared,
    results: Results,
    failed: Failures,
    best: dict[str, float] | None,
) -> Table:
    metric = "R²" if prepared.train.classes is None else "accuracy"
    where = "test" if prepared.test is not None else "training"
    table = Table(
        box=SIMPLE_HEAVY,
        padding=0,
        pad_edge=False,
    )
    table.add_column("algorithm", no_wrap=True)
    table.add_column(f"{where}\n{metric}", justify="right", no_wrap=True)
    time = "seconds\n(virtual)" if output.virtual(setup.engine_name) else "seconds"
    for header in ("training\nloss", "gap", "rounds", "local\nsteps", time, "sent", "waiting"):
        table.add_column(header, justify="right", overflow="fold", min_width=7)
    for name, runs in results.items():
        table.add_row(name, *(_row(setup, runs, best) if runs else [_verdict(failed[name])]))
    table.add_section()
    table.add_row(OPTIMUM, *(("-", "-") if best is None else _figures([best["score"]], best)))
    return table


def _verdict(error: DivergedError | WorkersLostError) -> str:
    return "diverged" if isinstance(error, DivergedError) else "lost workers"


def _incidents(results: Results, seeds: range) -> Iterator[tuple[str, int, str]]:
    for name, runs in results.items():
        for seed, run in zip(seeds, runs, strict=False):
            if incidents := run.history.incidents():
                yield name, seed, incidents


def _figures(scores: Sequence[float], losses: dict[str, float]) -> tuple[str, str]:
    sd = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    return f"{statistics.fmean(scores):.4f}{sd}", _loss(losses["loss"])


def _loss(value: float) -> str:
    return f"{value:.5f}" if value < 100 else f"{value:,.2f}"


def _row(setup: Setup, runs: list[Result], best: dict[str, float] | None) -> list[str]:
    """Means over the seeds."""
    models = [output.kept(run.history, setup.keep_best) for run in runs]
    last = [run.history.last for run in runs]

    def mean(field: str, records: Sequence[Any] = last) -> float:
        return statistics.fmean(getattr(record, field) for record in records)

    loss = mean("loss", models)
    waiting = statistics.fmean(output.waiting_share(record, setup.workers) for record in last)
    return [
        *_figures([record.score for record in models], {"loss": loss}),
        "-" if best is None else f"{loss - best['loss']:.1e}",
        f"{mean('rounds'):,.0f}",
        f"{mean('local_steps'):,.0f}",
        f"{mean('seconds'):.3g}",
        output.human_bytes(mean("bytes_up") + mean("bytes_down")),
        f"{waiting:.0%}",
    ]

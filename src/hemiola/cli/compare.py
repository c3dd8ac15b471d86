"""``hemiola compare``: several algorithms on one data set, one table, one figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAVY
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hemiola.algorithm import Algorithm
from hemiola.cli import output
from hemiola.cli.setup import Prepared, Setup, build_algorithms, build_engine, count_rounds, prepare
from hemiola.contracts import Engine
from hemiola.errors import OptionError
from hemiola.plots import check_extension, plot_histories
from hemiola.reference import pooled_optimum
from hemiola.result import Result
from hemiola.training import fit, score

COLUMNS = ("algorithm", "test score", "loss", "gap", "rounds", "steps", "sec", "sent", "wait")


def compare(
    setup: Setup,
    names: Sequence[str],
    options: list[str],
    seeds: range,
    json: Path | None,
    plot: Path | None,
) -> None:
    """Run every algorithm with every seed; the split of the data stays the same."""
    if not names or not seeds:
        raise OptionError("give at least one algorithm and one seed.")
    if plot is not None:
        check_extension(plot)
    output.check_places((json, plot))
    algorithms = build_algorithms(list(names), options)
    engine = build_engine(setup.engine, setup.engine_options)
    prepared = prepare(setup)
    results: dict[str, list[Result]] = {name: [] for name in algorithms}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(algorithms) * len(seeds))
        for name, algorithm in algorithms.items():
            for seed in seeds:
                progress.update(task, description=f"{name}, seed {seed}")
                results[name].append(_run(setup, algorithm, engine, prepared, seed))
                progress.advance(task)
    _report(setup, prepared, results, json, plot)


def _run(
    setup: Setup, algorithm: Algorithm, engine: Engine, prepared: Prepared, seed: int
) -> Result:
    return fit(
        algorithm,
        prepared.objective,
        prepared.train,
        engine=engine,
        workers=setup.workers,
        rounds=count_rounds(setup, algorithm, prepared.train),
        seed=seed,
        eval_data=prepared.test,
        eval_every=setup.eval_every,
    )


def _report(
    setup: Setup,
    prepared: Prepared,
    results: dict[str, list[Result]],
    json: Path | None,
    plot: Path | None,
) -> None:
    table, best = _table(setup, prepared, results)
    if plot is not None:
        histories = {name: [r.history for r in runs] for name, runs in results.items()}
        plot_histories(histories, plot, f"{prepared.train.name}, {setup.workers} workers")
    if json is not None:
        data = prepared.describe()
        runs = {name: [output.document(r, data) for r in some] for name, some in results.items()}
        output.write_json(json, {"data": data, "pooled_optimum": best, "runs": runs})
        if str(json) == "-":
            return
    console = output.console()
    console.print(table)
    if plot is not None:
        console.print(f"figure: {plot}", highlight=False)


def _table(
    setup: Setup, prepared: Prepared, results: dict[str, list[Result]]
) -> tuple[Table, dict[str, float] | None]:
    virtual = " (virtual)" if setup.engine == "simulator" else ""
    count = len(next(iter(results.values())))
    title = (
        f"{prepared.train.name}: {setup.workers} workers, engine {setup.engine}{virtual}, "
        f"{count} seed{'s' if count > 1 else ''}"
    )
    table = Table(title=title, caption=_caption(), box=SIMPLE_HEAVY, padding=0, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "algorithm" else "right", no_wrap=True)
    best = _optimum(prepared)
    for name, runs in results.items():
        table.add_row(name, *_row(runs, best))
    if best is not None:
        table.add_section()
        table.add_row("pooled L-BFGS", f"{best['score']:.4f}", f"{best['loss']:.5f}", "0")
    return table, best


def _caption() -> str:
    return (
        "score: accuracy, or R^2 of a regression; gap: training loss above the pooled optimum; "
        "wait: share of the workers' time"
    )


def _optimum(prepared: Prepared) -> dict[str, float] | None:
    """Of the pooled data; hinge loss has no smooth optimum to compute in this way."""
    if prepared.objective.loss == "hinge":
        return None
    weights, loss = pooled_optimum(prepared.objective, prepared.train)
    return {"loss": loss, "score": score(prepared.objective, weights, prepared.test)}


def _row(runs: list[Result], best: dict[str, float] | None) -> list[str]:
    last = [run.history.last for run in runs]
    scores = [record.score for record in last]
    loss = statistics.fmean(record.loss for record in last)
    sd = f" +- {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
    seconds = statistics.fmean(record.seconds for record in last)
    workers = runs[0].settings["workers"]
    waiting = statistics.fmean(
        record.waiting / (record.seconds * workers) if record.seconds else 0.0 for record in last
    )
    return [
        f"{statistics.fmean(scores):.4f}{sd}",
        f"{loss:.5f}",
        "-" if best is None else f"{loss - best['loss']:.1e}",
        f"{last[0].rounds:g}",
        f"{last[0].local_steps:,}",
        f"{seconds:.3g}",
        output.human_bytes(last[0].bytes_up + last[0].bytes_down),
        f"{waiting:.0%}",
    ]

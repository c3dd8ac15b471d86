"""``hemiola simulate``: what a cluster would do, for one setting or for a grid of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from hemiola.algorithm import AnyAlgorithm
from hemiola.calibration import Timing, calibrate, load_timing
from hemiola.callbacks import Callback
from hemiola.cli import output, sweep
from hemiola.cli.progress import ProgressBar
from hemiola.cli.recipes import build_algorithms
from hemiola.cli.setup import Prepared, Setup, build_engine, count_rounds, prepare
from hemiola.engines.simulator import Simulator
from hemiola.errors import HemiolaError, OptionError
from hemiola.history import History
from hemiola.options import parse_options
from hemiola.result import Result
from hemiola.timeline import check_timeline
from hemiola.training import fit

_WORKERS = 4


@dataclass(frozen=True)
class Simulation:
    """What ``simulate`` has beyond the common set-up."""

    algorithm: str | None
    workers: int | None
    options: Sequence[str]
    seed: int
    sweep: Sequence[str]
    calibrate: Path | None
    jobs: int | None
    json: Path | None
    timeline: Path | None

    def check(self) -> None:
        """Everything that would fail after simulating fails here."""
        if self.timeline is not None:
            check_timeline(self.timeline)
            if self.sweep:
                raise OptionError("a timeline is that of one run; leave out --timeline or --sweep.")
        if self.jobs is not None and self.jobs < 1:
            raise OptionError(f"--jobs must be at least 1, not {self.jobs}.")
        output.check_places((self.json, self.timeline))


@dataclass(frozen=True)
class Case:
    """One run to simulate: a point of the grid, and what follows from it."""

    point: dict[str, str]
    setup: Setup
    algorithm: AnyAlgorithm
    engine: Simulator
    seed: int
    timeline: Path | None = None

    def run(self, prepared: Prepared, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
        """The run as plain data: its document, with what the simulation is about."""
        result = fit(
            self.algorithm,
            prepared.objective,
            prepared.train,
            engine=self.engine,
            workers=self.setup.workers,
            rounds=count_rounds(self.setup, self.algorithm, prepared.train),
            seed=self.seed,
            eval_data=prepared.test,
            eval_every=self.setup.eval_every,
            callbacks=[*callbacks, *self.setup.callbacks()],
            keep_best=self.setup.keep_best,
            timeline=self.timeline,
        )
        document = output.document(result, prepared.describe(), self.setup.keep_best)
        return {"point": self.point, "simulated": self.figures(result), **document}

    def figures(self, result: Result) -> dict[str, Any]:
        """What a simulation is asked for."""
        history, last, target = result.history, result.history.last, self.setup.target_loss
        return {
            "target_loss": target,
            "seconds_to_target": None if target is None else history.seconds_to(target),
            "loss": output.kept(history, self.setup.keep_best).loss,
            "seconds": last.seconds,
            "updates": last.updates,
            "idle_share": output.waiting_share(last, self.setup.workers),
            "bytes": last.bytes_up + last.bytes_down,
            "bytes_by_tier": _by_tier(history, self.engine),
            "bytes_of_a_link": _spread(history.links),
            "staleness": staleness(history),
        }


def _by_tier(history: History, engine: Simulator) -> dict[str, int]:
    """The bytes on the links of each tier."""
    network = engine.wires()
    sums = [0] * len(network.tiers)
    for worker, size in enumerate(history.links):
        sums[network.tier(worker)] += size
    return dict(zip(network.tiers, sums, strict=True))


def _spread(sizes: Sequence[int]) -> dict[str, float]:
    mean = sum(sizes) / len(sizes) if sizes else 0.0
    return {"least": min(sizes, default=0), "mean": mean, "most": max(sizes, default=0)}


def staleness(history: History) -> dict[str, float]:
    """Mean, median, 95 % quantile and maximum over all updates."""
    counts = history.staleness or [0]
    return {
        "mean": history.mean_staleness(),
        "median": output.quantile(counts, 0.5),
        "95 %": output.quantile(counts, 0.95),
        "max": len(counts) - 1,
    }


def simulate(setup: Setup, wanted: Simulation) -> None:
    """Run every case, show and write what was asked for."""
    wanted.check()
    grid = sweep.grid(wanted.sweep)
    timing = None if wanted.calibrate is None else load_timing(wanted.calibrate)
    cases = [_case(setup, wanted, point, timing, grid) for point in grid]
    prepared = prepare(setup)
    if not wanted.sweep:
        bar = ProgressBar(cases[0].algorithm.name)
        _report_one(cases[0].run(prepared, (bar,)), wanted, prepared)
        return
    outcomes = sweep.run_all(cases, prepared, wanted.jobs)
    if wanted.json is not None:
        output.write_json(wanted.json, {"data": prepared.describe(), "runs": outcomes})
    console = output.console(stderr=str(wanted.json) == "-")
    console.print(f"{prepared.words()}; simulated clusters", markup=False, highlight=False)
    console.print(sweep.table(outcomes, setup.target_loss))
    output.name_places(console, {"JSON": wanted.json})
    failed = [f"{sweep.words(out['point'])}: {out['error']}" for out in outcomes if "error" in out]
    if failed:
        raise HemiolaError(" ".join(failed))


def _case(
    setup: Setup,
    wanted: Simulation,
    point: dict[str, str],
    timing: Timing | None,
    grid: Sequence[dict[str, str]],
) -> Case:
    """The case of one point; raises :class:`OptionError` for what nothing has."""
    rest = dict(point)
    name = _one_of(rest.pop("algorithm", None), wanted.algorithm, "algorithm")
    if name is None:
        raise OptionError("name an algorithm: --algorithm NAME, or --sweep algorithm=A,B.")
    workers = _whole("workers", _one_of(rest.pop("workers", None), wanted.workers, "workers"))
    seed = _whole("seed", rest.pop("seed", wanted.seed))
    if workers is None:
        workers = _WORKERS if timing is None else len(timing.steps)
    here, there = sweep.sorted_out(rest)
    names = list(dict.fromkeys([other.get("algorithm", name) for other in grid]))
    algorithm = build_algorithms(names, [*wanted.options, *there])[name]
    engine = _engine([*(setup.engine_options or ()), *here], timing)
    setup = replace(setup, workers=workers)
    return Case(point, setup, algorithm, engine, seed or 0, wanted.timeline)


def _one_of(swept: Any, given: Any, name: str) -> Any:
    if swept is not None and given is not None:
        raise OptionError(f"--{name} and --sweep {name}=... both say the same; give one of them.")
    return given if swept is None else swept


def _whole(name: str, value: Any) -> int | None:
    """A whole number from text."""
    try:
        return None if value is None else int(value)
    except ValueError:
        raise OptionError(f"{name} must be a whole number, not {value!r}.") from None


def _engine(options: Sequence[str], timing: Timing | None) -> Simulator:
    engine = build_engine("simulator", options)
    assert isinstance(engine, Simulator)
    if timing is None:
        return engine
    given = {path.split(".")[0] for path in parse_options(options)}
    if "compute" in given:
        raise OptionError("the times of computing are those of --calibrate; leave out compute.")
    return calibrate(engine, timing, not given & {"latency", "bandwidth", "network"})


def _report_one(outcome: dict[str, Any], wanted: Simulation, prepared: Prepared) -> None:
    if wanted.json is not None:
        output.write_json(wanted.json, outcome)
    console = output.console(stderr=str(wanted.json) == "-")
    name, workers = outcome["algorithm"]["name"], outcome["workers"]
    console.print(
        f"{name} on {prepared.words()}; {workers:,} simulated workers",
        markup=False,
        highlight=False,
    )
    console.print(_summary(outcome))
    output.name_places(console, {"JSON": wanted.json, "timeline": wanted.timeline})


def _summary(outcome: dict[str, Any]) -> Table:
    """One run, a row a figure."""
    found, final = outcome["simulated"], outcome["final"]
    metric = outcome["history"]["metric"]
    link = {key: output.human_bytes(size) for key, size in found["bytes_of_a_link"].items()}
    rows = {}
    if found["target_loss"] is not None:
        rows[f"time to loss {found['target_loss']:g}"] = sweep.time_to_target(found)
    rows |= {
        "training loss": f"{found['loss']:.6g}",
        f"{'test' if outcome['data']['test'] else 'training'} {output.metric_name(metric)}": (
            f"{final[metric]:.4f}"
        ),
        "virtual seconds": f"{found['seconds']:.4g}",
        "server updates": f"{found['updates']:,}",
        "idle": f"{found['idle_share']:.1%} of the workers' time",
        "sent": f"{output.human_bytes(found['bytes'])}; on a link {link['least']} to "
        f"{link['most']}, mean {link['mean']}",
    }
    if len(found["bytes_by_tier"]) > 1:
        rows |= {
            f"sent, {tier}": output.human_bytes(n) for tier, n in found["bytes_by_tier"].items()
        }
    old = found["staleness"]
    rows["staleness"] = (
        f"mean {old['mean']:.2f}, median {old['median']}, 95 % {old['95 %']}, max {old['max']}"
    )
    rows["stopped"] = outcome["stopped"]
    table = Table(box=SIMPLE, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for row in rows.items():
        table.add_row(*row)
    return table

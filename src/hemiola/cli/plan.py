"""``hemiola plan``: where to cut a network for workers of so much memory each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from hemiola.cli import output
from hemiola.errors import OptionError
from hemiola.extras import require
from hemiola.options import parse_call
from hemiola.planner import Machine, Plan, Step, plan

STATES = {"sgd": 0, "heavy-ball": 1, "nesterov": 1, "adagrad": 1, "adam": 2, "adamw": 2}
"""Numbers that an optimiser keeps for each parameter."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for, as given."""

    objective: str
    memory: str
    workers: int
    batch_size: int
    microbatches: int | None
    schedule: str
    optimizer: str
    flops: float | None
    bandwidth: float | None
    json: Path | None


def run_plan(wanted: Wanted) -> None:
    """Plan, and print the cut."""
    output.check_places((wanted.json,))
    network, shape = _network(wanted.objective)
    step = _step(wanted)
    machine = Machine(wanted.flops, wanted.bandwidth)
    found = plan(network, shape, parse_bytes(wanted.memory), wanted.workers, step, machine)
    if wanted.json is not None:
        shown = {"step": step, "cuts": found.cuts, **asdict(found)}
        stages = [{**asdict(stage), "layers": list(stage.layers)} for stage in found.stages]
        output.write_json(wanted.json, {**shown, "stages": stages})
    _report(output.console(stderr=str(wanted.json) == "-"), found, wanted, step, network)


def parse_bytes(text: str) -> int:
    """A size in bytes, kB, MB, GB, or binary units such as MiB.

    >>> parse_bytes("50MB"), parse_bytes("1.5 GiB")
    (50000000, 1610612736)
    """
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise OptionError(f"{text!r} is no size of memory; write it as 50MB or 1.5GB.") from error
    if size < 1:
        raise OptionError(f"memory must be more than {text!r}.")
    return size


def _network(text: str) -> tuple[Any, tuple[int, ...]]:
    """A network of the zoo, or of the user's, and the shape of a sample."""
    require("torch", "torch")
    from hemiola.objectives.networks import NETWORKS, build, module_for

    name, sizes = parse_call(text)
    if name in NETWORKS:
        built = build(text)
        return built.module, built.shape or (sizes["inputs"],)
    if ":" not in name:
        build(text)  # says which names there are
    if "inputs" not in sizes or "classes" not in sizes:
        raise OptionError(f"give the sizes of the data, as in '{name}(inputs=784, classes=10)'.")
    made = module_for(text, sizes["inputs"], sizes["classes"])
    shape = getattr(made, "module_shape", None) or (sizes["inputs"],)
    return getattr(made, "module", made), shape


def _step(wanted: Wanted) -> Step:
    if wanted.optimizer not in STATES:
        raise OptionError(
            f"optimizer must be one of {', '.join(STATES)}, not {wanted.optimizer!r}."
        )
    parts = wanted.microbatches or usual_microbatches(wanted.batch_size, wanted.workers)
    schedule: Any = wanted.schedule
    return Step(wanted.batch_size, parts, schedule, STATES[wanted.optimizer])


def usual_microbatches(samples: int, workers: int) -> int:
    """At least four times as many as workers, so that few are idle, and all of them equal.

    >>> usual_microbatches(128, 3), usual_microbatches(100, 4), usual_microbatches(6, 4)
    (16, 20, 6)
    """
    enough = [m for m in range(4 * workers, samples) if samples % m == 0]
    return min(enough, default=samples)


def _report(console: Console, found: Plan, wanted: Wanted, step: Step, network: Any) -> None:
    parameters = sum(stage.parameters for stage in found.stages)
    lines = [
        f"{wanted.objective}: {len(network)} layers, {output.human_bytes(parameters)} of "
        f"parameters; {wanted.workers} workers of {wanted.memory}",
        f"a step: {step.samples} samples in {step.microbatches} micro-batches, {step.schedule}, "
        f"optimiser {wanted.optimizer}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False)
    console.print(_table(found, network))
    speed = "layers timed here:" if wanted.flops is None else "at the given"
    link = "measured" if wanted.bandwidth is None else "given"
    alone = f"; one worker with the memory {found.alone:.3g} s" if found.cuts else ""
    lines = [
        f"predicted: {found.seconds:.3g} s a step{alone}; idle {found.idle:.0%}; "
        f"{output.human_bytes(found.sent)} sent a step",
        f"{speed} {found.flops:.3g} operations/s; {link} {output.human_bytes(found.bandwidth)}/s "
        "between workers",
    ]
    if found.cuts:
        lines.append(
            f"\n  hemiola.objectives.pipeline.Pipeline(network, cuts={found.cuts}, "
            f"microbatches={step.microbatches}, schedule={step.schedule!r})"
        )
    if unused := wanted.workers - len(found.stages):
        used = len(found.stages)
        lines.insert(2, f"{used} of {used + unused} workers are used: more cuts cost more time.")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(found: Plan, network: Any) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("worker", "layers", "from", "parameters", "weights", "activations", "memory",
                   "sends", "seconds"):  # fmt: skip
        table.add_column(column, justify="left" if column in ("layers", "from") else "right")
    for worker, stage in enumerate(found.stages):
        first, last = stage.layers[0], stage.layers[-1]
        sizes = (stage.parameters, stage.weights, stage.activations, stage.memory, stage.sends)
        table.add_row(
            str(worker), f"{first}-{last}" if last > first else str(first),
            type(network[first]).__name__, *map(output.human_bytes, sizes), f"{stage.seconds:.3g}",
        )  # fmt: skip
    table.caption = "weights: parameters, gradients, optimiser state; bytes and seconds of a step"
    table.caption_justify = "left"
    return table

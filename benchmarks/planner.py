"""Seconds of a pipeline's step: what ``hemiola plan`` predicts, and what two processes take.

Each network is cut for two workers by :func:`hemiola.planner.plan`, which measures every layer and
the bandwidth on this machine just before. Then two processes of one thread each make steps of that
pipeline (gradients, and SGD with momentum) on random images; the median counts. Predictions leave
out the optimiser, the start of PyTorch's schedules, and whatever else the machine is doing.

    python benchmarks/planner.py [--steps 30]

Needs two idle cores and ``pip install 'hemiola[torch]'``.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.multiprocessing import get_context

from hemiola.objectives.networks import build
from hemiola.objectives.pipeline import Pipeline
from hemiola.planner import Plan, Step, plan

WORKERS, WARM, PLENTY = 2, 3, 1e12
CASES = {
    "alexnet, width 16, 4 parts": ("alexnet(width=16)", (1, 28, 28), 128, 4),
    "alexnet, width 16, 8 parts": ("alexnet(width=16)", (1, 28, 28), 128, 8),
    "alexnet, width 32, 8 parts": ("alexnet(width=32)", (1, 28, 28), 128, 8),
    "mlp2 784-2000-2000-10, 4 parts": (
        "mlp2(inputs=784, classes=10, hidden=2000, hidden2=2000)", (784,), 512, 4,
    ),
    "mlp2 784-1000-3000-10, 16 parts": (
        "mlp2(inputs=784, classes=10, hidden=1000, hidden2=3000)", (784,), 512, 16,
    ),
}  # fmt: skip


def work(rank: int, case: Any, cuts: list[int], steps: int, store: str, answer: Any) -> None:
    """One process; the first answers with the median seconds of a step."""
    text, shape, samples, micro = case
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORKERS)
    pipeline = Pipeline(build(text).module, cuts, micro)
    optimizer = torch.optim.SGD(pipeline.stage.parameters(), lr=1e-6, momentum=0.9)
    x, y, took = torch.rand(samples, *shape), torch.randint(10, (samples,)), []
    for step in range(WARM + steps):
        dist.barrier()
        start = perf_counter()
        pipeline.gradients(x, y, step)
        optimizer.step()
        dist.barrier()
        took.append(perf_counter() - start)
    if rank == 0:
        answer.put(median(took[WARM:]))
    dist.destroy_process_group()


def measured(case: Any, cuts: list[int], steps: int) -> float:
    """Seconds of a step."""
    context = get_context("spawn")
    answer = context.Queue()
    with TemporaryDirectory() as directory:
        given = (case, cuts, steps, str(Path(directory) / "store"), answer)
        processes = [context.Process(target=work, args=(rank, *given)) for rank in range(WORKERS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    return float(answer.get(timeout=1))


def predicted(case: Any) -> Plan:
    """The fastest cut for two workers, even if one worker would be faster."""
    text, shape, samples, micro = case
    network = build(text).module
    step = Step(samples, micro)
    one = plan(network, shape, PLENTY, 1, step)
    return plan(network, shape, one.stages[0].memory - 1, WORKERS, step)


def main(steps: Annotated[int, typer.Option(help="steps of which the median counts")] = 30) -> None:
    """Print one table."""
    table = Table(title="milliseconds of a step, two stages")
    for column in ("network", "samples", "cut before", "predicted", "measured", "ratio"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, case in track(CASES.items(), transient=True):
        found = predicted(case)
        seconds = measured(case, found.cuts, steps)
        table.add_row(
            name, str(case[2]), f"layer {found.cuts[0]}", f"{1e3 * found.seconds:.1f}",
            f"{1e3 * seconds:.1f}", f"{seconds / found.seconds:.2f}",
        )  # fmt: skip
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)

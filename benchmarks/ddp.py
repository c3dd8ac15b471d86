"""Images a second: synchronous SGD on engine torchrun beside PyTorch's DistributedDataParallel.

Two processes of one thread each, gloo, the same network, data, mini-batch and rate. DDP and every
algorithm of this library take turns, as often as ``--repeats`` says; medians count. Each run warms
up first; its clock then runs for so many gradients of each process, without evaluations. DDP's loop
is as plain as can be: draw the rows of a mini-batch, gradient, ``torch.optim.SGD``.

    python benchmarks/ddp.py [--gradients 200] [--repeats 3] [--batch 64]

Images are random ones of Fashion-MNIST's size: what they show costs nothing.
"""

from __future__ import annotations

import os
import socket
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import torch.distributed as dist
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.multiprocessing import get_context
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import hemiola
from hemiola.algorithms.registry import build
from hemiola.dataset import Dataset, make_dataset
from hemiola.objectives.networks import build as network

WORKERS, IMAGES, RATE, STEPS = 2, 256, 0.01, 10
NETWORKS = {
    "mlp2(inputs=784, classes=10, hidden=512, hidden2=512)": "mlp2(hidden=512, hidden2=512)",
    "alexnet(inputs=784, classes=10)": "alexnet",
}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "ssgd": {},
    "model-averaging": {"steps": STEPS},
    "bmuf": {"steps": STEPS},
    "easgd": {"period": STEPS},
}


def images() -> Dataset:
    rng = np.random.default_rng(0)
    X = rng.random((IMAGES, 784), dtype=np.float32)
    return make_dataset(X, rng.integers(0, 10, IMAGES))


def ddp(rank: int, port: int, name: str, batch: int, gradients: int, answer: Any) -> None:
    """One process; rank 0 answers with the seconds that its gradients took."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=WORKERS)
    data, built = images(), network(name)
    model = DistributedDataParallel(built.module)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    X, y = torch.from_numpy(data.X), torch.from_numpy(data.y)
    own = torch.arange(rank, len(y), WORKERS)
    shape = (-1, *(built.shape or X.shape[1:]))
    warm = max(1, gradients // 10)
    begun = 0.0
    for t in range(warm + gradients):
        if t == warm:
            dist.barrier()
            begun = perf_counter()
        rows = own[torch.randint(len(own), (batch,))]
        optimizer.zero_grad()
        cross_entropy(model(X[rows].view(shape)), y[rows]).backward()
        optimizer.step()
    dist.barrier()
    if rank == 0:
        answer.put(perf_counter() - begun)
    dist.destroy_process_group()


def seconds_of_ddp(name: str, batch: int, gradients: int) -> float:
    """Of so many gradients of each process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = get_context("spawn")
    answer = context.Queue()
    given = (port, name, batch, gradients, answer)
    processes = [context.Process(target=ddp, args=(rank, *given)) for rank in range(WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return float(answer.get(timeout=1))


def seconds_of(algorithm: str, name: str, data: Dataset, batch: int, gradients: int) -> float:
    """The same on engine torchrun, by the run's own clock."""
    options = {**ALGORITHMS[algorithm], "batch_size": batch, "lr": RATE}
    local = STEPS if ALGORITHMS[algorithm] else 1
    rounds, warm = gradients // local, max(1, gradients // 10 // local)
    result = hemiola.fit(
        build(algorithm, options), name, data, engine="torchrun", workers=WORKERS,
        rounds=rounds + warm, eval_every=warm,
    )  # fmt: skip
    first, *_, last = [record for record in result.history.records if record.rounds >= warm]
    return (last.seconds - first.seconds) / (last.rounds - first.rounds) * rounds


def main(
    gradients: Annotated[int, typer.Option(help="of each process, after warming up")] = 200,
    repeats: Annotated[int, typer.Option(help="runs of which the median counts")] = 3,
    batch: Annotated[int, typer.Option(help="images of a mini-batch")] = 64,
) -> None:
    """Print one table."""
    data = images()
    table = Table(title=f"{WORKERS} processes of one thread, {batch} images a mini-batch")
    for column in ("network", "algorithm", "images/s", "over DDP"):
        table.add_column(
            column, justify="left" if len(column) > 8 or column == "network" else "right"
        )
    for full, short in NETWORKS.items():
        found: dict[str, list[float]] = {"DDP": [], **{name: [] for name in ALGORITHMS}}
        for _ in track(range(repeats), description=short, transient=True):
            found["DDP"].append(seconds_of_ddp(full, batch, gradients))
            for name in ALGORITHMS:
                found[name].append(seconds_of(name, short, data, batch, gradients))
        rates = {key: WORKERS * batch * gradients / median(times) for key, times in found.items()}
        for key, rate in rates.items():
            shown = short if key == "DDP" else ""
            table.add_row(shown, key, f"{rate:,.0f}", f"{rate / rates['DDP']:.2f}")
        table.add_section()
    Console(width=100).print(table)


if __name__ == "__main__":
    typer.run(main)

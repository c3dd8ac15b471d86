"""Train AlexNet over two processes: cut between its layers, or by the one weird trick.

    python examples/alexnet_model_parallel.py [--data DIRECTORY] [--how pipeline] [--epochs 12]

``--how pipeline``: each process has half of the layers, cut where ``hemiola.planner`` says, and
activations go from one to the other in micro-batches. ``--how trick``: each has all convolutions
and half of the mini-batch, and half of the units of every fully connected layer.

DIRECTORY holds Fashion-MNIST's four files as published (``train-images-idx3-ubyte.gz``, ...);
without it, scikit-learn's digits are used, enlarged to 28 x 28. Needs
``pip install 'hemiola[torch]'``. HEMIOLA_QUICK=1 shortens the run.
"""

from __future__ import annotations

import argparse
import gzip
import math
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing

import hemiola
from hemiola.objectives.networks import build
from hemiola.objectives.one_weird_trick import Exchange, Trick
from hemiola.objectives.pipeline import Pipeline
from hemiola.planner import Machine, Step, plan

QUICK = bool(os.environ.get("HEMIOLA_QUICK"))
WORKERS, MICRO = 2, 8
RATE, MOMENTUM, DECAY = 0.06, 0.9, 5e-4
MEMORY = 8e3  # bytes of a worker, for each kernel of conv1 and sample of a step


def images(directory: Path, part: str) -> tuple[Any, Any]:
    """One part of Fashion-MNIST, pixels from 0 to 1."""
    with gzip.open(directory / f"{part}-images-idx3-ubyte.gz") as file:
        X = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(directory / f"{part}-labels-idx1-ubyte.gz") as file:
        y = np.frombuffer(file.read(), np.uint8, offset=8)
    return torch.from_numpy(X.astype(np.float32) / 255), torch.from_numpy(y.astype(np.int64))


def digits() -> list[tuple[Any, Any]]:
    """Both parts of the digits, each pixel three by three."""
    parts = []
    for data in hemiola.split(hemiola.load("digits")):
        X = np.kron(data.X.reshape(-1, 8, 8) / 16, np.ones((1, 3, 3)))
        X = np.pad(X, ((0, 0), (2, 2), (2, 2)))[:, None].astype(np.float32)
        parts.append((torch.from_numpy(X), torch.from_numpy(data.y.astype(np.int64))))
    return parts


def standardised(parts: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Pixels of mean 0 and variance 1 in the first part; the others on the same scale."""
    spread, mean = torch.std_mean(parts[0][0])
    return [((x - mean) / spread, y) for x, y in parts]


class Piped:
    """A process of the pipeline."""

    def __init__(self, network: Any, cuts: list[int]) -> None:
        self.worker = Pipeline(network, cuts, MICRO)
        self.parameters = list(self.worker.stage.parameters())

    def gradients(self, x: Any, y: Any, seed: int) -> None:
        self.worker.gradients(x, y, seed)

    def whole(self) -> list[Any]:
        """The parameters of the whole network, of both processes."""
        found: list[Any] = [None] * WORKERS
        dist.all_gather_object(found, [p.detach() for p in self.parameters])
        return [p for part in found for p in part]


class Tricked:
    """A process of the one weird trick, scheme c."""

    def __init__(self, network: Any, cuts: list[int]) -> None:
        self.worker = Trick(network, Exchange(dist.group.WORLD), "c")
        self.parameters = list(self.worker.parameters())

    def gradients(self, x: Any, y: Any, seed: int) -> None:
        share = len(x) // WORKERS
        own = slice(dist.get_rank() * share, (dist.get_rank() + 1) * share)
        self.worker.gradients(x[own], y[own], seed)

    def whole(self) -> list[Any]:
        shared = [p.detach() for p in self.worker.convolutions.parameters()]
        slices: list[Any] = [None] * WORKERS
        dist.all_gather_object(slices, [p.detach() for p in self.worker.full.parameters()])
        return shared + [torch.cat(parts) for parts in zip(*slices, strict=True)]


HOW = {"pipeline": Piped, "trick": Tricked}


def batches(samples: int, size: int, epoch: int) -> Iterator[Any]:
    """Row numbers; all processes draw the same."""
    order = torch.from_numpy(np.random.default_rng(epoch).permutation(samples))
    yield from order[: samples // size * size].split(size)


def accuracy(network: Any, parameters: list[Any], x: Any, y: Any) -> float:
    """Of the whole network."""
    network.eval()
    with torch.no_grad():
        for p, value in zip(network.parameters(), parameters, strict=True):
            p.copy_(value)
        hits = [int((network(a).argmax(1) == b).sum())
                for a, b in zip(x.split(500), y.split(500), strict=True)]  # fmt: skip
    return sum(hits) / len(y)


def work(rank: int, given: argparse.Namespace, cuts: list[int], store: str) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORKERS)
    parts = [images(given.data, p) for p in ("train", "t10k")] if given.data else digits()
    (x, y), test = standardised(parts)
    network = build(f"alexnet(width={given.width})", seed=0).module
    own = HOW[given.how](network, cuts)
    steps = given.epochs * (len(y) // given.batch)
    optimizer = torch.optim.SGD(own.parameters, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    slower = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: min(1, (t + 1) / 50) * (1 + math.cos(math.pi * t / steps)) / 2
    )
    start, seed = perf_counter(), 0
    for epoch in range(given.epochs):
        for rows in batches(len(y), given.batch, epoch):
            own.gradients(x[rows], y[rows], seed)
            optimizer.step()
            slower.step()
            seed += 1
        parameters, seconds = own.whole(), perf_counter() - start
        if rank == 0:
            share = accuracy(network, parameters, *test)
            print(f"epoch {epoch + 1}: test accuracy {share:.4f}, {seconds:.0f} s", flush=True)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="directory with Fashion-MNIST's files")
    parser.add_argument("--how", choices=HOW, default="pipeline")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int, help="samples in a step; fewer where data are few")
    parser.add_argument("--width", type=int, default=4 if QUICK else 16, help="kernels of conv1")
    given = parser.parse_args()
    given.epochs = given.epochs or (1 if QUICK else 12 if given.data else 20)
    given.batch = given.batch or (128 if given.data else 32)
    network = build(f"alexnet(width={given.width})").module
    memory, step = MEMORY * given.width * given.batch, Step(given.batch, MICRO)
    found = plan(network, (1, 28, 28), memory, WORKERS, step, Machine(1e10, 1e9))
    if given.how == "pipeline":
        print(f"cut before layer {found.cuts[0]}: {found.sent / 1e6:.2f} MB sent a step")
    with TemporaryDirectory() as directory:
        store = str(Path(directory) / "store")
        torch.multiprocessing.spawn(work, (given, found.cuts, store), nprocs=WORKERS)


if __name__ == "__main__":
    main()

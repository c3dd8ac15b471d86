"""Training on data larger than memory: how fast, and in how much of it.

Writes a synthetic data set as shards on disk, 20 GB if there is room, but never less than 8 unless
asked to, trains one pass from there, and compares samples a
second with training on a part of it that is in memory. Each pass is a process of its own, which
watches its own anonymous memory: what the process holds itself, without pages of mapped files,
which the system may take back at any time. The two take turns; the median counts. Files are removed
at the end, also on Ctrl-C.

    python benchmarks/larger_than_memory.py
    python benchmarks/larger_than_memory.py --gigabytes 1 --part 0.5 --kind dense
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from scipy import sparse

import hemiola
from hemiola.algorithms.registry import build
from hemiola.data.disk import DiskShards
from hemiola.data.formats import Raw
from hemiola.data.shards import Schema, ShardWriter
from hemiola.epochs import rounds_for
from hemiola.objectives import logistic
from hemiola.partition import Shards, Streamed

WORKERS, BATCH, LIMIT = 4, 1000, 2e9
BLOCK = 50_000  # rows
MOST, LEAST, ROOM = 20.0, 8.0, 1.1  # gigabytes, and how much of the disk one takes
SETTINGS = {"steps": 10, "batch_size": BATCH, "lr": 0.1}


def block(kind: str, rng: np.random.Generator) -> Raw:
    """Rows of two classes: 100 dense features, or 40 of 100,000."""
    y = rng.integers(0, 2, BLOCK)
    if kind == "dense":
        X: Any = rng.standard_normal((BLOCK, 100), dtype=np.float32)
        X[:, :10] += y[:, None]
        return Raw(X, y)
    stride = 2500
    columns = rng.integers(0, stride, (BLOCK, 40), dtype=np.int32)
    columns += np.arange(0, 40 * stride, stride, dtype=np.int32)  # ascending
    values = rng.standard_normal((BLOCK, 40), dtype=np.float32) + y[:, None].astype(np.float32)
    indptr = np.arange(0, BLOCK * 40 + 1, 40, dtype=np.int32)
    X = sparse.csr_array((values.ravel(), columns.ravel(), indptr), shape=(BLOCK, 100_000))
    return Raw(X, y)


def size(free: float, asked: float | None) -> float:
    """Gigabytes to write where so many bytes are free; leaves if that is too little."""
    wanted = min(MOST, free / ROOM / 1e9) if asked is None else asked
    least = LEAST if asked is None else asked
    if wanted < least or wanted * ROOM * 1e9 > free:
        sys.exit(
            f"{free / 1e9:.1f} GB are free, {least * ROOM:.1f} GB are needed; choose another "
            "--directory or fewer --gigabytes."
        )
    return wanted


def write(place: Path, kind: str, gigabytes: float) -> int:
    """Returns the most anonymous memory that it took."""
    watch = Watch()
    watch.start()
    width, row = (100, 400 + 8) if kind == "dense" else (100_000, 40 * 8 + 4 + 8)
    schema = Schema(kind, width, kind != "dense", np.dtype(np.float32), np.arange(2))
    rng = np.random.default_rng(0)
    with ShardWriter(place, schema) as writer:
        blocks = range(max(1, round(gigabytes * 1e9 / row / BLOCK)))
        for _ in track(blocks, description=f"writing {gigabytes:.1f} GB", transient=True):
            writer.add(block(kind, rng))
    return watch.stop()


class Watch(threading.Thread):
    """The most anonymous memory (RssAnon) that this process held."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self._stop_asked = 0, threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(0.02):
            text = Path("/proc/self/status").read_text()
            now = next(line for line in text.splitlines() if line.startswith("RssAnon"))
            self.most = max(self.most, int(now.split()[1]) * 1024)

    def stop(self) -> int:
        self._stop_asked.set()
        self.join()
        return self.most


def one_pass(place: str, how: str, part: float, engine: str) -> dict[str, float]:
    """Train once over the shards, ``from disk`` or ``in memory``, or over the first ones only."""
    watch = Watch()
    watch.start()
    shards = hemiola.open_shards(place)
    whole = sum(stored.bytes for shard in shards.files for stored in shard.files.values())
    count = max(WORKERS, round(len(shards.parts) * min(1.0, part * 1e9 / whole)))
    shards = replace(shards, parts=shards.parts[:count])
    data: Any = shards if how == "from disk" else shards.load()
    algorithm = build("model-averaging", SETTINGS)
    source: Any
    if isinstance(data, DiskShards):
        source = Streamed(data, WORKERS, 0)
    else:
        source = Shards(data, algorithm.partition, WORKERS, 0)
    rounds = rounds_for(algorithm, source, WORKERS, 1)
    del source
    few = replace(shards, parts=shards.parts[:WORKERS])
    hemiola.fit(algorithm, logistic(1e-6), few, workers=WORKERS, rounds=1, engine=engine)
    result = hemiola.fit(
        algorithm, logistic(1e-6), data, workers=WORKERS, rounds=rounds, eval_every=rounds,
        engine=engine,
    )  # fmt: skip
    last = result.history.last
    samples = rounds * SETTINGS["steps"] * WORKERS * BATCH
    return {
        "rate": min(samples, len(data)) / last.seconds,
        "memory": watch.stop(),
        "score": last.score,
        "gigabytes": len(data) / len(hemiola.open_shards(place)) * whole / 1e9,
    }


def in_a_process(*words: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--pass", json.dumps(words)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare(place: Path, options: argparse.Namespace) -> None:
    everything = in_a_process(str(place), "from disk", 1e9, options.engine)
    print(
        f"all {everything['gigabytes']:.2f} GB from disk: {everything['rate']:,.0f} samples/s, "
        f"accuracy {everything['score']:.3f}, at most {everything['memory'] / 1e6:,.0f} MB of "
        f"anonymous memory ({'under' if everything['memory'] < LIMIT else 'OVER'} 2 GB)"
    )
    rates: dict[str, list[float]] = {"from disk": [], "in memory": []}
    repeats = range(options.repeats)
    for _ in track(repeats, description=f"{options.part:g} GB, twice a repeat", transient=True):
        for how, seen in rates.items():
            found = in_a_process(str(place), how, options.part, options.engine)
            seen.append(found["rate"])
    middle = {how: statistics.median(seen) for how, seen in rates.items()}
    print(f"the first {found['gigabytes']:.2f} GB, in the page cache:")
    for how, seen in rates.items():
        print(f"  {how}: {middle[how]:,.0f} samples/s ({min(seen):,.0f} to {max(seen):,.0f})")
    ratio = middle["from disk"] / middle["in memory"]
    print(f"  ratio {ratio:.2f} ({'reaches' if ratio >= 0.7 else 'MISSES'} 0.7)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, help="of all shards; as fits if left out")
    parser.add_argument("--part", type=float, default=0.5, help="gigabytes to compare on")
    parser.add_argument("--kind", choices=("sparse", "dense"), default="sparse")
    parser.add_argument("--engine", default="serial")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--pass", dest="words", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.words:
        print(json.dumps(one_pass(*json.loads(options.words))))
        return
    gigabytes = size(shutil.disk_usage(options.directory).free, options.gigabytes)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="hemiola-large-", dir=options.directory) as place:
        try:
            memory = write(Path(place) / "shards", options.kind, gigabytes)
            print(f"{gigabytes:.1f} GB written, in at most {memory / 1e6:,.0f} MB of memory")
            compare(Path(place) / "shards", options)
        except KeyboardInterrupt:
            sys.exit("interrupted; the files are removed")


if __name__ == "__main__":
    main()

"""Reading LIBSVM: megabytes a second, against scikit-learn and, where it is installed, XGBoost.

Three files of 15 features a line on average: values of one digit, of six places, and of sixteen
digits. All readers take a file to a CSR matrix and labels; XGBoost keeps single precision. Readers
take turns, and the best of the repeats counts: on a shared machine the others measure the
neighbours. CPU seconds are those of all threads.

    python benchmarks/libsvm.py --megabytes 50
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_svmlight_file

import hemiola

REPEATS = 3
KINDS: dict[str, Callable[[float], str]] = {
    "1 digit": lambda x: "1",
    "6 places": lambda x: f"{abs(x):.6f}",
    "16 digits": lambda x: f"{x:.16g}",
}


def write(path: Path, kind: str, megabytes: float) -> None:
    """A file of about this size, made of copies of 3000 random lines."""
    rng, show = np.random.default_rng(0), KINDS[kind]
    lines = []
    for _ in range(3000):
        indices = np.sort(rng.choice(100_000, rng.integers(5, 26), replace=False)) + 1
        values = rng.normal(size=len(indices))
        pairs = " ".join(f"{i}:{show(v)}" for i, v in zip(indices, values, strict=True))
        lines.append(f"{rng.choice([0, 1])} {pairs}\n")
    text = "".join(lines).encode()
    path.write_bytes(text * max(1, round(megabytes * 1e6 / len(text))))


def readers() -> dict[str, Callable[[str], object]]:
    found: dict[str, Callable[[str], object]] = {
        "hemiola": hemiola.load,
        "scikit-learn": load_svmlight_file,
    }
    try:
        import xgboost
    except ImportError:
        return found
    xgboost.set_config(verbosity=0)
    return {**found, "XGBoost": lambda path: xgboost.DMatrix(f"{path}?format=libsvm")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=50.0)
    size = parser.parse_args().megabytes
    table = Table(title=f"LIBSVM files of {size:g} MB, best of {REPEATS}, MB/s")
    for column in ("values", "reader", "elapsed", "of CPU time"):
        table.add_column(column, justify="left" if column in ("values", "reader") else "right")
    with tempfile.TemporaryDirectory(prefix="hemiola-libsvm-") as place:
        small = Path(place) / "small.svm"
        write(small, "6 places", 0.1)
        hemiola.load(str(small))  # compile
        for kind in KINDS:
            path = Path(place) / "a.svm"
            write(path, kind, size)
            megabytes = path.stat().st_size / 1e6
            best: dict[str, list[float]] = {}
            for _ in range(REPEATS):
                for name, read in readers().items():
                    start, cpu = perf_counter(), process_time()
                    read(str(path))
                    took = perf_counter() - start, process_time() - cpu
                    before = best.get(name, list(took))
                    best[name] = [min(a, b) for a, b in zip(before, took, strict=True)]
            for name, (seconds, cpu) in best.items():
                table.add_row(kind, name, f"{megabytes / seconds:,.0f}", f"{megabytes / cpu:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""Four algorithms on Apache Spark, one session for all, with the bits of the serial engine.

    pip install 'hemiola[spark]'
    python examples/spark_breast_cancer.py

HEMIOLA_QUICK=1 makes few rounds. Without the extra there is nothing to run, and it says so.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from time import perf_counter

import hemiola
from hemiola.engines.spark import Spark, session

ALGORITHMS = ("ssgd", "model-averaging", "bmuf", "easgd")


def main() -> None:
    if find_spec("pyspark") is None:
        print("skipped: pyspark is not installed; install it with: pip install 'hemiola[spark]'")
        return
    rounds = 5 if os.environ.get("HEMIOLA_QUICK") else 100
    train, test = hemiola.split(hemiola.load("breast_cancer"))
    scale = hemiola.Standardizer.fit(train)
    train, test = scale.apply(train), scale.apply(test)
    with session("local[2]"):
        for name in ALGORITHMS:
            options = {"workers": 4, "rounds": rounds, "eval_data": test}
            begun = perf_counter()
            there = hemiola.fit(name, "logistic", train, engine=Spark(), **options)
            seconds = (perf_counter() - begun) / rounds
            here = hemiola.fit(name, "logistic", train, engine="serial", **options)
            same = "the bits of serial" if there.model.sha256 == here.model.sha256 else "OTHER BITS"
            accuracy = there.history.last.score
            print(f"{name:16} test accuracy {accuracy:.4f}  {seconds:.3f} s a round  {same}")


if __name__ == "__main__":
    main()

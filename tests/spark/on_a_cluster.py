"""Runs on a cluster of two executors on this machine, one of which is killed amid each run: prints
how many were killed and the bits of the result, for every run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from killing import ROUNDS, Killer, executors
from spark_problems import algorithm, trained

from hemiola.engines.spark import Spark, session

HERE = Path(__file__).parent
MASTER = "local-cluster[2,2,1024]"


def main(mode, kills, place):
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)])
    chosen = algorithm("eamsgd", lr=0.1, on_loss="restart", restarts=3)
    engine = Spark(mode=mode, partitions=2, reduce="ordered")
    found = []
    with session(MASTER) as spark:
        spark.parallelize(range(4), 4).count()  # by then there are executors
        for seed in range(int(kills)):
            killer = Killer(executors, seed, within=0.1 if mode == "rounds" else 0.0)
            checkpoint = Path(place) / str(seed)
            result = trained(
                chosen, engine, rounds=ROUNDS, callbacks=[killer], checkpoint=checkpoint
            )
            found.append([len(killer.killed), result.model.sha256])
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

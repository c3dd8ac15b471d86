"""Processes killed at random moments: the run ends with the right answer, every time.

``HEMIOLA_KILLS=20`` has it happen 20 times instead of twice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from killing import ROUNDS, Killer, python_workers
from spark_problems import algorithm, bits, trained

from hemiola.engines.spark import Spark

KILLS = int(os.environ.get("HEMIOLA_KILLS", "2"))
CLUSTER = Path(__file__).with_name("on_a_cluster.py")


@pytest.fixture(scope="module")
def wanted():
    return bits(algorithm("eamsgd", lr=0.1), "serial", rounds=ROUNDS)


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_python_process_killed_at_any_moment_changes_no_bit(session, wanted, seed):
    killer = Killer(python_workers, seed, within=0.1)
    chosen = algorithm("eamsgd", lr=0.1)
    found = trained(chosen, Spark(partitions=4), rounds=ROUNDS, callbacks=[killer])
    assert len(killer.killed) == 1
    assert found.model.sha256 == wanted


@pytest.mark.parametrize("seed", range(KILLS))
def test_nor_does_it_in_mode_barrier_with_a_checkpoint(session, wanted, tmp_path, seed):
    pytest.importorskip("torch")
    killer = Killer(python_workers, seed, within=0.0)  # all rounds take less than a tenth
    chosen = algorithm("eamsgd", lr=0.1, on_loss="restart", restarts=3)
    engine = Spark(mode="barrier", partitions=2, reduce="ordered")
    found = trained(chosen, engine, rounds=ROUNDS, callbacks=[killer], checkpoint=tmp_path)
    assert len(killer.killed) == 1
    assert found.model.sha256 == wanted


@pytest.mark.parametrize("mode", ["rounds", "barrier"])
def test_nor_does_an_executor_that_is_killed(wanted, tmp_path, mode):
    command = [sys.executable, CLUSTER, mode, str(KILLS), tmp_path]  # one context a process
    done = subprocess.run(command, capture_output=True, text=True, timeout=300 + 60 * KILLS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[1, wanted]] * KILLS

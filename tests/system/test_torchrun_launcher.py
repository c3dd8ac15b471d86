"""Engine ``torchrun`` under PyTorch's own launcher, and from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from time import sleep

import pytest
from typer.testing import CliRunner

from hemiola.cli.app import app
from hemiola.data import load
from hemiola.training import fit

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--rdzv-backend"]
TORCHRUN += ["c10d", "--rdzv-endpoint", "127.0.0.1:0", "--nproc-per-node"]


def torchrun(count, *words):
    """What ``hemiola train breast_cancer`` does under torchrun."""
    command = [*TORCHRUN, str(count), "-m", "hemiola", "train", "breast_cancer"]
    command += ["--engine", "torchrun", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done


def test_torchrun_trains_to_the_bits_of_serial(tmp_path):
    words = ["--algorithm", "bmuf", "--workers", "4", "--rounds", "10", "--target-loss", "0.09"]
    done = torchrun(2, *words, "--eval-every", "1", "-e", "reduce=ordered", "--json",
                    str(tmp_path / "r.json"), "--checkpoint", str(tmp_path / "kept"))  # fmt: skip
    assert done.stdout.count("weights sha256") == 1
    found = json.loads((tmp_path / "r.json").read_text())
    line = ["train", "breast_cancer", *words, "--eval-every", "1", "--json", "-"]
    expected = json.loads(CliRunner().invoke(app, line).stdout)
    assert found["weights_sha256"] == expected["weights_sha256"]
    assert (tmp_path / "kept" / "checkpoint.npz").exists()


def test_torchrun_has_the_server_of_an_asynchronous_run_in_rank_0(tmp_path):
    torchrun(3, "--algorithm", "asgd", "--workers", "2", "--rounds", "10", "--json",
             str(tmp_path / "r.json"))  # fmt: skip
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["history"]["records"][-1]["updates"] == 20


KILLED_ONCE = """
import os, signal, sys
from pathlib import Path
import hemiola
from hemiola.algorithms.registry import build
from hemiola.callbacks import Callback

class KillOnce(Callback):
    def on_update(self, event):
        marker = Path(sys.argv[1], "killed")
        if event.step == 5 and os.environ["RANK"] == "1" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

result = hemiola.fit(
    build("bmuf", {"on_loss": "restart"}), "logistic", hemiola.load("wine"), workers=2, rounds=8,
    engine=hemiola.engines.torchrun.Torchrun(reduce="ordered"), eval_every=2,
    checkpoint=Path(sys.argv[1], "kept"), callbacks=[KillOnce()],
)
Path(sys.argv[1], "sha" + os.environ["RANK"]).write_text(result.model.sha256)
"""


def test_torchrun_s_restart_goes_on_from_the_checkpoint(tmp_path):
    script = tmp_path / "killed_once.py"
    script.write_text("import hemiola.engines.torchrun\n" + KILLED_ONCE)
    command = [*TORCHRUN, "2", "--max-restarts", "1", str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists()
    whole = fit("bmuf", "logistic", load("wine"), workers=2, rounds=8)
    for rank in (0, 1):
        assert (tmp_path / f"sha{rank}").read_text() == whole.model.sha256


def test_ctrl_c_ends_all_ranks(tmp_path):
    log = tmp_path / "log"
    words = ["train", "breast_cancer", "--algorithm", "ssgd", "--engine", "torchrun", "--workers"]
    words += ["2", "--rounds", "1000000", "--eval-every", "1", "--log", str(log)]
    process = subprocess.Popen(
        [sys.executable, "-m", "hemiola", *words], stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        while not log.exists() or len(log.read_text()) < 10:
            assert process.poll() is None
            sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate()[1]
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted after round" in errors

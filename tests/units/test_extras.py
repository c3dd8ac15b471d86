"""What happens without the packages that only some users need."""

from __future__ import annotations

import sys

import pytest
from typer.testing import CliRunner

from hemiola.cli.app import app
from hemiola.errors import MissingExtraError
from hemiola.training import fit


class Lacking:
    """Finds no torch."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.fixture
def no_torch(monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "torch" or name == "hemiola.objectives.torch":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Lacking(), *sys.meta_path])


def test_the_command_line_answers_with_the_command_that_installs(no_torch):
    words = ["train", "digits", "--algorithm", "ssgd", "--objective", "mlp", "-o", "lr=0.1"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 2
    assert "pip install 'hemiola[torch]'" in found.output


def test_so_does_python(no_torch, two_classes):
    with pytest.raises(MissingExtraError, match=r"hemiola\[torch\]"):
        fit("ssgd", "mlp", two_classes())
    with pytest.raises(ImportError, match=r"hemiola\[torch\]"):
        from hemiola.objectives import Torch  # noqa: F401


def test_everything_else_works_without(no_torch, two_classes):
    assert fit("ssgd", "logistic", two_classes(), rounds=2).weights.size == 4


def test_an_engine_answers_with_the_command_that_installs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    words = ["train", "digits", "--algorithm", "ssgd", "--engine", "spark", "--rounds", "1"]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 2
    assert "pip install 'hemiola[spark]'" in found.output

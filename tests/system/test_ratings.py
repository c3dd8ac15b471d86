"""Matrix completion from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from hemiola.cli.app import app


@pytest.fixture
def hemiola():
    """Run a command line; the outcome with exit_code, stdout and stderr."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def parsed(outcome):
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


@pytest.fixture
def ratings(tmp_path):
    """A file of 300 ratings, of which the last user gave one only."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 20, 300), rng.integers(0, 15, 300)
    stars = np.clip(np.round(3 + users % 3 - items % 4 / 2 + rng.normal(size=300) / 4), 1, 5)
    lines = [f"u{u},{i},{z}" for u, i, z in zip(users, items, stars, strict=True)]
    file = tmp_path / "ratings.csv"
    file.write_text("\n".join(["user,item,stars", *lines, "u99,0,5"]))
    return file


def test_ratings_are_completed(hemiola, ratings):
    words = ["train", ratings, "--objective", "factorization(rank=2)", "--test-size", "0.1"]
    outcome = hemiola(*words, "--algorithm", "stratified", "--workers", "2", "--epochs", "40",
                      "-o", "lr=0.1", "--json", "-")  # fmt: skip
    found = parsed(outcome)
    assert found["objective"]["rank"] == 2
    assert found["objective"]["users"] == 21
    assert found["data"]["train"] + found["data"]["test"] == 301
    assert found["final"]["r2"] > 0.8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--objective", "factorization(rank=x)"], "cannot be read"),
        (["--objective", "factorization(size=3)"], "has a rank, no size"),
        (["--objective", "factorization", "--label", "2"], "leave out --label"),
        (["--objective", "factorization", "--l1", "0.1"], "no L1"),
    ],
)
def test_what_ratings_cannot_do_is_refused(hemiola, ratings, words, message):
    outcome = hemiola("train", ratings, "--algorithm", "stratified", *words)
    assert outcome.exit_code != 0
    assert message in outcome.stderr


def test_stratified_says_what_it_is_for(hemiola):
    outcome = hemiola("train", "breast_cancer", "--algorithm", "stratified")
    assert outcome.exit_code != 0
    assert "--objective factorization" in outcome.stderr

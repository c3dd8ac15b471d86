"""``hemiola predict``: use a saved model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hemiola.cli import output
from hemiola.cli.setup import column
from hemiola.data import load
from hemiola.dataset import Dataset
from hemiola.result import Model, Result
from hemiola.storage import write_atomically
from hemiola.types import Array


class Rows(NamedTuple):
    """Features (m, p), and the labels or targets (m,) where there are any."""

    X: Any
    y: Array | None


def predict(
    model_file: Path, source: str, label: str | None, target: Path | None, as_json: bool
) -> None:
    """Predict every row, write the predictions, show the score on the labels."""
    output.check_places((target,))
    model = Result.load(model_file).model
    data = _load(source, column(label), model)
    rows = _rows(data, model, label)
    predictions = model.predict(rows.X)
    scores = {} if rows.y is None else _score(model, predictions, rows.y)
    if target is not None:
        _write(target, predictions)
    if as_json:
        about = {"model": str(model_file), "data": data.name, "samples": len(data)}
        output.write_json(Path("-"), {**about, **scores, "predictions": predictions.tolist()})
        return
    console = output.console(stderr=str(target) == "-")
    words = [f"{output.metric_name(name)} {value:.4f}" for name, value in scores.items()]
    console.print(
        f"{data.name}: {len(data):,} predictions, {', '.join(words) or 'no labels to score them'}",
        markup=False,
        highlight=False,
    )
    output.name_places(console, {"predictions": target})


def _load(source: str, label: str | int | None, model: Model) -> Dataset:
    regression = model.classes is None
    data = load(source, regression=regression, label=label)
    if data.is_sparse and data.n_features < model.n_features:
        return load(source, regression=regression, label=label, n_features=model.n_features)
    return data


def _rows(data: Dataset, model: Model, label: str | None) -> Rows:
    """The last column of a table without labels was read as labels: put it back."""
    y = data.y if data.classes is None else data.classes[data.y]
    lacks_one = data.n_features + 1 == model.n_features and not data.is_sparse
    if lacks_one and label is None and y.dtype.kind in "iuf":
        return Rows(np.column_stack([data.X, y.astype(data.dtype)]), None)
    return Rows(data.X, y)


def _score(model: Model, predictions: Array, y: Array) -> dict[str, float]:
    if model.classes is None:
        rest = float(np.square(y - predictions).sum())
        total = float(np.square(y - y.mean()).sum())
        return {"r2": 1 - rest / total if total else 0.0}
    if not np.isin(y.astype(str), model.classes.astype(str)).any():
        return {}  # a column of other things than the model's classes
    return {"accuracy": float((predictions.astype(str) == y.astype(str)).mean())}


def _write(target: Path, predictions: Array) -> None:
    text = "".join(f"{value}\n" for value in predictions.tolist())
    if str(target) == "-":
        sys.stdout.write(text)
    else:
        write_atomically(target, text.encode())

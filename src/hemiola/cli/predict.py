"""``hemiola predict``: use a saved model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hemiola.cli import output
from hemiola.data import load
from hemiola.dataset import Dataset
from hemiola.result import Model, Result
from hemiola.storage import write_atomically
from hemiola.types import Array


def predict(
    model_file: Path, source: str, label: str | None, target: Path | None, json: Path | None
) -> None:
    """Predict every row, write the predictions, show the score on the labels."""
    output.check_places((target, json))
    model = Result.load(model_file).model
    column = int(label) if label and label.isdigit() else label
    regression = model.classes is None
    data = load(source, regression=regression, label=column)
    if data.is_sparse and data.n_features < model.n_features:
        data = load(source, regression=regression, label=column, n_features=model.n_features)
    predictions = model.predict(data.X)
    if target is not None:
        write_atomically(target, "".join(f"{value}\n" for value in predictions).encode())
    name, value = _score(model, predictions, data)
    if json is not None:
        output.write_json(json, {"n": len(data), name: value})
        if str(json) == "-":
            return
    console = output.console()
    console.print(f"{len(data):,} predictions, {name} {value:.4f} on the labels of the data")
    if target is not None:
        console.print(f"predictions: {target}", highlight=False)


def _score(model: Model, predictions: Array, data: Dataset) -> tuple[str, float]:
    if data.classes is not None:
        return "accuracy", float((predictions == data.classes[data.y]).mean())
    rest = float(np.square(data.y - predictions).sum())
    total = float(np.square(data.y - data.y.mean()).sum())
    return "r2", 1 - rest / total if total else 0.0

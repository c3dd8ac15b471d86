"""The options that commands share, each with its help, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Data = Annotated[str, Argument(help="A built-in data set (see `hemiola data`) or a file.")]
Engine = Annotated[
    str | None,
    Option(
        help="serial, threads or simulator; see `hemiola engines`.",
        show_default="serial; threads where memory is shared",
    ),
]
Workers = Annotated[int, Option(help="Number of workers, K.")]
Rounds = Annotated[
    int | None,
    Option(
        help="Synchronous rounds; an asynchronous round is K updates of the server, one of shared "
        "memory a pass over the data.",
        show_default="300; 20 passes",
    ),
]
Epochs = Annotated[
    float | None, Option(help="Passes over the data, instead of --rounds.", show_default=False)
]
Seed = Annotated[int, Option(help="Of everything random in training.")]
Objective = Annotated[
    str, Option(help="auto, logistic, softmax, squared or hinge loss. auto looks at the targets.")
]
L2 = Annotated[
    float | None, Option(help="L2 regularisation; 1/n if not given (scikit-learn's C = 1).")
]
TestSize = Annotated[float, Option(help="Share of the data held out for the score; 0: none.")]
SplitSeed = Annotated[int, Option(help="Of the split into training and test data.")]
TestData = Annotated[
    str | None, Option(help="A file to test on, instead of a split.", show_default=False)
]
Label = Annotated[
    str | None, Option(help="CSV, Parquet: name or number of the label column (default: last).")
]
Standardize = Annotated[
    bool,
    Option(
        "--standardize/--raw",
        help="Scale features to unit variance (dense ones also to mean 0), as fitted on the "
        "training part.",
    ),
]
EvalEvery = Annotated[
    int | None, Option(help="Rounds between evaluations; about 100 a run if not given.")
]
KeepBest = Annotated[
    bool, Option("--keep-best", help="Keep the weights of the lowest test loss, not the last ones.")
]
TargetLoss = Annotated[float | None, Option(help="Stop once the training loss is this low.")]
TimeLimit = Annotated[
    float | None, Option(help="Stop after this many seconds (virtual ones in the simulator).")
]
Patience = Annotated[
    int | None, Option(help="Stop after this many evaluations without a better test loss.")
]
AlgorithmOptions = Annotated[
    list[str] | None,
    Option("-o", "--option", metavar="KEY=VALUE", help="An option of the algorithm. Repeatable."),
]
EngineOptions = Annotated[
    list[str] | None,
    Option(
        "-e", "--engine-option", metavar="KEY=VALUE", help="An option of the engine. Repeatable."
    ),
]
Json = Annotated[
    Path | None, Option(help="Write settings, history and results here; - is standard output.")
]
Plot = Annotated[
    Path | None, Option(help="Draw accuracy and loss to this .png, .svg or .pdf file.")
]

"""The options that commands share, each with its help, declared once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

Data = Annotated[
    str,
    Argument(
        help="A built-in data set (see `hemiola data`), a file, a quoted pattern of files, or a "
        "directory of shards (see `hemiola convert`)."
    ),
]
Engine = Annotated[
    str | None,
    Option(
        help="serial, threads, processes, simulator, torchrun or spark; see `hemiola engines`.",
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
    str,
    Option(
        help="auto, logistic, softmax, squared or hinge loss of a linear model; auto looks at the "
        "targets. Or factorization of ratings, 'factorization(rank=8)'. Or a network: mlp, "
        "'mlp(hidden=32)', mlp2, alexnet, charlm, or a function package.module:factory that makes "
        "one."
    ),
]
L1 = Annotated[float, Option(help="L1 regularisation, for algorithms with a proximal step (admm).")]
L2 = Annotated[
    float | None,
    Option(help="L2 regularisation; 1/n if not given (scikit-learn's C = 1), or 0 with --l1."),
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
Faults = Annotated[
    list[str] | None,
    Option(
        "--fault",
        metavar="KIND:KEY=VALUE,...",
        help="What is to befall a worker: slow, stall, die, hang or poison, for example "
        "die:worker=1,at=20,back_after=0.5. Repeatable.",
    ),
]
Json = Annotated[
    Path | None, Option(help="Write settings, history and results here; - is standard output.")
]
Plot = Annotated[
    Path | None, Option(help="Draw accuracy and loss to this .png, .svg or .pdf file.")
]
Timeline = Annotated[
    Path | None,
    Option(help="Who did what when: .png, .svg, .pdf draw it, .json is a trace for Perfetto."),
]
ResidualPlot = Annotated[
    Path | None,
    Option(help="ADMM: draw the residuals, what they may be, and rho by round, to a file."),
]
StalenessPlot = Annotated[
    Path | None, Option(help="Draw staleness, and loss against updates and time, to a file.")
]


def _common(
    data: Data,
    engine: Engine = None,
    workers: Workers = 4,
    rounds: Rounds = None,
    epochs: Epochs = None,
    objective: Objective = "auto",
    l1: L1 = 0.0,
    l2: L2 = None,
    test_size: TestSize = 0.2,
    split_seed: SplitSeed = 0,
    test_data: TestData = None,
    label: Label = None,
    standardize: Standardize = True,
    eval_every: EvalEvery = None,
    keep_best: KeepBest = False,
    target_loss: TargetLoss = None,
    time_limit: TimeLimit = None,
    patience: Patience = None,
    engine_options: EngineOptions = None,
    faults: Faults = None,
) -> None:
    """What all commands that train take: the fields of :class:`hemiola.cli.setup.Setup`."""


Given = dict[str, Any]
Command = Callable[..., None]


def with_setup(**fixed: Any) -> Callable[[Command], Command]:
    """Let a command take the common options; it gets them together, as its argument ``given``.

    Those that are ``fixed`` are not offered; those that the command declares itself are its own.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters
        common = inspect.signature(_common, eval_str=True).parameters
        offered = [p for name, p in common.items() if name not in own and name not in fixed]
        taken = {p.name for p in offered}

        @functools.wraps(command)
        def wrapped(**options: Any) -> None:
            given = {**fixed, **{name: options.pop(name) for name in taken}}
            command(given, **options)

        both = [*offered, *(p for name, p in own.items() if name != "given")]
        shown = sorted(both, key=lambda p: p.default is not p.empty)  # what is required comes first
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in shown]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate

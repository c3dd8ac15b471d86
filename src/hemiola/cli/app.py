"""The commands and their options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer import Argument, Option

from hemiola.cli import flags
from hemiola.errors import HemiolaError, TrainingInterrupted

F = TypeVar("F", bound=Callable[..., Any])

app = typer.Typer(
    help="Distributed machine learning, synchronous and asynchronous, from four modules.\n\n"
    "Start with: hemiola compare breast_cancer --algorithms ssgd,bmuf,easgd --plot out.png",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _plain_errors(command: F) -> F:
    """Turn errors that the user can remedy into one sentence and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except HemiolaError as error:
            typer.echo(f"hemiola: {error}", err=True)
            raise typer.Exit(2) from None
        except TrainingInterrupted as stop:
            typer.echo(f"hemiola: {stop}", err=True)
            raise typer.Exit(130) from None

    return wrapped  # type: ignore[return-value]


@app.command(
    epilog="hemiola train digits --algorithm bmuf --workers 8 -o steps=20 --save digits.npz\n\n"
    "hemiola train a9a.svm --algorithm asgd --engine simulator --workers 1000 -e compute=lognormal"
)
@_plain_errors
def train(
    data: flags.Data,
    algorithm: Annotated[str, Option(help="Its name; see `hemiola algorithms`.")],
    engine: flags.Engine = "serial",
    workers: flags.Workers = 4,
    rounds: flags.Rounds = 300,
    epochs: flags.Epochs = None,
    seed: flags.Seed = 0,
    objective: flags.Objective = "auto",
    l2: flags.L2 = None,
    test_size: flags.TestSize = 0.2,
    split_seed: flags.SplitSeed = 0,
    test_data: flags.TestData = None,
    label: flags.Label = None,
    standardize: flags.Standardize = True,
    eval_every: flags.EvalEvery = None,
    checkpoint: Annotated[
        Path | None, Option(help="Directory to keep the run's state in, for --resume.")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Continue from the checkpoint.")] = False,
    keep_best: Annotated[
        bool, Option("--keep-best", help="Keep the weights of the lowest test loss.")
    ] = False,
    target_loss: Annotated[
        float | None, Option(help="Stop once the training loss is this low.")
    ] = None,
    time_limit: Annotated[float | None, Option(help="Stop after this many seconds.")] = None,
    patience: Annotated[
        int | None, Option(help="Stop after this many evaluations without a better test loss.")
    ] = None,
    json: flags.Json = None,
    log: Annotated[Path | None, Option(help="Write one JSON line an evaluation.")] = None,
    plot: flags.Plot = None,
    save: Annotated[Path | None, Option(help="Write the model, for `hemiola predict`.")] = None,
    option: flags.AlgorithmOptions = None,
    engine_option: flags.EngineOptions = None,
) -> None:
    """Train a model with one algorithm."""
    from hemiola.cli.setup import Setup
    from hemiola.cli.train import Run
    from hemiola.cli.train import train as run_train

    setup = Setup(
        data, engine, workers, rounds, epochs, objective, l2, test_size, split_seed, test_data,
        label, standardize, eval_every, engine_option or [],
    )  # fmt: skip
    run = Run(
        algorithm, option or [], seed, checkpoint, resume, keep_best, target_loss, time_limit,
        patience, json, log, plot, save,
    )  # fmt: skip
    run_train(setup, run)


@app.command(
    epilog="hemiola compare digits --algorithms ssgd,fedavg,bmuf --seeds 10 --plot digits.png\n\n"
    "hemiola compare wine --algorithms ssgd,bmuf -o batch_size=8 -o bmuf.eta=0.9"
)
@_plain_errors
def compare(
    data: flags.Data,
    algorithms: Annotated[str, Option(help="Names, separated by commas.")],
    seeds: Annotated[int, Option(help="Runs of each algorithm, with seeds from --seed on.")] = 1,
    engine: flags.Engine = "serial",
    workers: flags.Workers = 4,
    rounds: flags.Rounds = 300,
    epochs: flags.Epochs = None,
    seed: flags.Seed = 0,
    objective: flags.Objective = "auto",
    l2: flags.L2 = None,
    test_size: flags.TestSize = 0.2,
    split_seed: flags.SplitSeed = 0,
    test_data: flags.TestData = None,
    label: flags.Label = None,
    standardize: flags.Standardize = True,
    eval_every: flags.EvalEvery = None,
    json: flags.Json = None,
    plot: flags.Plot = None,
    option: flags.AlgorithmOptions = None,
    engine_option: flags.EngineOptions = None,
) -> None:
    """Train with several algorithms and show who is better, and at what cost.

    An option -o goes to every algorithm that has it; -o bmuf.eta=0.9 to one of them.
    """
    from hemiola.cli.compare import compare as run_compare
    from hemiola.cli.setup import Setup

    setup = Setup(
        data, engine, workers, rounds, epochs, objective, l2, test_size, split_seed, test_data,
        label, standardize, eval_every, engine_option or [],
    )  # fmt: skip
    names = [name.strip() for name in algorithms.split(",") if name.strip()]
    run_compare(setup, names, option or [], range(seed, seed + seeds), json, plot)


@app.command(epilog="hemiola algorithms bmuf")
@_plain_errors
def algorithms(
    name: Annotated[str | None, Argument(help="One algorithm: equations and options.")] = None,
    json: Annotated[bool, Option("--json", help="As JSON, with all settings.")] = False,
) -> None:
    """The field's table: every algorithm as a composition of the four modules."""
    from hemiola.cli.show import show_algorithm, show_algorithms

    show_algorithms(json) if name is None else show_algorithm(name)


@app.command()
@_plain_errors
def engines(json: Annotated[bool, Option("--json", help="As JSON.")] = False) -> None:
    """The engines, their disciplines and options."""
    from hemiola.cli.show import show_engines

    show_engines(json)


@app.command()
@_plain_errors
def data() -> None:
    """The built-in data sets and the file formats."""
    from hemiola.cli.show import show_data

    show_data()


@app.command(epilog="hemiola predict digits.npz digits --output predictions.txt")
@_plain_errors
def predict(
    model: Annotated[Path, Argument(help="A model written by `hemiola train --save`.")],
    data: flags.Data,
    label: flags.Label = None,
    output: Annotated[Path | None, Option(help="Write one prediction a line.")] = None,
    json: flags.Json = None,
) -> None:
    """Predict with a saved model, and score it on the labels of the data."""
    from hemiola.cli.predict import predict as run_predict

    run_predict(model, data, label, output, json)

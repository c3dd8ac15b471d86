"""The commands and their options."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer import Argument, Option

from hemiola import __version__
from hemiola.cli import flags
from hemiola.errors import HemiolaError, TrainingInterrupted

F = TypeVar("F", bound=Callable[..., Any])


def _examples(*lines: str) -> str:
    """An epilog of examples, each on a line of its own."""
    return "\n\n".join(["Examples:", *lines])


app = typer.Typer(
    help="Distributed machine learning, synchronous and asynchronous, from four modules.",
    epilog=_examples(
        "hemiola compare breast_cancer --algorithms ssgd,bmuf,easgd --plot out.png",
        "hemiola train digits --algorithm fedavg --workers 10 --save digits.npz",
        "hemiola algorithms bmuf",
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _plain_errors(command: F) -> F:
    """Turn what the user can remedy into one sentence and exit code 2, Ctrl-C into code 130."""

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
        except KeyboardInterrupt:
            typer.echo("hemiola: interrupted", err=True)
            raise typer.Exit(130) from None

    return wrapped  # type: ignore[return-value]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hemiola {__version__}")
        raise typer.Exit


@app.callback()
def hemiola(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command(
    epilog=_examples(
        "hemiola train digits --algorithm bmuf --workers 8 -o steps=20 --save digits.npz",
        "hemiola train a9a.svm --algorithm asgd --engine simulator -e compute=lognormal",
        "hemiola train big.npz --algorithm ssgd --epochs 20 --checkpoint run1 --log run1.jsonl",
        "hemiola train big.npz --algorithm ssgd --epochs 40 --checkpoint run1 --resume",
        "hemiola train rcv1.svm --algorithm tiered --workers 2 --epochs 10",
        "hemiola train wine --algorithm fedavg -o partition=dirichlet -o partition.alpha=0.3",
    )
)
@_plain_errors
def train(
    data: flags.Data,
    algorithm: Annotated[str, Option(help="Its name; see `hemiola algorithms`.")],
    engine: flags.Engine = None,
    workers: flags.Workers = 4,
    rounds: flags.Rounds = None,
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
    keep_best: flags.KeepBest = False,
    target_loss: flags.TargetLoss = None,
    time_limit: flags.TimeLimit = None,
    patience: flags.Patience = None,
    json: flags.Json = None,
    log: Annotated[Path | None, Option(help="Write one JSON line an evaluation.")] = None,
    plot: flags.Plot = None,
    save: Annotated[Path | None, Option(help="Write the model, for `hemiola predict`.")] = None,
    trace: Annotated[
        Path | None,
        Option(help="Asynchronous runs: record the order of events, for `hemiola replay`."),
    ] = None,
    staleness_plot: Annotated[
        Path | None, Option(help="Draw staleness, and loss against updates and time, to a file.")
    ] = None,
    option: flags.AlgorithmOptions = None,
    engine_option: flags.EngineOptions = None,
) -> None:
    """Train a model with one algorithm.

    Only --algorithm is needed: all else has defaults that follow the paper or the data.
    """
    from hemiola.cli.setup import Setup
    from hemiola.cli.train import Run
    from hemiola.cli.train import train as run_train

    setup = Setup(
        data, engine, workers, rounds, epochs, objective, l2, test_size, split_seed, test_data,
        label, standardize, eval_every, keep_best, target_loss, time_limit, patience,
        engine_option or (),
    )  # fmt: skip
    run = Run(
        algorithm, option or (), seed, checkpoint, resume, json, log, plot, save, trace,
        staleness_plot,
    )  # fmt: skip
    run_train(setup, run)


@app.command(
    epilog=_examples(
        "hemiola compare digits --algorithms ssgd,fedavg,bmuf --seeds 10 --plot digits.png",
        "hemiola compare wine --algorithms ssgd,bmuf -o batch_size=8 -o bmuf.eta=0.9",
        "hemiola compare digits --algorithms ssgd,asgd --engine simulator -e compute=stragglers",
    )
)
@_plain_errors
def compare(
    data: flags.Data,
    algorithms: Annotated[str, Option(help="Names, separated by commas.")],
    seeds: Annotated[int, Option(help="Runs of each algorithm, with seeds from --seed on.")] = 1,
    engine: flags.Engine = None,
    workers: flags.Workers = 4,
    rounds: flags.Rounds = None,
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
    keep_best: flags.KeepBest = False,
    target_loss: flags.TargetLoss = None,
    time_limit: flags.TimeLimit = None,
    patience: flags.Patience = None,
    json: flags.Json = None,
    plot: flags.Plot = None,
    staleness_plot: Annotated[
        Path | None, Option(help="Draw staleness, and loss against updates and time, to a file.")
    ] = None,
    option: flags.AlgorithmOptions = None,
    engine_option: flags.EngineOptions = None,
) -> None:
    """Train with several algorithms and show who is better, and at what cost.

    All runs share one split of the data.

    An option -o steps=5 goes to every algorithm that has it, -o bmuf.eta=0.9 to one of them.
    """
    from hemiola.cli.compare import Comparison
    from hemiola.cli.compare import compare as run_compare
    from hemiola.cli.setup import Setup

    setup = Setup(
        data, engine, workers, rounds, epochs, objective, l2, test_size, split_seed, test_data,
        label, standardize, eval_every, keep_best, target_loss, time_limit, patience,
        engine_option or (),
    )  # fmt: skip
    names = [name.strip() for name in algorithms.split(",") if name.strip()]
    wanted = Comparison(
        names, option or (), range(seed, seed + seeds), json, plot, staleness_plot
    )  # fmt: skip
    run_compare(setup, wanted)


@app.command(
    epilog=_examples(
        "hemiola train digits --algorithm asgd --engine threads --trace run.trace",
        "hemiola replay run.trace",
        "hemiola replay run.trace --until 100 --save early.npz",
    )
)
@_plain_errors
def replay(
    trace: Annotated[Path, Argument(help="A file recorded by `hemiola train --trace`.")],
    until: Annotated[int | None, Option(help="Stop after this many updates.")] = None,
    json: flags.Json = None,
    save: Annotated[Path | None, Option(help="Write the model at that point.")] = None,
) -> None:
    """Repeat an asynchronous run in its recorded order, to the same bits."""
    from hemiola.cli.replay import replay as run_replay

    run_replay(trace, until, json, save)


@app.command(
    epilog=_examples("hemiola algorithms", "hemiola algorithms bmuf", "hemiola algorithms --json")
)
@_plain_errors
def algorithms(
    name: Annotated[str | None, Argument(help="One algorithm: equations and options.")] = None,
    json: Annotated[bool, Option("--json", help="As JSON, with all settings.")] = False,
) -> None:
    """The field's table: every algorithm as a composition of the four modules."""
    from hemiola.cli.show import show_algorithm, show_algorithms

    show_algorithms(json) if name is None else show_algorithm(name, json)


@app.command(epilog=_examples("hemiola engines", "hemiola engines --json"))
@_plain_errors
def engines(json: Annotated[bool, Option("--json", help="As JSON.")] = False) -> None:
    """The engines, their disciplines and options."""
    from hemiola.cli.show import show_engines

    show_engines(json)


@app.command(epilog=_examples("hemiola data"))
@_plain_errors
def data() -> None:
    """The built-in data sets and the file formats."""
    from hemiola.cli.show import show_data

    show_data()


@app.command(
    epilog=_examples(
        "hemiola predict digits.npz digits",
        "hemiola predict model.npz new.csv --output predictions.csv",
        "hemiola predict model.npz new.csv --json",
    )
)
@_plain_errors
def predict(
    model: Annotated[Path, Argument(help="A model written by `hemiola train --save`.")],
    data: flags.Data,
    label: flags.Label = None,
    output: Annotated[
        Path | None, Option(help="Write one prediction a line; - is standard output.")
    ] = None,
    json: Annotated[bool, Option("--json", help="Predictions and score as JSON.")] = False,
) -> None:
    """Predict with a saved model, and score it where the data have labels.

    A table that has the model's features only, without a label column, is fine too.
    """
    from hemiola.cli.predict import predict as run_predict

    run_predict(model, data, label, output, json)

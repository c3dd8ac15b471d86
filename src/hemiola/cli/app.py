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
        "hemiola train wine --algorithm ssgd --engine threads --fault die:worker=2,at=5",
    )
)
@_plain_errors
@flags.with_setup()
def train(
    given: flags.Given,
    algorithm: Annotated[str, Option(help="Its name; see `hemiola algorithms`.")],
    seed: flags.Seed = 0,
    checkpoint: Annotated[
        Path | None, Option(help="Directory to keep the run's state in, for --resume.")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Continue from the checkpoint.")] = False,
    json: flags.Json = None,
    log: Annotated[Path | None, Option(help="Write one JSON line an evaluation.")] = None,
    plot: flags.Plot = None,
    save: Annotated[Path | None, Option(help="Write the model, for `hemiola predict`.")] = None,
    trace: Annotated[
        Path | None,
        Option(help="Asynchronous runs: record the order of events, for `hemiola replay`."),
    ] = None,
    timeline: flags.Timeline = None,
    staleness_plot: flags.StalenessPlot = None,
    residual_plot: flags.ResidualPlot = None,
    option: flags.AlgorithmOptions = None,
) -> None:
    """Train a model with one algorithm.

    Only --algorithm is needed: all else has defaults that follow the paper or the data.
    """
    from hemiola.cli.setup import Setup
    from hemiola.cli.train import Run
    from hemiola.cli.train import train as run_train

    run = Run(
        algorithm, option or (), seed, checkpoint, resume, json, log, plot, save, trace, timeline,
        staleness_plot, residual_plot,
    )  # fmt: skip
    run_train(Setup(**given), run)


@app.command(
    epilog=_examples(
        "hemiola compare digits --algorithms ssgd,fedavg,bmuf --seeds 10 --plot digits.png",
        "hemiola compare wine --algorithms ssgd,bmuf -o batch_size=8 -o bmuf.eta=0.9",
        "hemiola compare digits --algorithms ssgd,asgd --engine simulator -e compute=stragglers",
    )
)
@_plain_errors
@flags.with_setup()
def compare(
    given: flags.Given,
    algorithms: Annotated[str, Option(help="Names, separated by commas.")],
    seeds: Annotated[int, Option(help="Runs of each algorithm, with seeds from --seed on.")] = 1,
    seed: flags.Seed = 0,
    json: flags.Json = None,
    plot: flags.Plot = None,
    staleness_plot: flags.StalenessPlot = None,
    option: flags.AlgorithmOptions = None,
) -> None:
    """Train with several algorithms and show who is better, and at what cost.

    All runs share one split of the data.

    An option -o steps=5 goes to every algorithm that has it, -o bmuf.eta=0.9 to one of them.
    """
    from hemiola.cli.compare import Comparison
    from hemiola.cli.compare import compare as run_compare
    from hemiola.cli.setup import Setup

    names = [name.strip() for name in algorithms.split(",") if name.strip()]
    wanted = Comparison(
        names, option or (), range(seed, seed + seeds), json, plot, staleness_plot
    )  # fmt: skip
    run_compare(Setup(**given), wanted)


@app.command(
    epilog=_examples(
        "hemiola simulate digits --algorithm asgd --workers 1000 -e compute=lognormal",
        "hemiola simulate wine --algorithm ssp -e network=tiers -e network.rack=2 -o s=1",
        "hemiola simulate digits --sweep algorithm=ssgd,asgd --sweep workers=4,16,64 "
        "--target-loss 0.4",
        "hemiola simulate digits --algorithm ssgd --calibrate run.json --sweep workers=4,64",
    )
)
@_plain_errors
@flags.with_setup(engine="simulator")
def simulate(
    given: flags.Given,
    algorithm: Annotated[
        str | None, Option(help="Its name; not needed with --sweep algorithm=...")
    ] = None,
    workers: Annotated[
        int | None,
        Option(help="Number of workers, K.", show_default="4, or those of --calibrate"),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        Option(
            metavar="KEY=A,B,C",
            help="Simulate with each value: of workers, algorithm, seed, or an option of the "
            "algorithm or of the cluster. Repeatable: all combinations.",
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        Option(help="Take the times of computing and messages from a run's --json file."),
    ] = None,
    jobs: Annotated[
        int | None, Option(help="Simulations at the same time; as many as processors.")
    ] = None,
    seed: flags.Seed = 0,
    json: flags.Json = None,
    timeline: flags.Timeline = None,
    option: flags.AlgorithmOptions = None,
) -> None:
    """Predict what a cluster would do: time to a loss, idle time, traffic and staleness.

    -e describes the cluster: compute, speed, slow_share, slow_factor, latency, bandwidth, network,
    server_bandwidth; see `hemiola engines`.
    """
    from hemiola.cli.setup import Setup
    from hemiola.cli.simulate import Simulation
    from hemiola.cli.simulate import simulate as run_simulate

    wanted = Simulation(
        algorithm, workers, option or (), seed, sweep or (), calibrate, jobs, json, timeline
    )
    run_simulate(Setup(**given, workers=0), wanted)


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
    timeline: flags.Timeline = None,
) -> None:
    """Repeat an asynchronous run in its recorded order, to the same bits."""
    from hemiola.cli.replay import replay as run_replay

    run_replay(trace, until, json, save, timeline)


@app.command(
    epilog=_examples(
        "hemiola advise a9a.svm",
        "hemiola advise a9a.svm --workers 16 --target-loss 0.34",
        "hemiola advise a9a.svm --cluster cluster.toml",
    )
)
@_plain_errors
@flags.with_setup(engine="simulator", rounds=None, epochs=None, eval_every=None, keep_best=False,
                  time_limit=None, patience=None, engine_options=None, faults=None)  # fmt: skip
def advise(
    given: flags.Given,
    workers: Annotated[
        int | None,
        Option(help="Number of workers, K.", show_default="that of the cluster, or processors"),
    ] = None,
    cluster: Annotated[
        Path | None,
        Option(
            help="A TOML file: workers = 16 and options of engine simulator, such as "
            "latency = 0.001, slow_share = 0.25, or a table [network]. Without it: this machine."
        ),
    ] = None,
    json: flags.Json = None,
) -> None:
    """Which algorithm, when: simulate the candidates on a sample, rank them, and say why."""
    from hemiola.cli.advise import advise as run_advise
    from hemiola.cli.setup import Setup

    run_advise(Setup(**given, workers=0), cluster, workers, json)


@app.command(
    epilog=_examples(
        "hemiola plan --objective alexnet --memory 5MB --workers 2",
        "hemiola plan --objective alexnet-full --memory 1GB --workers 4 --optimizer adam",
        "hemiola plan --objective 'mlp2(inputs=784, classes=10, hidden=4096)' --memory 30MB "
        "--flops 1e12 --bandwidth 1e9",
    )
)
@_plain_errors
def plan(
    objective: Annotated[
        str,
        Option(
            help="A network, a sequence of layers: alexnet, alexnet-full, "
            "'mlp(inputs=784, classes=10)', 'package.module:factory(inputs=784, classes=10)'."
        ),
    ],
    memory: Annotated[str, Option(help="Of each worker: 50MB, 1.5GB, 2GiB.")],
    workers: Annotated[int, Option(min=1, help="Number of workers, at most.")] = 4,
    batch_size: Annotated[int, Option(min=1, help="Samples in a step.")] = 128,
    microbatches: Annotated[
        int | None,
        Option(min=1, help="Parts of a step.", show_default="at least four times the workers"),
    ] = None,
    schedule: Annotated[str, Option(help="1f1b or gpipe.")] = "1f1b",
    optimizer: Annotated[
        str, Option(help="Whose state needs memory, too: sgd, heavy-ball, adam, ...")
    ] = "heavy-ball",
    flops: Annotated[
        float | None, Option(help="Operations a second of a worker.", show_default="measured")
    ] = None,
    bandwidth: Annotated[
        float | None, Option(help="Bytes a second between workers.", show_default="measured")
    ] = None,
    json: flags.Json = None,
) -> None:
    """Cut a network for workers of little memory, and predict the time of a step.

    The fastest pipeline that fits: its cut, its memory, the bytes that it sends.
    """
    from hemiola.cli.plan import Wanted, run_plan

    run_plan(
        Wanted(objective, memory, workers, batch_size, microbatches, schedule, optimizer, flops,
               bandwidth, json)
    )  # fmt: skip


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
        "hemiola convert clicks.svm.gz clicks",
        "hemiola convert 'part-*.svm' clicks --shards 16 --dtype float32",
        "hemiola train clicks --algorithm model-averaging -o batch_size=1000 --epochs 1",
        "hemiola convert clicks clicks.parquet",
    )
)
@_plain_errors
def convert(
    source: Annotated[
        str,
        Argument(
            metavar="IN",
            help="A built-in data set, a file, a quoted pattern of files, or shards.",
        ),
    ],
    target: Annotated[
        Path,
        Argument(
            metavar="OUT",
            help="A file (.svm, .csv, .parquet or .npz), or a new directory for shards.",
        ),
    ],
    shards: Annotated[int | None, Option(help="How many shards to write, of equal size.")] = None,
    rows_per_shard: Annotated[
        int | None, Option(help="Or the rows of a shard; as many as fill 64 MB if not given.")
    ] = None,
    dtype: Annotated[str, Option(help="Of the features: float64 or float32.")] = "float64",
    label: flags.Label = None,
    regression: Annotated[
        bool, Option("--regression", help="Targets are real numbers, not classes.")
    ] = False,
) -> None:
    """Write data in another format: LIBSVM, CSV, Parquet, NPZ, or shards to train from disk.

    The input is read twice, in blocks: memory does not grow with it, except for NPZ.
    """
    from hemiola.cli.convert import convert as run_convert

    run_convert(source, target, shards, rows_per_shard, dtype, label, regression)


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

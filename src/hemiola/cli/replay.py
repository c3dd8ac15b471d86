"""``hemiola replay``: a recorded run once more."""

from __future__ import annotations

from dataclasses import replace as changed
from pathlib import Path

from hemiola.cli import output
from hemiola.cli.progress import ProgressBar
from hemiola.cli.setup import Setup, prepare
from hemiola.errors import CheckpointError
from hemiola.replay import replay as run
from hemiola.timeline import check_timeline
from hemiola.trace import load_trace


def replay(
    file: Path, until: int | None, json: Path | None, save: Path | None, timeline: Path | None
) -> None:
    """Repeat the run, or its beginning, and compare the weights with the recorded ones.

    Raises :class:`CheckpointError` when a whole run does not end in the recorded weights.
    """
    if timeline is not None:
        check_timeline(timeline)
    output.check_places((json, save, timeline))
    recorded = load_trace(file)
    setup = Setup.of_origin(recorded.origin)
    prepared = prepare(setup)
    name = recorded.settings["algorithm"]["name"]
    bar = ProgressBar(f"replay of {name}")
    result = run(
        recorded, prepared.train, eval_data=prepared.test, until=until, callbacks=(bar,),
        timeline=timeline,
    )  # fmt: skip
    same = result.model.sha256 == recorded.weights_sha256
    if until in (None, recorded.updates) and not same:
        raise CheckpointError(
            f"{file}: the replay ended in other weights than the recorded run; the file was "
            "altered, or recorded with another version or on another kind of processor."
        )
    model = changed(result.model, standardizer=prepared.standardizer)
    result = changed(result, model=model)
    data = prepared.describe()
    if save is not None:
        result.save(save)
    if json is not None:
        output.write_json(json, output.document(result, data))
    console = output.console(stderr=str(json) == "-")
    console.print(f"{name} on {prepared.words()}", markup=False, highlight=False)
    console.print(output.summary(result, data))
    verdict = "the recorded weights, bit for bit" if same else f"the state after {until:,} updates"
    console.print(f"replayed to {verdict}", highlight=False)
    output.name_places(console, {"model": save, "JSON": json, "timeline": timeline})

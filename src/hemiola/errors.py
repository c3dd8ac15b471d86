"""One exception hierarchy. Every message says what is wrong and what to do about it.

The command line turns any :class:`HemiolaError` into one sentence and exit code 2; nothing else is
caught there, so an unexpected traceback is always a bug of this library.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HemiolaError(Exception):
    """Base of all errors that a user can cause and can remedy."""


class DataError(HemiolaError, ValueError):
    """The data cannot be read or do not fit what is asked of them."""


class StreamEnded(DataError):
    """A stream has no more samples. Training ends with the model so far."""


class OptionError(HemiolaError, ValueError):
    """An option, a name or a combination of options that makes no sense.

    For an option that nothing has, ``path`` is its full name, ``known`` what could be meant.
    """

    def __init__(self, message: str, path: str | None = None, known: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.known = tuple(known)


class UnsupportedError(HemiolaError):
    """An engine was asked for something it cannot do; the message names engines that can."""


class MissingExtraError(HemiolaError, ImportError):
    """A package that only some users need is not installed; the message holds the command."""


class CheckpointError(HemiolaError):
    """A checkpoint or model file is damaged, of another version, or of another run."""


class DivergedError(HemiolaError, ArithmeticError):
    """Training left the finite numbers. ``result`` holds the last good weights, or is None."""

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


def nearest(name: str, known: Iterable[str]) -> str:
    """A closing clause for an unknown name: the nearest match, or the list of what is known.

    >>> nearest("bmuff", ["bmuf", "easgd"])
    "did you mean 'bmuf'?"
    >>> nearest("x", ["bmuf", "easgd"])
    'known are: bmuf, easgd'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(known)}"


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training. ``result`` holds the model so far, ``checkpoint`` a path or None."""

    def __init__(self, message: str, result: object = None, checkpoint: object = None) -> None:
        super().__init__(message)
        self.result = result
        self.checkpoint = checkpoint


class WorkersLostError(HemiolaError):
    """Workers died, hang or are too late, and the run cannot or should not go on without them.

    ``result`` holds the model so far, or is None.
    """

    result: object = None


class RestartError(WorkersLostError):
    """A worker died in a run that is to go on from its last checkpoint.

    ``begun`` says how many pieces of work each worker had begun by then.
    """

    def __init__(self, message: str, begun: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.begun = tuple(begun)

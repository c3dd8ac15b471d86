"""The command line. ``hemiola --help`` teaches it."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point. Every error of a user's making is one sentence and exit code 2."""
    try:
        from hemiola.cli.app import app

        app()
    except BrokenPipeError:  # the reader, such as ``head``, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)

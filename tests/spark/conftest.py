"""One session of Spark for all tests but those of sessions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyspark")

from hemiola.engines.spark import session as open_session

HERE = Path(__file__).parent
sys.path.append(str(HERE))
PLACES = [str(HERE.parents[1] / "src"), str(HERE), os.environ.get("PYTHONPATH", "")]


@pytest.fixture(scope="session")
def session():
    """At most four tasks at once; its processes can import the tests."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, PLACES))
    try:
        with open_session("local[4]") as spark:
            yield spark
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before

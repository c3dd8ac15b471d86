"""One session of Spark for all tests but those of sessions.

With ``SPARK_REMOTE=local[4]`` in the environment, tests of DataFrames use one of Spark Connect; a
process has sessions of one kind only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyspark")

from pyspark.sql import SparkSession

from hemiola.engines import _spark_session
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


@pytest.fixture(scope="session")
def spark(request, tmp_path_factory):
    """A session for DataFrames, at most four tasks at once."""
    if "SPARK_REMOTE" not in os.environ:
        yield SparkSession(request.getfixturevalue("session"))
        return
    additions = _spark_session._additions(tmp_path_factory.mktemp("java"))
    with _spark_session._environment(additions):
        remote = SparkSession.builder.getOrCreate()
        yield remote
        remote.stop()

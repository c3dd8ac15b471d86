"""What Spark's Python processes are forked from, with hemiola imported and the compiler warm."""

import gc

from pyspark.daemon import manager

if __name__ == "__main__":
    from hemiola.engines import _spark_rounds, _warm  # noqa: F401

    gc.freeze()
    manager()

"""Storage that is given up soon, in the processes of a cluster: what is tested is that it is, not how long that takes.

As Dask's `preload`, or as Spark's `spark.python.daemon.module`, which runs it as a program.
"""

from __future__ import annotations

from almanac_jobs import storage

storage.CONNECT_TIMEOUT = storage.REQUEST_TIMEOUT = 1.0
storage.ATTEMPTS = 2

if __name__ == "__main__":
    from pyspark.daemon import manager

    manager()

"""Jobs in a cluster, from Python: `Client` for plain programs and notebooks, `AsyncClient` for asyncio ones.

Both have the verbs of the command line (submit, status, watch, wait, results, cancel, resume, list, logs), find the
cluster as kubectl does, and raise a `ClientError` whose message says what to do.
"""

from almanac.client.aio import AsyncClient, Submission
from almanac.client.blocking import Client
from almanac.client.errors import (
    AccessDeniedError,
    ClientError,
    ConfigError,
    ConflictError,
    NotFoundError,
    NotInstalledError,
    RejectedError,
    UnreachableError,
    WaitTimeoutError,
)
from almanac.client.records import JobRecord, Reference, RunFailedError

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "Client",
    "ClientError",
    "ConfigError",
    "ConflictError",
    "JobRecord",
    "NotFoundError",
    "NotInstalledError",
    "Reference",
    "RejectedError",
    "RunFailedError",
    "Submission",
    "UnreachableError",
    "WaitTimeoutError",
]

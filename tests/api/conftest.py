"""An operator in front of the API of a test, and a job for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from almanac import lifecycle, process, waiting, warned, workqueue
from kube.cluster import Cluster
from operators import Ledger, Operator


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operator does after seconds, it does at once."""
    monkeypatch.setattr(process, "SETTLE", 0.02)
    monkeypatch.setattr(process, "GATHER", 0.1)
    for module in (lifecycle, waiting):
        monkeypatch.setattr(module, "PATIENCE", timedelta(seconds=0.2))
    monkeypatch.setattr(waiting, "ASK_EVERY", timedelta(seconds=0.2))
    monkeypatch.setattr(warned, "FRESH", 0.02)
    monkeypatch.setattr(warned, "SHARE", 0.0)
    monkeypatch.setattr(workqueue, "FIRST_DELAY", 0.02)


@pytest.fixture
def operator(cluster: Cluster, hasty: None) -> Iterator[Operator]:
    """An operator that runs."""
    with Operator(cluster) as made:
        yield made


@pytest.fixture
def ledger(cluster: Cluster) -> Ledger:
    """The job `ledger`; it is not submitted yet."""
    return Ledger(cluster)


@pytest.fixture
def driver_says() -> Iterator[Callable[[dict[str, Any]], int]]:
    """Answers at /progress, as a driver does; gives the port."""
    with ExitStack() as stack:

        def serve(said: dict[str, Any]) -> int:
            class Answer(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(200 if self.path == "/progress" else 404)
                    self.end_headers()
                    self.wfile.write(json.dumps(said).encode())

                def log_message(self, *_: object) -> None:
                    """Says nothing."""

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return server.server_port

        yield serve

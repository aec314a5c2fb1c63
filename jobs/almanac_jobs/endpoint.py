"""How far a driver is, over HTTP: `/progress` as JSON for the operator, `/metrics` for Prometheus, `/healthz`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from almanac_jobs.progress import Progress, Snapshot

PORT = 9400


@contextmanager
def serve(progress: Progress, port: int = PORT, host: str = "") -> Iterator[int]:
    """Answer requests until the block ends; gives the port (that the system chose, for 0).

    Raises:
        OSError: if the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = _PAGES.get(self.path)
            if answer is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            kind, write = answer
            body = write(progress).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by http.server
            pass

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="endpoint", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _as_json(progress: Progress) -> str:
    """The current stage; before the first and between stages, one of no units. `workers` are there on a cluster."""
    now = progress.snapshot() or Snapshot("", "", 0, None, 0.0)
    said: dict[str, Any] = {
        "stage": now.stage,
        "unit": now.unit,
        "done": now.done,
        "total": now.total,
        "secondsLeft": now.seconds_left,
    }
    if progress.workers is not None:
        said["workers"] = asdict(progress.workers)
    return json.dumps(said)


def _as_metrics(progress: Progress) -> str:
    """Every stage so far, in the text format of Prometheus."""
    now = progress.snapshot()
    stages = (*progress.finished(), *((now,) if now else ()))
    samples: dict[str, tuple[str, Callable[[Snapshot], float | None]]] = {
        "almanac_run_stage_units": ("Units of the stage that are done.", lambda one: one.done),
        "almanac_run_stage_expected_units": ("Units of the stage, as far as known.", lambda one: one.total),
        "almanac_run_stage_duration_seconds": ("Time spent in the stage.", lambda one: round(one.seconds, 3)),
    }
    lines = []
    for name, (help_text, value) in samples.items():
        lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        lines += [f'{name}{{stage="{one.stage}"}} {value(one)}' for one in stages if value(one) is not None]
    return "\n".join(lines) + "\n"


def _healthy(progress: Progress) -> str:
    return "ok\n"


_PAGES = {
    "/progress": ("application/json", _as_json),
    "/metrics": ("text/plain; version=0.0.4", _as_metrics),
    "/healthz": ("text/plain", _healthy),
}

"""How far a driver is, over HTTP: `/progress` as JSON for the operator, `/metrics` for Prometheus, `/healthz`."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from almanac_jobs import resources
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
    """Every stage so far, the cluster, and the process, in the text format of Prometheus."""
    now = progress.snapshot()
    stages = (*progress.finished(), *((now,) if now else ()))
    workers, spent = progress.workers, os.times()
    received, sent = traffic()
    values: dict[str, list[tuple[dict[str, str], float | None]]] = {
        "almanac_driver_stage_units_total": [({"stage": one.stage, "unit": one.unit}, one.done) for one in stages],
        "almanac_driver_stage_expected_units": [({"stage": one.stage, "unit": one.unit}, one.total) for one in stages],
        "almanac_driver_stage_duration_seconds": [({"stage": one.stage}, round(one.seconds, 3)) for one in stages],
        "almanac_driver_stage_active": [({"stage": one.stage}, float(one is now)) for one in stages],
        "almanac_driver_workers": [({"state": name}, getattr(workers, name)) for name in ("wanted", "running")]
        if workers
        else [],
        "almanac_driver_workers_failed_total": [({}, workers.failed)] if workers else [],
        "almanac_driver_received_bytes_total": [({}, received)],
        "almanac_driver_sent_bytes_total": [({}, sent)],
        "almanac_driver_memory_limit_bytes": [({}, resources.memory_limit())],
        "almanac_driver_info": [({"version": version("almanac")}, 1)],
        "process_resident_memory_bytes": [({}, resources.memory_used())],
        "process_cpu_seconds_total": [({}, round(spent.user + spent.system, 2))],
    }
    lines = []
    for name, (kind, help_, _) in METRICS.items():
        said = [(labels, value) for labels, value in values[name] if value is not None]
        if said:
            lines += [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {value}" for labels, value in said]
    return "\n".join(lines) + "\n"


METRICS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "almanac_driver_stage_units_total": (
        "counter",
        "Units of a stage that are done: rows read, series fitted, files written ...",
        ("stage", "unit"),
    ),
    "almanac_driver_stage_expected_units": ("gauge", "Units of a stage, once they are known.", ("stage", "unit")),
    "almanac_driver_stage_duration_seconds": ("gauge", "Time spent in a stage so far.", ("stage",)),
    "almanac_driver_stage_active": ("gauge", "1 for the stage that goes on, 0 for those that are over.", ("stage",)),
    "almanac_driver_workers": (
        "gauge",
        "Workers, or Spark's executors, that the run wants and that run.",
        ("state",),
    ),
    "almanac_driver_workers_failed_total": ("counter", "Workers that were lost without being asked to end.", ()),
    "almanac_driver_received_bytes_total": (
        "counter",
        "Bytes that the driver's pod has received, of data above all.",
        (),
    ),
    "almanac_driver_sent_bytes_total": ("counter", "Bytes that the driver's pod has sent.", ()),
    "almanac_driver_memory_limit_bytes": ("gauge", "Memory that the driver may hold.", ()),
    "almanac_driver_info": ("gauge", "1, with the version that runs.", ("version",)),
    "process_resident_memory_bytes": ("gauge", "Memory that the driver holds.", ()),
    "process_cpu_seconds_total": ("counter", "Time that the driver has computed, on all cores.", ()),
}
"""Type, description and labels of each metric, by its name: docs/reference/metrics.md is made from them."""


def traffic(root: Path = Path("/")) -> tuple[int, int] | tuple[None, None]:
    """Bytes that this pod has received and sent, or this machine where it is no pod; None where nobody says."""
    try:
        lines = (root / "proc/self/net/dev").read_text().splitlines()[2:]
    except OSError:
        return None, None
    counts = [fields.split() for name, _, fields in (line.partition(":") for line in lines) if name.strip() != "lo"]
    return sum(int(one[0]) for one in counts), sum(int(one[8]) for one in counts)


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""


def _healthy(progress: Progress) -> str:
    return "ok\n"


_PAGES = {
    "/progress": ("application/json", _as_json),
    "/metrics": ("text/plain; version=0.0.4", _as_metrics),
    "/healthz": ("text/plain", _healthy),
}

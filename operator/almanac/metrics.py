"""What the operator counts, for Prometheus. No label is a job's name.

All of it is described here once: docs/reference/metrics.md is made from these descriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from almanac.api import Engine, Result

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_START = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
_RUN = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


@dataclass(frozen=True, slots=True)
class Described:
    """A metric: its name as Prometheus has it, what it is, and its labels."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS = {
    one.name: one
    for one in (
        Described("almanac_jobs", "gauge", "Jobs by where they stand, and why.", ("kind", "phase", "reason")),
        Described("almanac_runs_started_total", "counter", "Runs whose driver was created.", ("kind", "engine")),
        Described(
            "almanac_runs_finished_total", "counter", "Runs that are over.", ("kind", "engine", "phase", "reason")
        ),
        Described(
            "almanac_run_submit_duration_seconds",
            "histogram",
            "Time from when a run was asked for to its driver: from the creation of a job, else from the run's start.",
            ("kind", "engine"),
            _START,
        ),
        Described(
            "almanac_run_start_duration_seconds",
            "histogram",
            "Time from when a run was asked for until its driver ran.",
            ("kind", "engine"),
            _START,
        ),
        Described(
            "almanac_run_duration_seconds",
            "histogram",
            "Time from the start of a run to its end.",
            ("kind", "engine", "phase"),
            _RUN,
        ),
        Described(
            "almanac_run_entities_total",
            "counter",
            "Entities of complete runs, by whether they have a result: computed or failed.",
            ("kind", "engine", "outcome"),
        ),
        Described("almanac_run_rows_total", "counter", "Rows that complete runs have read.", ("kind", "engine")),
        Described(
            "almanac_schedules_skipped_total",
            "counter",
            "Runs that a schedule asked for and that were left out.",
            ("kind",),
        ),
        Described(
            "almanac_schedule_delay_seconds", "gauge", "How late the schedule is that is furthest behind.", ("kind",)
        ),
        Described("almanac_queue_depth", "gauge", "Jobs that wait to be looked at."),
        Described("almanac_queue_age_seconds", "gauge", "How long the first of them has waited."),
        Described("almanac_reconcile_age_seconds", "gauge", "How long the longest look that goes on has taken so far."),
        Described(
            "almanac_reconcile_duration_seconds",
            "histogram",
            "Time that one look at a job takes, with all that is done about it.",
            ("kind",),
            _LATENCY,
        ),
        Described(
            "almanac_reconcile_errors_total",
            "counter",
            "Looks at a job that failed, and are tried again.",
            ("kind", "reason"),
        ),
        Described(
            "almanac_api_requests_total",
            "counter",
            "Requests to the Kubernetes API; code 0: no answer came back.",
            ("verb", "code"),
        ),
        Described(
            "almanac_watch_silence_seconds",
            "gauge",
            "Time since a watch has heard from the API, unless the right to open it is missing.",
            ("path",),
        ),
        Described("almanac_objects", "gauge", "Objects that the operator remembers.", ("kind",)),
        Described("almanac_leader", "gauge", "1 if this operator leads, 0 if it stands by."),
        Described("almanac_ready", "gauge", "1 if no right is missing and all that is watched could be read, else 0."),
        Described(
            "almanac_missing_rights",
            "gauge",
            "Namespaces in which the operator lacks a right that it needs; one that it needs in all counts 1.",
            ("verb", "resource"),
        ),
        Described("almanac_build_info", "gauge", "1, with the version that runs.", ("version",)),
    )
}
"""Every metric of the operator's own, by name. Those of the process (process_, python_) come with it."""


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, for what no dashboard shows
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = self._counter("almanac_api_requests_total")
        self.reconciles = self._histogram("almanac_reconcile_duration_seconds")
        self.errors = self._counter("almanac_reconcile_errors_total")
        self._started = self._counter("almanac_runs_started_total")
        self._submits = self._histogram("almanac_run_submit_duration_seconds")
        self._starts = self._histogram("almanac_run_start_duration_seconds")
        self._finished = self._counter("almanac_runs_finished_total")
        self._durations = self._histogram("almanac_run_duration_seconds")
        self._entities = self._counter("almanac_run_entities_total")
        self._rows = self._counter("almanac_run_rows_total")
        self.skipped = self._counter("almanac_schedules_skipped_total")
        self.leader = self._gauge("almanac_leader")
        self._gauge("almanac_build_info").labels(version("almanac")).set(1)

    def request(self, verb: str, code: int) -> None:
        """Count a request to the Kubernetes API."""
        self.requests.labels(verb, str(code)).inc()

    def submitted(self, kind: str, engine: Engine, waited: timedelta | None) -> None:
        """Count a driver that was created, so long after its run was asked for, if that is known."""
        self._started.labels(kind, engine).inc()
        if waited is not None:
            self._submits.labels(kind, engine).observe(max(0.0, waited.total_seconds()))

    def running(self, kind: str, engine: Engine | None, waited: timedelta) -> None:
        """Count a run whose driver runs for the first time, so long after it was asked for."""
        self._starts.labels(kind, engine or "").observe(max(0.0, waited.total_seconds()))

    def finished(
        self, kind: str, engine: Engine | None, phase: str, reason: str, took: timedelta | None, result: Result | None
    ) -> None:
        """Count a run that is over; `result` is what it has written."""
        self._finished.labels(kind, engine or "", phase, reason).inc()
        if took is not None:
            self._durations.labels(kind, engine or "", phase).observe(max(0.0, took.total_seconds()))
        if result is not None:
            if result.entities is not None:
                failed = result.failed_entities
                for outcome, count in {"computed": result.entities - failed, "failed": failed}.items():
                    self._entities.labels(kind, engine or "", outcome).inc(max(0, count))
            self._rows.labels(kind, engine or "").inc(result.rows)

    def observe(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Have what `read` gives shown too: it is asked whenever somebody reads the metrics."""
        self.registry.register(_Asked(read))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)

    def _counter(self, name: str) -> Counter:
        return Counter(name, METRICS[name].help, METRICS[name].labels, registry=self.registry)

    def _gauge(self, name: str) -> Gauge:
        return Gauge(name, METRICS[name].help, METRICS[name].labels, registry=self.registry)

    def _histogram(self, name: str) -> Histogram:
        one = METRICS[name]
        return Histogram(name, one.help, one.labels, buckets=one.buckets, registry=self.registry)


class _Asked(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()

    def describe(self) -> Iterable[Metric]:
        return ()


def gauge(name: str, values: Mapping[tuple[str, ...], float]) -> Metric:
    """A gauge of METRICS with the values that it has at this moment, by those of its labels."""
    family = GaugeMetricFamily(name, METRICS[name].help, labels=METRICS[name].labels)
    for labelled, value in values.items():
        family.add_metric(labelled, value)
    return family

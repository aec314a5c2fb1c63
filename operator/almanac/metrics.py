"""What the operator counts, for Prometheus. No label is a job's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

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

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RUN = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, for what no dashboard shows
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = self._counter(
            "api_requests", "Requests to the Kubernetes API; code 0: none came back.", "verb", "code"
        )
        self.reconciles = Histogram(
            "almanac_reconcile_duration_seconds",
            "Time that one look at a job takes, with all that is done about it.",
            ("kind",),
            buckets=_LATENCY,
            registry=self.registry,
        )
        self.errors = self._counter(
            "reconcile_errors", "Looks at a job that failed, and are tried again.", "kind", "reason"
        )
        self.started = self._counter("runs_started", "Runs whose driver was created.", "kind", "engine")
        self.finished = self._counter("runs_finished", "Runs that are over.", "kind", "engine", "phase", "reason")
        self.durations = Histogram(
            "almanac_run_duration_seconds",
            "Time from the start of a run to its end.",
            ("kind", "engine", "phase"),
            buckets=_RUN,
            registry=self.registry,
        )
        self.leader = Gauge("almanac_leader", "1 if this operator leads, 0 if it stands by.", registry=self.registry)

    def request(self, verb: str, code: int) -> None:
        """Count a request to the Kubernetes API."""
        self.requests.labels(verb, str(code)).inc()

    def observe(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Have what `read` gives shown too: it is asked whenever somebody reads the metrics."""
        self.registry.register(_Asked(read))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(f"almanac_{name}", help_, labels, registry=self.registry)


class _Asked(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()

    def describe(self) -> Iterable[Metric]:
        return ()


def gauge(name: str, help_: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Metric:
    """A gauge with the values that it has at this moment."""
    family = GaugeMetricFamily(f"almanac_{name}", help_, labels=labels)
    for labelled, value in values.items():
        family.add_metric(labelled, value)
    return family

"""Metrics: named by Prometheus' conventions, described once, and counted as their descriptions say."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from datetime import timedelta

import pytest

import programs
from almanac import metrics
from almanac.api import Engine, Result
from almanac.metrics import METRICS, Metrics, gauge
from almanac_jobs import endpoint
from almanac_jobs.progress import Progress, Workers
from tools import reference
from tools.chart import ROOT

LABELS = {
    *("code", "engine", "kind", "outcome", "path", "phase", "reason"),
    *("resource", "stage", "state", "unit", "verb", "version"),
}
"""None of them grows with jobs, runs or pods."""


def operator() -> str:
    """All that an operator can tell, with a value each."""
    made = Metrics()
    made.request("get", 200)
    made.submitted("ForecastJob", Engine.LOCAL, timedelta(seconds=2))
    made.running("ForecastJob", Engine.LOCAL, timedelta(seconds=4))
    result = Result(uri="s3://x", entities=10, failed_entities=3, rows=700)
    made.finished("ForecastJob", Engine.LOCAL, "Succeeded", "Completed", timedelta(seconds=50), result)
    made.finished("ForecastJob", None, "Failed", "DataError", None, None)
    made.errors.labels("ForecastJob", "Unreachable").inc()
    made.skipped.labels("ForecastJob").inc()
    made.reconciles.labels("ForecastJob").observe(0.1)
    made.observe(
        lambda: [
            gauge(one.name, {tuple("x" for _ in one.labels): 1.0})
            for one in METRICS.values()
            if one.type == "gauge" and one.name not in ("almanac_leader", "almanac_build_info")
        ]
    )
    return made.text().decode()


def driver() -> str:
    """All that a driver can tell."""
    progress = Progress()
    progress.workers = Workers(4, 3, 1)
    progress.start("fit", 200, "series")
    with (
        endpoint.serve(progress, 0, "127.0.0.1") as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer,
    ):
        return str(answer.read().decode())


def types(text: str) -> dict[str, str]:
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize("tell", [operator, driver])
def test_prometheus_finds_nothing_to_mend(tell: object) -> None:
    """Its own tool, of Debian's package prometheus, knows the conventions: units, _total, base units, help."""
    promtool = programs.found("promtool")
    assert callable(tell)
    found = subprocess.run([promtool, "check", "metrics"], input=tell(), capture_output=True, text=True, check=False)
    complaints = [one for one in found.stderr.splitlines() if "almanac" in one]
    assert not complaints


def test_what_is_told_is_what_is_described() -> None:
    told = {name: kind for name, kind in types(operator()).items() if name.startswith("almanac_")}
    assert told == {one.name: one.type for one in METRICS.values()}
    assert types(driver()) == {name: kind for name, (kind, _, _) in endpoint.METRICS.items()}


def test_labels_do_not_grow_with_jobs() -> None:
    used = {label for one in METRICS.values() for label in one.labels}
    used |= {label for _, _, labels in endpoint.METRICS.values() for label in labels}
    assert used <= LABELS


def test_counts() -> None:
    said = dict(line.rsplit(" ", 1) for line in operator().splitlines() if not line.startswith("#"))
    assert said['almanac_run_entities_total{engine="local",kind="ForecastJob",outcome="computed"}'] == "7.0"
    assert said['almanac_run_entities_total{engine="local",kind="ForecastJob",outcome="failed"}'] == "3.0"
    assert said['almanac_run_rows_total{engine="local",kind="ForecastJob"}'] == "700.0"
    assert said['almanac_runs_finished_total{engine="",kind="ForecastJob",phase="Failed",reason="DataError"}'] == "1.0"
    assert said['almanac_run_submit_duration_seconds_sum{engine="local",kind="ForecastJob"}'] == "2.0"
    assert said['almanac_run_start_duration_seconds_sum{engine="local",kind="ForecastJob"}'] == "4.0"
    assert said[f'almanac_build_info{{version="{metrics.version("almanac")}"}}'] == "1.0"


def test_their_reference_is_fresh() -> None:
    """`make chart` writes it anew."""
    assert (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8") == reference.pages()["metrics.md"]

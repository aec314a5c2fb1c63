"""Alerts: each fires when it should, is quiet when it should, and has a runbook. Asked of Prometheus' own promtool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import programs
from almanac.metrics import METRICS
from almanac_jobs import endpoint
from tools import chart
from tools.chart import CHART, ROOT

FILE = CHART / "files" / "alerts.yaml"
RULES = {rule["alert"]: rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]}

OF_OPERATOR = 'namespace="almanac",pod="op-1"'
LOCAL = f'{OF_OPERATOR},kind="ForecastJob",engine="local"'
STARTS = "almanac_run_start_duration_seconds_bucket"
STANDBY = 'namespace="almanac",pod="op-2"'
OF_DRIVER = 'namespace="finance",pod="sales-1"'

CASES: dict[str, tuple[str, dict[str, str], dict[str, str], dict[str, str]]] = {
    # alert: after how long, series with which it fires, its labels, series with which it is quiet: a sample a minute.
    "AlmanacJobFailed": (
        "6m",
        {f'almanac_jobs{{{OF_OPERATOR},kind="ForecastJob",phase="Failed",reason="DataError"}}': "2x10"},
        {"namespace": "almanac", "kind": "ForecastJob", "reason": "DataError"},
        {f'almanac_jobs{{{OF_OPERATOR},kind="ForecastJob",phase="Succeeded",reason="Completed"}}': "2x10"},
    ),
    "AlmanacJobPending": (
        "16m",
        {f'almanac_jobs{{{OF_OPERATOR},kind="AnomalyJob",phase="Pending",reason="Unschedulable"}}': "1x20"},
        {"namespace": "almanac", "kind": "AnomalyJob", "reason": "Unschedulable"},
        {f'almanac_jobs{{{OF_OPERATOR},kind="AnomalyJob",phase="Pending",reason="Unschedulable"}}': "1x10 0x10"},
    ),
    "AlmanacStartSlow": (
        "46m",
        {
            f'{STARTS}{{{LOCAL},le="300"}}': "0x60",
            f'{STARTS}{{{LOCAL},le="600"}}': "0+1x60",
            f'{STARTS}{{{LOCAL},le="+Inf"}}': "0+1x60",
        },
        {"namespace": "almanac", "kind": "ForecastJob", "engine": "local"},
        {
            f'{STARTS}{{{LOCAL},le="10"}}': "0+1x60",
            f'{STARTS}{{{LOCAL},le="+Inf"}}': "0+1x60",
        },
    ),
    "AlmanacEntitiesFailing": (
        "60m",
        {
            f'almanac_run_entities_total{{{LOCAL},outcome="failed"}}': "0+20x60",
            f'almanac_run_entities_total{{{LOCAL},outcome="computed"}}': "0+80x60",
        },
        {"namespace": "almanac", "kind": "ForecastJob"},
        {
            f'almanac_run_entities_total{{{LOCAL},outcome="failed"}}': "0+1x60",
            f'almanac_run_entities_total{{{LOCAL},outcome="computed"}}': "0+99x60",
        },
    ),
    "AlmanacScheduleMissed": (
        "15m",
        {f'almanac_schedule_delay_seconds{{{OF_OPERATOR},kind="ForecastJob"}}': "0+60x20"},
        {"namespace": "almanac", "kind": "ForecastJob"},
        {f'almanac_schedule_delay_seconds{{{OF_OPERATOR},kind="ForecastJob"}}': "0+60x4 0x16"},
    ),
    "AlmanacScheduleSkipped": (
        "10m",
        {f'almanac_schedules_skipped_total{{{OF_OPERATOR},kind="ForecastJob"}}': "0x4 1x10"},
        {"namespace": "almanac", "kind": "ForecastJob"},
        {f'almanac_schedules_skipped_total{{{OF_OPERATOR},kind="ForecastJob"}}': "3x20"},
    ),
    "AlmanacOperatorDown": (
        "6m",
        {"up": "0x10"},
        {},
        {f'almanac_build_info{{{OF_OPERATOR},version="0.1.0"}}': "1x10"},
    ),
    "AlmanacNoLeader": (
        "3m",
        {f"almanac_leader{{{OF_OPERATOR}}}": "0x10", f"almanac_leader{{{STANDBY}}}": "0x10"},
        {"namespace": "almanac"},
        {f"almanac_leader{{{OF_OPERATOR}}}": "1x10", f"almanac_leader{{{STANDBY}}}": "0x10"},
    ),
    "AlmanacNotReady": (
        "6m",
        {f"almanac_ready{{{OF_OPERATOR}}}": "0x10"},
        {"namespace": "almanac", "pod": "op-1"},
        {f"almanac_ready{{{OF_OPERATOR}}}": "0x2 1x8"},
    ),
    "AlmanacWatchDead": (
        "7m",
        {f'almanac_watch_silence_seconds{{{OF_OPERATOR},path="/api/v1/pods"}}': "0+60x10"},
        {"namespace": "almanac", "pod": "op-1", "path": "/api/v1/pods"},
        {f'almanac_watch_silence_seconds{{{OF_OPERATOR},path="/api/v1/pods"}}': "10 70 10 70 10 70 10 70 10 70"},
    ),
    "AlmanacQueueBacklog": (
        "10m",
        {
            f"almanac_queue_age_seconds{{{OF_OPERATOR}}}": "0+60x15",
            f"almanac_leader{{{OF_OPERATOR}}}": "1x15",
        },
        {"namespace": "almanac"},
        # Jobs wait at a standby for as long as it stands by.
        {
            f"almanac_queue_age_seconds{{{STANDBY}}}": "0+60x15",
            f"almanac_queue_age_seconds{{{OF_OPERATOR}}}": "1x15",
            f"almanac_leader{{{OF_OPERATOR}}}": "1x15",
            f"almanac_leader{{{STANDBY}}}": "0x15",
        },
    ),
    "AlmanacReconcileStuck": (
        "7m",
        {f"almanac_reconcile_age_seconds{{{OF_OPERATOR}}}": "0+60x10"},
        {"namespace": "almanac", "pod": "op-1"},
        {f"almanac_reconcile_age_seconds{{{OF_OPERATOR}}}": "15x10"},
    ),
    "AlmanacReconcileErrors": (
        "20m",
        {f'almanac_reconcile_errors_total{{{OF_OPERATOR},kind="ForecastJob",reason="Unreachable"}}': "0+60x30"},
        {"namespace": "almanac", "kind": "ForecastJob", "reason": "Unreachable"},
        {f'almanac_reconcile_errors_total{{{OF_OPERATOR},kind="ForecastJob",reason="Unreachable"}}': "0+1x30"},
    ),
    "AlmanacAPIErrors": (
        "20m",
        {
            f'almanac_api_requests_total{{{OF_OPERATOR},verb="get",code="200"}}': "0+90x30",
            f'almanac_api_requests_total{{{OF_OPERATOR},verb="get",code="503"}}': "0+6x30",
            f'almanac_api_requests_total{{{OF_OPERATOR},verb="get",code="0"}}': "0+4x30",
        },
        {"namespace": "almanac"},
        {
            f'almanac_api_requests_total{{{OF_OPERATOR},verb="get",code="200"}}': "0+90x30",
            f'almanac_api_requests_total{{{OF_OPERATOR},verb="create",code="409"}}': "0+50x30",
            f'almanac_api_requests_total{{{OF_OPERATOR},verb="get",code="503"}}': "0+1x30",
        },
    ),
    "AlmanacForbidden": (
        "15m",
        {f'almanac_api_requests_total{{{OF_OPERATOR},verb="create",code="403"}}': "0+1x30"},
        {"namespace": "almanac", "verb": "create"},
        {f'almanac_api_requests_total{{{OF_OPERATOR},verb="create",code="201"}}': "0+1x30"},
    ),
    "AlmanacDriverStalled": (
        "50m",
        {
            f'almanac_driver_stage_units_total{{{OF_DRIVER},stage="read",unit="rows"}}': "500x60",
            f'almanac_driver_stage_duration_seconds{{{OF_DRIVER},stage="read"}}': "0+60x60",
            f'almanac_driver_stage_active{{{OF_DRIVER},stage="read"}}': "1x60",
        },
        {"namespace": "finance", "pod": "sales-1"},
        # A long stage that is over, and one that counts.
        {
            f'almanac_driver_stage_units_total{{{OF_DRIVER},stage="read",unit="rows"}}': "500x60",
            f'almanac_driver_stage_duration_seconds{{{OF_DRIVER},stage="read"}}': "4000x60",
            f'almanac_driver_stage_active{{{OF_DRIVER},stage="read"}}': "0x60",
            f'almanac_driver_stage_units_total{{{OF_DRIVER},stage="fit",unit="series"}}': "0+1x60",
            f'almanac_driver_stage_duration_seconds{{{OF_DRIVER},stage="fit"}}': "0+60x60",
            f'almanac_driver_stage_active{{{OF_DRIVER},stage="fit"}}': "1x60",
        },
    ),
    "AlmanacDriverMemory": (
        "6m",
        {
            f"process_resident_memory_bytes{{{OF_DRIVER}}}": "95x10",
            f"almanac_driver_memory_limit_bytes{{{OF_DRIVER}}}": "100x10",
        },
        {"namespace": "finance", "pod": "sales-1"},
        # Other processes have that metric too.
        {
            f"process_resident_memory_bytes{{{OF_OPERATOR}}}": "95x10",
            f"almanac_driver_memory_limit_bytes{{{OF_DRIVER}}}": "9x10",
        },
    ),
    "AlmanacWorkersLost": (
        "15m",
        {f"almanac_driver_workers_failed_total{{{OF_DRIVER}}}": "0+1x20"},
        {"namespace": "finance", "pod": "sales-1"},
        {f"almanac_driver_workers_failed_total{{{OF_DRIVER}}}": "2x20"},
    ),
}


def test_each_has_a_case() -> None:
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("alert", RULES)
def test_it_fires_when_it_should_and_is_quiet_when_it_should(alert: str, tmp_path: Path) -> None:
    promtool = programs.found("promtool")
    after, firing, labels, quiet = CASES[alert]
    rule = RULES[alert]
    summary = rule["annotations"]["summary"]
    expected = {"exp_labels": {"severity": rule["labels"]["severity"], **labels}}
    tests = [case(alert, after, firing, [expected]), case(alert, after, quiet, [])]
    without = [group | {"rules": [{**one, "annotations": {}} for one in group["rules"]]} for group in groups()]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": without}))
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )
    told = subprocess.run(
        [promtool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    named = set(re.findall(r"\$labels\.(\w+)", summary))
    assert named <= labels.keys(), f"{alert}: its summary names labels that it has not"


def groups() -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["groups"]
    return read


def case(alert: str, after: str, series: dict[str, str], expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": after, "alertname": alert, "exp_alerts": expected}],
    }


@pytest.mark.parametrize("alert", RULES)
def test_it_is_about_metrics_and_labels_that_there_are(alert: str) -> None:
    there = set(METRICS) | set(endpoint.METRICS)
    asked = set(re.findall(r"(?:almanac|process)_[a-z_]+", RULES[alert]["expr"]))
    assert asked
    assert {re.sub("_(bucket|sum|count)$", "", one) for one in asked} <= there


def test_each_has_a_runbook_and_no_other_has() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.MULTILINE)
    assert headings == list(RULES)


def test_the_chart_leads_to_the_runbooks() -> None:
    values = {"metrics": {"rules": {"enabled": True, "runbooks": "https://wiki.example/almanac"}}}
    (made,) = chart.render(values)["templates/rules.yaml"]
    rules = [rule for group in made["spec"]["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in rules] == list(RULES)
    for rule in rules:
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example/almanac#{rule['alert'].lower()}"
        assert rule["expr"] == RULES[rule["alert"]]["expr"]

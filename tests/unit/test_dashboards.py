"""Grafana's dashboards: fresh, of Grafana's form, and about metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import programs
from almanac.metrics import METRICS
from almanac_jobs import endpoint
from tools import chart, dashboards

FILES = {path.name: json.loads(path.read_text()) for path in sorted(dashboards.FOLDER.glob("*.json"))}

each = pytest.mark.parametrize("document", FILES.values(), ids=FILES)


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in document["panels"] if one["type"] != "row"]


def queries(document: dict[str, Any]) -> list[str]:
    variables = [one["query"] for one in document["templating"]["list"] if one["type"] == "query"]
    return [target["expr"] for one in panels(document) for target in one["targets"]] + variables


def kept(said: Any, read: Any) -> bool:
    """Whether all that was said is in what was read, which may have defaults besides."""
    if isinstance(said, dict):
        return all(name in read and kept(one, read[name]) for name, one in said.items())
    if isinstance(said, list):
        return len(said) == len(read) and all(kept(*pair) for pair in zip(said, read, strict=True))
    return bool(said == read)


def test_they_are_fresh() -> None:
    """`make chart` writes them anew."""
    made = dashboards.files()
    assert {path.name: path.read_text(encoding="utf-8") for path in dashboards.FOLDER.iterdir()} == made


@each
def test_grafanas_own_types_read_them(document: dict[str, Any]) -> None:
    """And lose nothing that the document says."""
    plugins.register_default_plugins()
    read = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    assert kept(document, read)


@each
def test_panels_do_not_lie_upon_each_other(document: dict[str, Any]) -> None:
    places = [one["gridPos"] for one in document["panels"]]
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(one["x"] + one["w"] <= 24 for one in places)


@each
def test_they_ask_for_metrics_that_there_are(document: dict[str, Any]) -> None:
    there = set(METRICS) | set(endpoint.METRICS)
    for query in queries(document):
        asked = set(re.findall(r"\b(?:almanac|process)_(?!dev_)[a-z_]+", query))
        assert asked, query
        assert {re.sub("_(bucket|sum|count)$", "", one) for one in asked} <= there


def test_every_metric_of_ours_but_a_few_is_on_one_of_them() -> None:
    shown = " ".join(query for document in FILES.values() for query in queries(document))
    unseen = {name for name in [*METRICS, *endpoint.METRICS] if name not in shown}
    assert unseen == {"almanac_runs_started_total", "almanac_schedules_skipped_total", "almanac_objects"}


@each
def test_prometheus_understands_every_query(document: dict[str, Any], tmp_path: Path) -> None:
    promtool = programs.found("promtool")
    asked = [one for one in queries(document) if not one.startswith("label_values")]
    filled = [re.sub(r"\$(__rate_interval)", "5m", one) for one in asked]
    rules = [{"record": f"query:{number}", "expr": one} for number, one in enumerate(filled)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    told = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_chart_ships_them() -> None:
    values = {"metrics": {"dashboards": {"enabled": True, "annotations": {"folder": "Almanac"}}}}
    made = chart.render(values)["templates/dashboards.yaml"]
    shipped = {name: json.loads(text) for one in made for name, text in one["data"].items()}
    assert shipped == {f"almanac-{name}": document for name, document in FILES.items()}
    for one in made:
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert one["metadata"]["annotations"] == {"folder": "Almanac"}

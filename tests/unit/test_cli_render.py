"""`almanac render`: exactly what the operator would create, without a cluster."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from almanac import lifecycle
from almanac.api import ForecastJob, JobError, JobStatus
from almanac.cli import main
from almanac.decision import Create
from almanac.engines import build
from almanac.observed import Observed
from almanac.render import defaulted, render
from almanac.settings import Settings
from manifests import document


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALMANAC_IMAGE", raising=False)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document(), sort_keys=False))
    return tmp_path


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["render", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_it_is_what_the_operator_creates() -> None:
    """The job as a cluster has it, decided about and built as the operator does."""
    start, uid = datetime(2026, 11, 21, 2, 15, tzinfo=UTC), "0b6f3a52-1c2f-4a57-9f5c-0a4f6f0f7f11"
    job = ForecastJob.parse(document(model__family="ets"))
    full = ForecastJob.parse(
        {
            **job.model_dump(mode="json", exclude_none=True),
            "metadata": {"name": "ledger", "namespace": "finance", "uid": uid, "generation": 1},
        }
    )
    first = lifecycle.decide(full, JobStatus(), Observed(live=True), start)
    [create] = lifecycle.decide(full, first.status, Observed(live=True), start).actions
    assert isinstance(create, Create)
    [config_map, driver] = render(job, namespace="finance", settings=Settings(), uid=uid, start=start)
    [expected_map, expected_driver] = build(full, create.run, create.engine, Settings())
    assert driver == expected_driver
    assert config_map["metadata"] == expected_map["metadata"]
    told, expected = (json.loads(one["data"]["job.json"]) for one in (config_map, expected_map))
    assert ForecastJob.parse(told) == ForecastJob.parse(expected)


def test_yaml(folder: Path) -> None:
    code, out, err = run("-f", "job.yaml", "-n", "finance")
    assert (code, err) == (0, "")
    config_map, driver = yaml.safe_load_all(out)
    assert (config_map["kind"], driver["kind"]) == ("ConfigMap", "Job")
    assert driver["metadata"]["namespace"] == "finance"
    assert json.loads(config_map["data"]["job.json"])["spec"]["horizon"] == 30
    assert "  job.json: |\n" in out
    assert run("-f", "job.yaml", "-n", "finance")[1] == out


def test_json_and_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALMANAC_IMAGE", "registry.example.com/almanac:1.4")
    start = "2026-11-21T02:15:00Z"
    out = run("-f", "job.yaml", "-o", "json", "--set", "spec.horizon=3", "--uid", "u1", "--start", start)[1]
    config_map, driver = json.loads(out)["items"]
    assert driver["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/almanac:1.4"
    assert driver["metadata"]["labels"]["almanac.dev/run"].startswith("20261121-021500-")
    assert driver["metadata"]["ownerReferences"][0]["uid"] == "u1"
    assert json.loads(config_map["data"]["job.json"])["spec"]["horizon"] == 3


def test_a_suspended_job_is_rendered_too() -> None:
    assert render(document(suspend=True)) == render(document())


def test_a_run_on_dask_is_all_that_it_is_made_of() -> None:
    kinds = [one["kind"] for one in render(document(engine="dask"))]
    assert kinds == ["NetworkPolicy", "ConfigMap", "DaskCluster", "Job"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("-f", "job.yaml", "--set", "spec.horizon=0"), 64, "spec.horizon: must be at least 1"),
        (("-f", "nothing.yaml"), 66, "there is no such file"),
        (("-f", "other.yaml"), 66, "other.yaml: there is no job"),
    ],
)
def test_errors(folder: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    (folder / "other.yaml").write_text("apiVersion: v1\nkind: ConfigMap\n")
    ended, out, err = run(*arguments)
    assert (ended, out) == (code, "")
    assert told in err


def test_wrong_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALMANAC_MEMORY", "much")
    code, _, err = run("-f", "job.yaml")
    assert code == 64
    assert "ALMANAC_MEMORY=much" in err


def test_invalid_documents() -> None:
    with pytest.raises(JobError, match="horizon"):
        render(document(horizon="x"))
    with pytest.raises(JobError, match="kind"):
        render({"kind": "Pod"})


SCHEMA: dict[str, Any] = {
    "properties": {
        "a": {"default": 1},
        "b": {"default": {}, "properties": {"c": {"default": [2]}}},
        "d": {"properties": {"e": {"default": 3}}},
        "f": {"items": {"properties": {"g": {"default": 4}}}},
        "h": {"additionalProperties": {"properties": {"i": {"default": 5}}}},
    }
}


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ({}, {"a": 1, "b": {"c": [2]}}),
        ({"a": 0, "b": {"c": []}}, {"a": 0, "b": {"c": []}}),
        ({"a": None, "d": None}, {"a": 1, "b": {"c": [2]}, "d": None}),
        (
            {"d": {}, "f": [{}], "h": {"x": {}}},
            {"a": 1, "b": {"c": [2]}, "d": {"e": 3}, "f": [{"g": 4}], "h": {"x": {"i": 5}}},
        ),
    ],
)
def test_defaults(value: dict[str, Any], filled: dict[str, Any]) -> None:
    assert defaulted(value, SCHEMA) == filled


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_defaults_are_filled_in_once(value: Any) -> None:
    filled = defaulted(value, SCHEMA)
    assert defaulted(filled, SCHEMA) == filled

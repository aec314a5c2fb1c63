"""What tools of GitOps make of a job at each moment of its life: Argo CD (Lua), Flux (CEL), and kstatus itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import goldens
import healths
import programs
from almanac.api import KINDS
from tools import chart, gitops
from tools.chart import ROOT

MOMENTS = healths.moments()
EXAMPLES = ROOT / "examples" / "gitops"

moments = pytest.mark.parametrize(("name", "job"), MOMENTS.items(), ids=MOMENTS)

EXPECTED = {
    # moment: Argo CD, Flux with the project's expressions, kstatus alone
    "applied a moment ago": ("Progressing", "InProgress", "InProgress"),
    "submitted": ("Progressing", "InProgress", "InProgress"),
    "unschedulable": ("Progressing", "InProgress", "InProgress"),
    "running": ("Progressing", "InProgress", "InProgress"),
    "succeeded": ("Healthy", "Current", "Current"),
    "scheduled, between runs": ("Healthy", "Current", "Current"),
    "changed a moment ago": ("Progressing", "InProgress", "InProgress"),
    "running again": ("Progressing", "InProgress", "InProgress"),
    "suspended": ("Suspended", "Current", "InProgress"),
    "failed": ("Degraded", "Failed", "Failed"),
    "invalid": ("Degraded", "Failed", "Failed"),
    "being deleted": ("Progressing", "InProgress", "Terminating"),
}
"""docs/gitops.md says why kstatus alone differs in one place."""

CLOSED = ["coroutine", "debug", "dofile", "io", "loadfile", "math", "os", "package", "require", "string", "utf8"]
"""What Lua has, and Argo CD does not give to checks that are not its own."""


def test_what_is_made_is_fresh() -> None:
    """`make chart` writes it anew."""
    for path, text in gitops.files().items():
        assert (ROOT / "deploy" / path).read_text(encoding="utf-8") == text


@moments
def test_argo_cd(name: str, job: dict[str, Any]) -> None:
    """In Lua with nothing but its basic functions and those of tables, as Argo CD runs it."""
    health = judged(job)
    assert health["status"] == EXPECTED[name][0]
    assert health["message"]
    if name == "unschedulable":
        assert health["message"] == "Unschedulable: no node has that much memory"
    if name == "running":
        assert health["message"].endswith("(fit 62%)")


@pytest.mark.parametrize("status", [{}, {"conditions": []}, {"phase": "Running"}])
def test_argo_cd_takes_any_status(status: dict[str, Any]) -> None:
    assert judged({"metadata": {"generation": 1}, "status": status})["status"] == "Progressing"


def judged(job: dict[str, Any]) -> dict[str, str]:
    lupa = pytest.importorskip("lupa")
    lua = lupa.LuaRuntime()
    for closed in CLOSED:
        lua.globals()[closed] = None
    lua.globals().obj = lua.table_from(job, recursive=True)
    return dict(lua.execute((gitops.ARGOCD / "health.lua").read_text(encoding="utf-8")))


def test_argo_cd_is_given_each_kind() -> None:
    settings = yaml.safe_load(gitops.files()["argocd/argocd-cm.yaml"])["data"]
    assert settings == yaml.safe_load(gitops.files()["argocd/values.yaml"])["configs"]["cm"]
    assert settings.keys() == {f"resource.customizations.health.almanac.dev_{kind}" for kind in KINDS}
    assert set(settings.values()) == {(gitops.ARGOCD / "health.lua").read_text(encoding="utf-8")}


@moments
def test_flux(name: str, job: dict[str, Any]) -> None:
    """With CEL's own implementation, in the order that Flux asks in (RFC 0009)."""
    cel = pytest.importorskip("cel_expr_python.cel")
    environment = cel.NewEnv(variables=dict.fromkeys(("status", "metadata", "spec"), cel.Type.DYN))

    def holds(expression: str) -> bool:
        value = environment.compile(expression).eval(data=job).value()
        return value is True  # what is missing is an error, with which Flux waits

    status = job.get("status", {})
    observed = status.get("observedGeneration")
    seen = "InProgress"
    if observed is None or observed == job["metadata"]["generation"]:
        rules = gitops.rules()
        found = [said for rule, said in (("failed", "Failed"), ("current", "Current")) if holds(rules[rule])]
        seen = found[0] if found else seen
    assert seen == EXPECTED[name][1]


@moments
def test_kstatus(name: str, job: dict[str, Any]) -> None:
    """As kstatus itself has said: tests/data/kstatus.go, which reads what tests/healths.py writes."""
    said = json.loads((ROOT / "tests/data/kstatus.json").read_text())
    assert said.keys() == MOMENTS.keys()
    assert said[name] == EXPECTED[name][2]


class TestExample:
    """examples/gitops: what somebody would begin with."""

    @pytest.mark.parametrize("environment", ["staging", "production"])
    def test_values_are_the_charts(self, environment: str) -> None:
        values = yaml.safe_load((EXAMPLES / "environments" / environment / "values.yaml").read_text())
        made = [one for documents in chart.render(values).values() for one in documents]
        assert {one["kind"] for one in made} >= {"Deployment", "Role"}

    @pytest.mark.parametrize("environment", ["staging", "production"])
    def test_jobs_are_jobs_and_differ_by_environment(self, environment: str) -> None:
        (made,) = built(EXAMPLES / "environments" / environment / "jobs")
        job = goldens.job(made)
        assert job.spec.output.uri == f"s3://{environment}-forecasts/sales"
        assert job.metadata.namespace == "finance"

    def test_images_of_an_overlay_reach_drivers_too(self) -> None:
        made = built(EXAMPLES / "kustomize")
        (operator,) = [one for one in made if one["kind"] == "Deployment"]
        (container,) = operator["spec"]["template"]["spec"]["containers"]
        images = {one["name"]: one["value"] for one in container["env"] if one["name"].endswith("IMAGE")}
        assert container["image"] == images["ALMANAC_IMAGE"] == "registry.example/almanac:0.1.0"
        for engine in ("spark", "dask"):
            assert images[f"ALMANAC_{engine.upper()}_IMAGE"] == f"registry.example/almanac-{engine}:0.1.0"

    def test_flux_uses_the_projects_expressions(self) -> None:
        documents = yaml.safe_load_all((EXAMPLES / "flux" / "production.yaml").read_text())
        (jobs,) = [one for one in documents if one["metadata"]["name"] == "almanac-jobs"]
        patch = yaml.safe_load(gitops.files()["flux/kustomization-patch.yaml"])
        assert jobs["spec"]["healthCheckExprs"] == patch["spec"]["healthCheckExprs"]


def built(folder: Path) -> list[dict[str, Any]]:
    kubectl = programs.found("kubectl")
    made = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(made.stdout))

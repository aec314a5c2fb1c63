"""Whatever YAML the examples and the documentation show is what it says: a job, an object of Kubernetes', values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from almanac.api import API_VERSION, KINDS, AnomalyJob, ExtractJob, ForecastJob, Job
from charts import DIGEST
from pages import ROOT, blocks
from tools import chart

VERSIONS = ("1.31", "1.35")
"""The oldest version of Kubernetes that Almanac runs on, and the newest whose schemas there are."""
ELSEWHERE = ("kustomize.config.k8s.io/", "argoproj.io/", "source.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/",
             "kustomize.toolkit.fluxcd.io/")  # fmt: skip
"""Groups of tools whose schemas are not here. tests/unit/test_gitops.py builds what is kustomize's, and reads Flux'."""
LEAST: dict[type[Job], dict[str, Any]] = {
    ForecastJob: {"source": {"uri": "data", "columns": {"entity": "a", "time": "b", "value": "c"}}, "horizon": 1},
    AnomalyJob: {"source": {"uri": "data", "columns": {"entity": "a", "time": "b"}}},
    ExtractJob: {"source": {"connection": {"host": "db", "database": "ledger"}, "table": "entries"}},
}
"""What each kind of job must say besides its output."""


def documents() -> Iterator[tuple[str, str]]:
    """YAML of examples, benchmarks and documentation: where it stands, and what it says."""
    files = [*ROOT.glob("examples/**/*.yaml"), *ROOT.glob("benchmarks/*.yaml")]
    for file in sorted(files):
        yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
    for block in blocks("yaml", "yml"):
        yield block.place, block.text


@pytest.mark.parametrize(("place", "text"), [pytest.param(*found, id=found[0]) for found in documents()])
def test_valid(place: str, text: str) -> None:
    if place == "examples/gitops/kustomize/images.yaml":
        return  # settings of kustomize's, which test_gitops.py builds with
    for document in yaml.safe_load_all(text):
        check(document)


def check(document: dict[str, Any]) -> None:
    """Hold a document to what it is; whoever knows better raises an error of its own."""
    version = document.get("apiVersion", "")
    if version == API_VERSION:
        KINDS[document["kind"]].parse(document)
    elif version.startswith(ELSEWHERE):
        assert document["kind"]
    elif version:
        for one in VERSIONS:
            kubernetes_validate.validate(document, one, strict=True)
    elif document.keys() == {"spec"}:
        part_of_a_job(document["spec"])
    else:
        assert chart.render(_pinned(document))


def part_of_a_job(spec: dict[str, Any]) -> None:
    """Some kind of job takes these fields, with the least that it must say besides."""
    refused = []
    for kind, least in LEAST.items():
        job = {"metadata": {"name": "shown"}, "spec": {"output": {"uri": "out"}} | least | spec}
        try:
            kind.parse({"apiVersion": API_VERSION, "kind": kind.__name__} | job)
        except ValidationError as error:
            refused.append(f"{kind.__name__}: {error}")
        else:
            return
    pytest.fail("\n".join(refused))


def _pinned(value: Any) -> Any:
    """Values whose digests, which pages cut short, have all their digits."""
    if isinstance(value, dict):
        return {name: _pinned(one) for name, one in value.items()}
    return DIGEST if value == "sha256:…" else value


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"spec": {"horizn": 3}}, pytest.fail.Exception),
        ({"watch": {"namespace": "finance"}}, helm_python.HelmError),
        ({"apiVersion": "v1", "kind": "Service", "spec": {"prts": []}}, kubernetes_validate.ValidationError),
        ({"apiVersion": API_VERSION, "kind": "ForecastJob", "metadata": {"name": "a"}, "spec": {}}, ValidationError),
    ],
    ids=["part of a job", "values", "Kubernetes", "job"],
)
def test_what_is_wrong_is_found(wrong: dict[str, Any], error: type[BaseException]) -> None:
    with pytest.raises(error):
        check(wrong)


def test_examples_are_found() -> None:
    places = {place for place, _ in documents()}
    assert {"examples/cdnow.yaml", "README.md:2", "docs/install.md:4"} <= places

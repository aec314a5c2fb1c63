"""The CustomResourceDefinitions: structural, the same as the models, and the same as what is committed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

import anomalies
import extracts
from almanac import crd, reference
from almanac.api import KINDS, AnomalyJob, ForecastJob, JobStatus
from almanac.api.model import Model, aliases, inner
from almanac.cli.crds import definitions
from almanac.resource import read_status
from manifests import REFUSED, SMALLEST, TAKEN, document

ROOT = Path(__file__).parents[2]
Schema = dict[str, Any]
DOCUMENTS = {"ForecastJob": document, "AnomalyJob": anomalies.document, "ExtractJob": extracts.extract}


def root(kind: str = "ForecastJob") -> Schema:
    schema: Schema = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema within a schema, with its path."""
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from walk(one, f"{path}.{name}")
    for inside in ("items", "additionalProperties"):
        if inside in schema:
            yield from walk(schema[inside], f"{path}[]")


def defaulted(schema: Schema, value: Any) -> Any:
    """A value with the defaults filled in, as the API server does before it looks at rules."""
    if isinstance(value, dict) and "properties" in schema:
        given = {name: one["default"] for name, one in schema["properties"].items() if "default" in one} | value
        return {name: defaulted(schema["properties"].get(name, {}), one) for name, one in given.items()}
    return (
        [defaulted(schema["items"], one) for one in value] if isinstance(value, list) and "items" in schema else value
    )


def test_committed_files_are_fresh() -> None:
    """`make crds` writes them anew."""
    assert {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("crds/*.yaml")} == definitions()
    for name, page in reference.pages().items():
        assert (ROOT / "docs/reference" / name).read_text(encoding="utf-8") == page


def test_every_kind_has_a_definition() -> None:
    assert set(crd.RESOURCES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_names(kind: str) -> None:
    made = yaml.safe_load(crd.to_yaml(crd.definition(kind)))
    names = made["spec"]["names"]
    assert made["metadata"]["name"] == f"{names['plural']}.{made['spec']['group']}"
    assert names["categories"] == ["almanac"]
    assert len(crd.to_yaml(made).encode()) < 100 * 1024  # far below what `kubectl apply` can keep in an annotation


def test_columns_lead_somewhere() -> None:
    columns = crd.definition("ForecastJob")["spec"]["versions"][0]["additionalPrinterColumns"]
    told = ["Engine", "Progress", "Entities", "MASE"]
    assert [one["name"] for one in columns] == ["Phase", "Reason", *told, "Workers", "Age"]
    assert [one["name"] for one in columns if one.get("priority")] == ["Workers"]
    paths = {path for path, _ in walk(root())}
    for one in (columns[0], *columns[2:6]):
        path = one["jsonPath"]
        assert path in paths or f"{path.rpartition('.')[0]}[]" in paths


@pytest.mark.parametrize("kind", KINDS)
def test_structural(kind: str) -> None:
    """The rules of apiextensions.k8s.io/v1, and every field described."""
    allowed = {*crd._KEPT, "properties", "required", "items", "additionalProperties"}
    for path, schema in walk(root(kind)):
        unknown = {key for key in schema if key not in allowed and not key.startswith("x-kubernetes-")}
        assert not unknown, path
        assert schema.get("type") or schema.get("x-kubernetes-preserve-unknown-fields"), path
        assert not ("properties" in schema and "additionalProperties" in schema), path
        assert schema.get("type") != "array" or "items" in schema, path
        assert set(schema.get("required", [])) <= set(schema.get("properties", {})), path
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert isinstance(schema.get(bound, True), bool), path  # OpenAPI 3.0's form, not JSON Schema's
        if not path.endswith("[]") and path != ".metadata":
            assert schema["description"][0].isprintable(), path
            assert "\n" not in schema["description"], path


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_valid(kind: str) -> None:
    for path, schema in walk(root(kind)):
        if "default" in schema:
            assert not path.startswith(".status.")
            jsonschema.Draft4Validator(schema).validate(schema["default"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_status_that_nobody_has_written_is_of_no_generation(kind: str) -> None:
    """And whoever reads it takes it for none at all."""
    status = defaulted(root(kind), {"spec": {}})["status"]
    assert status == {"observedGeneration": -1}
    assert read_status({"status": status}) == JobStatus()


@pytest.mark.parametrize("kind", KINDS)
def test_rules_point_at_fields(kind: str) -> None:
    paths = {path for path, _ in walk(root(kind))}
    for path, schema in walk(root(kind)):
        for rule in schema.get("x-kubernetes-validations", []):
            assert rule["message"]
            assert f"{path}{rule.get('fieldPath', '')}" in paths


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_those_of_the_models(kind: str) -> None:
    def names(model: type[Model], path: str) -> Iterator[str]:
        for name, attribute in aliases(model).items():
            yield f"{path}.{name}"
            within = inner(model, attribute)
            if within:
                yield from names(within, f"{path}.{name}")

    spec = inner(KINDS[kind], "spec")
    assert spec is not None
    found = {path for path, _ in walk(root(kind)) if "[]" not in path}
    assert {*names(spec, ".spec"), *names(JobStatus, ".status")} < found
    assert not {path for path in found if path.startswith(".spec.")} - set(names(spec, ".spec"))


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(ROOT.glob("examples/**/*.yaml")):
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if one.get("kind") in KINDS:
                yield str(path.relative_to(ROOT)), one
    yield "smallest", SMALLEST


@pytest.mark.parametrize(("name", "value"), [pytest.param(name, one, id=name) for name, one in documents()])
def test_examples_pass(name: str, value: dict[str, Any]) -> None:
    schema = root(value["kind"])
    KINDS[value["kind"]].parse(value)
    jsonschema.Draft4Validator(schema).validate(value)
    assert not broken_rules(schema, defaulted(schema, value))


def test_defaults_of_the_schema_are_those_of_the_models() -> None:
    for kind, smallest in (ForecastJob, SMALLEST), (AnomalyJob, anomalies.SMALLEST):
        made = defaulted(root(kind.__name__), smallest)
        assert kind.parse({name: made[name] for name in smallest}) == kind.parse(smallest)


def broken_rules(schema: Schema, value: Any, path: str = "") -> list[str]:
    """The places whose CEL rules a value breaks, by CEL's own implementation in C++."""
    cel = pytest.importorskip("cel_expr_python.cel")
    environment = cel.NewEnv(variables={"self": cel.Type.DYN})
    broken = []
    for rule in schema.get("x-kubernetes-validations", []):
        held = environment.compile(rule["rule"]).eval(data={"self": value}).value()
        assert isinstance(held, bool) or "Invalid timezone" in held, f"{path}: {rule['rule']}: {held}"
        if held is not True:
            broken.append(f"{path}{rule.get('fieldPath', '')}".removeprefix("."))
    if isinstance(value, dict):
        for name, one in schema.get("properties", {}).items():
            if name in value:
                broken += broken_rules(one, value[name], f"{path}.{name}")
    return broken


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        *(("ForecastJob", one) for one in REFUSED),
        *(("AnomalyJob", one) for one in anomalies.REFUSED),
        *(("ExtractJob", one) for one in extracts.REFUSED),
    ],
)
def test_kubernetes_refuses_what_the_models_refuse(kind: str, fields: dict[str, Any]) -> None:
    value = DOCUMENTS[kind](**fields)
    with pytest.raises(ValidationError):
        KINDS[kind].parse(value)
    schema = root(kind)
    wrong = list(jsonschema.Draft4Validator(schema).iter_errors(value))
    assert wrong or broken_rules(schema, defaulted(schema, value))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        *(("ForecastJob", one) for one in TAKEN),
        *(("AnomalyJob", one) for one in anomalies.TAKEN),
        *(("ExtractJob", one) for one in extracts.TAKEN),
    ],
)
def test_kubernetes_takes_what_the_models_take(kind: str, fields: dict[str, Any]) -> None:
    value = DOCUMENTS[kind](**fields)
    KINDS[kind].parse(value)
    schema = root(kind)
    jsonschema.Draft4Validator(schema).validate(value)
    assert not broken_rules(schema, defaulted(schema, value))


def test_a_status_fits() -> None:
    status = {
        "observedGeneration": 3,
        "phase": "Running",
        "engine": "spark",
        "progress": "62%",
        "run": {"id": "20261121-021500-3f9a2c", "number": 4, "trigger": "Spec", "startTime": "2026-11-21T02:15:00Z"},
        "result": {"uri": "s3://b/r", "entities": 5000, "failedEntities": 2, "rows": 9, "scores": {"mase": 0.87}},
        "history": [],
        "conditions": [{"type": "Ready", "status": "False", "reason": "Running", "message": ""}],
    }
    JobStatus.parse(status)
    jsonschema.Draft4Validator(root()["properties"]["status"]).validate(status)

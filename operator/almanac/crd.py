"""The contract as CustomResourceDefinitions: plain dicts, made of the models and of nothing else.

Kubernetes takes less than pydantic writes: its schemas are structural. `structural` writes references out and turns
what has no counterpart (null as a type, items by position) into what has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from almanac.api import GROUP, KINDS, VERSION, Job, JobSpec, JobStatus
from almanac.api.model import Model, aliases, inner

Schema = dict[str, Any]

_KEPT = (
    *("description", "type", "format", "default", "enum", "pattern", "minimum", "exclusiveMinimum", "maximum"),
    *("exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
)
"""Keywords that both dialects share."""

_API_VERSION = "Version of the schema of this object, almanac.dev/v1alpha1."
_KIND = "Kind of this object."


@dataclass(frozen=True, slots=True)
class Resource:
    """What Kubernetes calls a kind, and what its table shows of a result: a count, and the score of that name."""

    plural: str
    short: str
    count: str
    score: str


RESOURCES = {
    "ForecastJob": Resource(plural="forecastjobs", short="fj", count="entities", score="mase"),
    "AnomalyJob": Resource(plural="anomalyjobs", short="aj", count="entities", score="flagged"),
    "ExtractJob": Resource(plural="extractjobs", short="xj", count="rows", score="changed"),
}


def definition(kind: str) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    resource = RESOURCES[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": resource.plural,
                "singular": kind.lower(),
                "shortNames": [resource.short],
                "categories": ["almanac"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(resource),
                    "schema": {"openAPIV3Schema": _root(KINDS[kind])},
                }
            ],
        },
    }


def file_name(kind: str) -> str:
    """The usual name of a definition's file."""
    return f"{GROUP}_{RESOURCES[kind].plural}.yaml"


def to_yaml(crd: dict[str, Any]) -> str:
    """A definition as the text of its file."""
    head = "# Written by `make crds` from operator/almanac/api: change the models, not this file.\n"
    return head + yaml.dump(crd, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice: an anchor reads badly."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _columns(resource: Resource) -> list[dict[str, Any]]:
    def column(name: str, path: str, kind: str = "string", **more: Any) -> dict[str, Any]:
        return {"name": name, "type": kind, "jsonPath": path, **more}

    return [
        column("Phase", ".status.phase"),
        column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        column("Engine", ".status.engine"),
        column("Progress", ".status.progress"),
        column(resource.count.capitalize(), f".status.result.{resource.count}", "integer"),
        column(resource.score.upper(), f".status.result.scores.{resource.score}", "number"),
        column("Workers", ".status.workers.ready", priority=1),
        column("Age", ".metadata.creationTimestamp", "date"),
    ]


def _root(kind: type[Job]) -> Schema:
    spec = inner(kind, "spec")
    assert spec is not None  # noqa: S101 - every kind has one
    return {
        "description": _plain(kind.__doc__ or ""),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"description": _API_VERSION, "type": "string"},
            "kind": {"description": _KIND, "type": "string"},
            "metadata": {"type": "object"},
            "spec": _own_first(structural(spec)),
            "status": _unseen(_without_defaults(structural(JobStatus))),
        },
    }


def _unseen(schema: Schema) -> Schema:
    """The status, with what it is before the operator has written it: of no generation that there is.

    Whoever waits by kstatus takes an object without a status for done; this one is in progress, as those of Flux are.
    """
    observed = schema["properties"]["observedGeneration"] | {"minimum": -1}
    properties = schema["properties"] | {"observedGeneration": observed}
    return schema | {"properties": properties, "default": {"observedGeneration": -1}}


def _own_first(schema: Schema) -> Schema:
    """A spec with the kind's own fields before those of every kind, as people read it."""
    shared = set(aliases(JobSpec))
    return schema | {"properties": dict(sorted(schema["properties"].items(), key=lambda item: item[0] in shared))}


def structural(model: type[Model]) -> Schema:
    """The structural schema of a model."""
    schema = model.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}))


def _structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    if "$ref" in schema:
        named = definitions[schema["$ref"].removeprefix("#/$defs/")]
        return _structural(named | {key: value for key, value in schema.items() if key != "$ref"}, definitions)
    if "anyOf" in schema:  # a field that may be left out
        (only,) = (one for one in schema["anyOf"] if one.get("type") != "null")
        return _structural(only | {key: value for key, value in schema.items() if key != "anyOf"}, definitions)
    made = {key: schema[key] for key in _KEPT if key in schema}
    made |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    if "description" in made:
        made["description"] = _plain(made["description"])
    if "default" in made:
        made["default"] = _telling(made["default"])
        if made["default"] is None:
            del made["default"]
    if "properties" in schema:
        if schema.get("required"):
            made["required"] = schema["required"]
        made["properties"] = {name: _structural(one, definitions) for name, one in schema["properties"].items()}
    elif schema.get("type") == "object":
        made |= _map(schema["additionalProperties"], definitions)
    if "prefixItems" in schema:
        made |= _positions([_structural(one, definitions) for one in schema["prefixItems"]])
    elif "items" in schema:
        made["items"] = _structural(schema["items"], definitions)
    return made


def _map(values: bool | Schema, definitions: dict[str, Schema]) -> Schema:
    if isinstance(values, bool):
        return {"x-kubernetes-preserve-unknown-fields": True}
    return {"additionalProperties": _structural(values, definitions)}


def _positions(items: list[Schema]) -> Schema:
    """A list whose items have bounds by position: the widest bounds for all, and a rule for each that is narrower."""
    bounds = {"minimum": min(one["minimum"] for one in items), "maximum": max(one["maximum"] for one in items)}
    rules = [
        {"rule": f"self[{place}] <= {one['maximum']}", "message": f"item {place + 1} must be at most {one['maximum']}"}
        for place, one in enumerate(items)
        if one["maximum"] < bounds["maximum"]
    ]
    made: Schema = {"items": {"type": items[0]["type"], **bounds}}
    return made | ({"x-kubernetes-validations": rules} if rules else {})


def _telling(default: Any) -> Any:
    """A default without what is empty, which an absent field says too; None if nothing is left."""
    if isinstance(default, dict):
        default = {name: kept for name, value in default.items() if (kept := _telling(value)) is not None}
    return None if default in ("", {}, []) else default


def _without_defaults(schema: Any) -> Any:
    """A schema whose fields are there only once someone wrote them."""
    if isinstance(schema, dict):
        return {key: _without_defaults(value) for key, value in schema.items() if key != "default"}
    return [_without_defaults(one) for one in schema] if isinstance(schema, list) else schema


def _plain(text: str) -> str:
    return " ".join(text.split())

"""The reference of a kind as Markdown, made of its CustomResourceDefinition: what is documented is what is enforced."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pydantic.alias_generators import to_camel

from almanac.api import API_VERSION, KINDS, ExitCode, JobStatus, Reason
from almanac.api.model import Model, aliases, inner
from almanac.crd import RESOURCES, Schema, definition

_BOUNDS = (
    ("minimum", "≥ {}"),
    ("maximum", "≤ {}"),
    ("maxItems", "at most {} items"),
    ("maxLength", "at most {} characters"),
    ("maxProperties", "at most {} entries"),
)


def page(kind: str) -> str:
    """The page of a kind: its fields by section, its rules, its status, and how runs end."""
    version = definition(kind)["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    resource = RESOURCES[kind]
    lines = [
        "<!-- Written by `make crds` from operator/almanac/api: change the models, not this file. -->",
        f"# {kind}",
        "",
        root["description"],
        "",
        f"`apiVersion: {API_VERSION}`, short name `{resource.short}`: `kubectl get {resource.short}`, "
        f"`kubectl explain {resource.short}.spec`.",
        "What is not required may be left out.",
        "",
        *_sections("spec", root["properties"]["spec"], inner(KINDS[kind], "spec")),
        *_sections("status", root["properties"]["status"], JobStatus),
        "## How a run ends",
        "",
        "| Exit code | Reason | Again? |",
        "|---|---|---|",
        *_exits(),
    ]
    return "\n".join(lines) + "\n"


def _sections(path: str, schema: Schema, model: type[Model] | None) -> Iterator[str]:
    """A section for an object, then one for each object in it. `model` brings the rules."""
    yield f"## {path}"
    yield ""
    yield schema["description"]
    yield ""
    yield "| Field | Type | Default | |"
    yield "|---|---|---|---|"
    required = schema.get("required", [])
    for name, one in sorted(schema["properties"].items(), key=lambda item: item[0] not in required):
        default = "**required**" if name in required else _default(one)
        yield f"| {_linked(path, name, one)} | {_type(one)} | {default} | {_cell(one.get('description', ''))} |"
    yield ""
    rules = model.rules() if model else ()
    yield from (f"- `{'.'.join([path, *map(to_camel, rule.at)])}` {rule.message}." for rule in rules)
    if rules:
        yield ""
    attributes = aliases(model) if model else {}
    for name, one in schema["properties"].items():
        inside = one.get("items", one)
        if "properties" in inside:
            described = inside | {"description": one.get("description", inside.get("description", ""))}
            within = inner(model, attributes[name]) if model else None
            yield from _sections(f"{path}.{name}{'[]' if 'items' in one else ''}", described, within)


def _linked(path: str, name: str, schema: Schema) -> str:
    if "properties" not in schema.get("items", schema):
        return f"`{name}`"
    anchor = f"{path}{name}".replace(".", "").replace("[]", "").lower()
    return f"[`{name}`](#{anchor})"


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in schema["enum"])
    if schema.get("type") == "array":
        inside, exactly = schema["items"], schema.get("minItems")
        if exactly is not None and exactly == schema.get("maxItems"):
            return f"list of {exactly}: {_type(inside)}"
        return f"list of {_type(inside)}{_bounds(schema)}"
    if schema.get("type") == "object" and "additionalProperties" in schema:
        return f"map to {_type(schema['additionalProperties'])}{_bounds(schema)}"
    kind = schema.get("format", schema["type"])
    return f"{kind}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    told = []
    for name, words in _BOUNDS:
        if name in schema:
            strictly = schema.get(f"exclusive{name.capitalize()}", False)
            text = words.replace("≥", ">").replace("≤", "<") if strictly else words
            told.append(text.format(f"{schema[name]:,}".replace(",", " ")))
    return f", {', '.join(told)}" if told else ""


def _default(schema: Schema) -> str:
    default = schema.get("default")
    if default is None or "properties" in schema:
        return ""
    return f"`{json.dumps(default).strip(chr(34))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("{", "&#123;")


def _exits() -> Iterator[str]:
    for code in ExitCode:
        name = ExitCode.INTERRUPTED if code is ExitCode.TERMINATED else code
        reasons = ", ".join(f"`{reason}`" for reason in Reason if reason.exit_code is name)
        yield f"| {int(code)} | {reasons} | {'retried' if code.worth_a_retry else ''} |"


def file_name(kind: str) -> str:
    """The name of a kind's page."""
    return f"{kind.lower()}.md"


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    return {file_name(kind): page(kind) for kind in RESOURCES}

"""Structural schemas: defaults, pruning, validation and CEL rules, in the words of the API server.

Rules are evaluated by CEL's own implementation where it is installed; elsewhere they are not looked at. Kubernetes'
additions to CEL (quantities, URLs ...) are not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from datetime import datetime
from functools import cache
from typing import Any

from kube.refusals import Problem

try:
    from cel_expr_python import cel
except ImportError:  # no wheel for this machine
    cel = None

Schema = dict[str, Any]
_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}


def defaulted(value: Any, schema: Schema) -> Any:
    """A value with the defaults filled in, also those within defaults; a null that must not be one counts as absent."""
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        made = {}
        for name, one in value.items():
            inner = fields.get(name, schema.get("additionalProperties"))
            if one is None and isinstance(inner, dict) and "default" in inner and not inner.get("nullable"):
                continue
            made[name] = defaulted(one, inner) if isinstance(inner, dict) else one
        for name, inner in fields.items():
            if name not in made and "default" in inner:
                made[name] = defaulted(deepcopy(inner["default"]), inner)
        return made
    if isinstance(value, list):
        return [defaulted(one, schema.get("items", {})) for one in value]
    return value


def pruned(value: Any, schema: Schema, path: str = "", lost: list[str] | None = None) -> Any:
    """A value without the fields that the schema does not know; their paths are added to `lost`."""
    if isinstance(value, dict):
        fields, more = schema.get("properties", {}), schema.get("additionalProperties")
        keeps = schema.get("x-kubernetes-preserve-unknown-fields") or more is True
        made = {}
        for name, one in value.items():
            inner = fields.get(name, more)
            if isinstance(inner, dict):
                made[name] = pruned(one, inner, _join(path, name), lost)
            elif keeps:
                made[name] = one
            elif lost is not None:
                lost.append(_join(path, name))
        return made
    if isinstance(value, list):
        return [pruned(one, schema.get("items", {}), f"{path}[{place}]", lost) for place, one in enumerate(value)]
    return value


def problems(value: Any, schema: Schema, path: str = "") -> Iterator[Problem]:
    """What the schema refuses, but for CEL rules."""
    if value is None and schema.get("nullable"):
        return
    if not _is(value, schema):
        yield Problem(
            path,
            f'Invalid value: "{_kind(value)}": {path} in body must be of type {schema["type"]}: "{_kind(value)}"',
            "FieldValueTypeInvalid",
        )
        return
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(json.dumps(one) for one in schema["enum"])
        yield Problem(
            path, f"Unsupported value: {json.dumps(value)}: supported values: {allowed}", "FieldValueNotSupported"
        )
    if isinstance(value, str):
        yield from _text(value, schema, path)
    elif isinstance(value, dict):
        yield from _fields(value, schema, path)
    elif isinstance(value, list):
        yield from _items(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _number(value, schema, path)


def _is(value: Any, schema: Schema) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, (int, str)) and not isinstance(value, bool)
    match schema.get("type"):
        case None:
            return True
        case "integer":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "number":
            return not isinstance(value, bool) and isinstance(value, (int, float))
        case kind:
            return isinstance(value, _TYPES[kind])


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "integer" if isinstance(value, int) else "number"
    return next(name for name, kind in _TYPES.items() if isinstance(value, kind))


def _text(value: str, schema: Schema, path: str) -> Iterator[Problem]:
    def wrong(should: str) -> Problem:
        return Problem(path, f"Invalid value: {json.dumps(value)}: {path} in body should {should}")

    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield wrong(f"match '{schema['pattern']}'")
    if len(value) > schema.get("maxLength", len(value)):
        yield Problem(path, f"Too long: may not be more than {schema['maxLength']} bytes", "FieldValueTooLong")
    if len(value) < schema.get("minLength", 0):
        yield wrong(f"be at least {schema['minLength']} chars long")
    if schema.get("format") == "date-time" and not _moment(value):
        yield Problem(path, f'Invalid value: "{value}": {path} in body must be of type date-time: "{value}"')


def _moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None and "T" in text
    except ValueError:
        return False


def _number(value: float, schema: Schema, path: str) -> Iterator[Problem]:
    for keyword, exclusive, sign, word in (
        ("minimum", "exclusiveMinimum", 1, "greater"),
        ("maximum", "exclusiveMaximum", -1, "less"),
    ):
        if keyword in schema:
            beyond = (value - schema[keyword]) * sign
            strict = schema.get(exclusive, False)
            if beyond < 0 or (strict and beyond == 0):
                bound = f"{word} than {'' if strict else 'or equal to '}{schema[keyword]}"
                yield Problem(path, f"Invalid value: {value}: {path} in body should be {bound}")


def _fields(value: dict[str, Any], schema: Schema, path: str) -> Iterator[Problem]:
    for name in schema.get("required", []):
        if name not in value:
            yield Problem(_join(path, name), "Required value", "FieldValueRequired")
    if len(value) > schema.get("maxProperties", len(value)):
        most = schema["maxProperties"]
        yield Problem(path, f"Too many: {len(value)}: must have at most {most} items", "FieldValueTooMany")
    for name, one in value.items():
        inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        if isinstance(inner, dict):
            yield from problems(one, inner, _join(path, name))


def _items(value: list[Any], schema: Schema, path: str) -> Iterator[Problem]:
    if len(value) > schema.get("maxItems", len(value)):
        most = schema["maxItems"]
        yield Problem(path, f"Too many: {len(value)}: must have at most {most} items", "FieldValueTooMany")
    if len(value) < schema.get("minItems", 0):
        yield Problem(
            path, f"Invalid value: {len(value)}: {path} in body should have at least {schema['minItems']} items"
        )
    keys, seen = schema.get("x-kubernetes-list-map-keys", []), []
    for place, one in enumerate(value):
        yield from problems(one, schema.get("items", {}), f"{path}[{place}]")
        if keys and isinstance(one, dict):
            key = {name: one.get(name) for name in keys}
            if key in seen:
                yield Problem(f"{path}[{place}]", f"Duplicate value: {json.dumps(key)}", "FieldValueDuplicate")
            seen.append(key)


def broken_rules(value: Any, old: Any, schema: Schema, path: str = "") -> Iterator[Problem]:
    """The CEL rules that a valid, defaulted value breaks. `old` is what it replaces, None at first."""
    for rule in schema.get("x-kubernetes-validations", []) if cel else []:
        transition = "oldSelf" in rule["rule"]
        if transition and old is None and not rule.get("optionalOldSelf"):
            continue
        held = _program(rule["rule"]).eval(data={"self": value, "oldSelf": old if transition else None}).value()
        if held is not True:
            place = path + rule.get("fieldPath", "")
            told = (
                rule.get("message", f"failed rule: {rule['rule']}")
                if held is False
                else f"rule evaluation error: {held}"
            )
            yield Problem(place.removeprefix("."), f"Invalid value: {told}", rule.get("reason", "FieldValueInvalid"))
    if isinstance(value, dict):
        for name, one in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if isinstance(inner, dict):
                before = old.get(name) if isinstance(old, dict) else None
                yield from broken_rules(one, before, inner, _join(path, name))
    elif isinstance(value, list) and "items" in schema:
        for place, one in enumerate(value):  # items have no identity: no transition rule looks at them
            yield from broken_rules(one, None, schema["items"], f"{path}[{place}]")


@cache
def _program(rule: str) -> Any:
    return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}).compile(rule)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

"""JSON merge patches, strategic merge patches and JSON patches. Nothing is changed in place."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jsonpatch

from kube.refusals import Refusal, bad_request

MERGE_KEYS = {
    **dict.fromkeys(("containers", "initContainers", "ephemeralContainers"), "name"),
    **dict.fromkeys(("env", "volumes", "imagePullSecrets", "resourceClaims"), "name"),
    **dict.fromkeys(("volumeMounts", "volumeDevices"), "mountPath"),
    "conditions": "type",
    "ownerReferences": "uid",
    "hostAliases": "ip",
    "podIPs": "ip",
    "hostIPs": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""Fields of the built-in kinds whose lists are merged by a key, as ports are. All others are replaced."""


def merge_key(field: str, items: list[Any]) -> str | None:
    if field == "ports":
        return "containerPort" if any("containerPort" in one for one in items if isinstance(one, dict)) else "port"
    return MERGE_KEYS.get(field)


def merge(document: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def strategic(document: Any, patch: Any) -> Any:
    """Kubernetes' own merge: lists of the built-in kinds are merged by their keys."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    merged = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            merged[field] = [one for one in merged.get(field, []) if one not in value]
        elif name.startswith("$"):
            continue  # orders of lists: they do not change what a list says
        elif value is None:
            merged.pop(name, None)
        elif name == "finalizers" and isinstance(value, list):
            merged[name] = list(dict.fromkeys([*merged.get(name, []), *value]))
        elif isinstance(value, list) and (key := merge_key(name, value)):
            merged[name] = _lists(merged.get(name) or [], value, key)
        else:
            merged[name] = strategic(merged.get(name), value)
    return merged


def _lists(old: list[dict[str, Any]], patch: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    if any(one.get("$patch") == "replace" for one in patch):
        return [one for one in patch if "$patch" not in one]
    merged = {one.get(key): one for one in old}
    for one in patch:
        if one.get("$patch") == "delete":
            merged.pop(one.get(key), None)
        else:
            merged[one.get(key)] = strategic(merged.get(one.get(key), {}), one)
    return list(merged.values())


def operations(document: Any, patch: list[dict[str, Any]]) -> Any:
    """RFC 6902."""
    try:
        return jsonpatch.apply_patch(deepcopy(document), patch)
    except jsonpatch.JsonPatchTestFailed as error:
        raise _rejected(f"testing path failed: {error}") from None
    except jsonpatch.InvalidJsonPatch as error:
        raise bad_request(f"error decoding patch: {error}") from None
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise _rejected(str(error)) from None


def _rejected(why: str) -> Refusal:
    return Refusal(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")

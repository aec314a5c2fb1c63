"""What the API server does to objects of the built-in kinds on their way in: defaults, checks, what may not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kube import events, names
from kube.refusals import Problem, Refusal, bad_request, invalid
from kube.resources import EVENTS, JOBS, PODS, Document, Resource

MEBIBYTE = 1 << 20
_CONTROLLER_UID, _JOB_NAME = "controller-uid", "job-name"


def prepared(resource: Resource, item: Document) -> Document:
    """A new object, with the defaults of its kind. The status that it came with does not count."""
    if "status" in resource.subresources:
        item = {name: value for name, value in item.items() if name != "status"}
        if not resource.custom:
            item["status"] = {}
    match resource.store:
        case ("", "pods"):
            item["spec"] = _pod_spec(item.get("spec") or {}, "Always")
            item["status"] = {"phase": "Pending", "qosClass": _quality(item["spec"])}
        case ("batch", "jobs"):
            item = _job(item)
        case ("", "namespaces"):
            item["status"] = {"phase": "Active"}
            item["spec"] = {"finalizers": ["kubernetes"]}
            item["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = item["metadata"]["name"]
        case ("", "secrets"):
            item.setdefault("type", "Opaque")
    return item


def _job(job: Document) -> Document:
    spec = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False}
    spec |= {"manualSelector": False, **job["spec"]}
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    template = spec.get("template") or {}
    uid, name = job["metadata"]["uid"], job["metadata"]["name"]
    marks = {f"{prefix}{_JOB_NAME}": name for prefix in ("", "batch.kubernetes.io/")}
    marks |= {f"{prefix}{_CONTROLLER_UID}": uid for prefix in ("", "batch.kubernetes.io/")}
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = marks | (metadata.get("labels") or {})
    spec["template"] = {**template, "metadata": metadata, "spec": _pod_spec(template.get("spec") or {}, "Always")}
    spec["selector"] = {"matchLabels": {f"batch.kubernetes.io/{_CONTROLLER_UID}": uid}}
    return {**job, "spec": spec}


def _pod_spec(spec: Document, restart: str) -> Document:
    made = {
        "restartPolicy": restart,
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        **spec,
    }
    for kind in ("containers", "initContainers"):
        if kind in made:
            made[kind] = [_container(one) for one in made[kind]]
    return made


def _container(container: Document) -> Document:
    latest = ":" not in container.get("image", "").rpartition("/")[2]
    return {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "Always" if latest else "IfNotPresent",
        **container,
    }


def _quality(spec: Document) -> str:
    resources = [one.get("resources", {}) for one in spec.get("containers", [])]
    if not any(one.get("requests") or one.get("limits") for one in resources):
        return "BestEffort"
    sure = all({"cpu", "memory"} <= set(one.get("limits", {})) for one in resources)
    return (
        "Guaranteed"
        if sure and all(one.get("requests", one["limits"]) == one["limits"] for one in resources)
        else "Burstable"
    )


def check_new(resource: Resource, item: Document) -> None:
    """Raises Refusal for a new object that its kind does not allow."""
    _raise(resource, item, [*names.problems(resource, item), *_new(resource, item)])


def _new(resource: Resource, item: Document) -> Iterator[Problem]:
    match resource.store:
        case ("", "events"):
            yield from events.problems(item, resource.group)
        case ("", "pods"):
            yield from _containers(item["spec"], "spec")
        case ("batch", "jobs"):
            yield from _new_job(item)
        case ("", "configmaps" | "secrets"):
            yield from _size(item)


def _new_job(job: Document) -> Iterator[Problem]:
    spec, template = job["spec"], job["spec"]["template"]
    yield from names.labels(template["metadata"]["labels"], "spec.template.labels")
    yield from _containers(template["spec"], "spec.template.spec")
    if template["spec"]["restartPolicy"] not in ("Never", "OnFailure"):
        told = 'Required value: valid values: "OnFailure", "Never"'
        yield Problem("spec.template.spec.restartPolicy", told, "FieldValueRequired")
    for name in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "parallelism", "completions"):
        if spec.get(name, 0) < 0:
            yield Problem(f"spec.{name}", f"Invalid value: {spec[name]}: must be greater than or equal to 0")
    if "podFailurePolicy" in spec:
        yield from _failure_policy(spec)


def _failure_policy(spec: Document) -> Iterator[Problem]:
    if spec["template"]["spec"]["restartPolicy"] != "Never":
        told = 'Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified'
        yield Problem("spec.template.spec.restartPolicy", told)
    if spec["podReplacementPolicy"] != "Failed":
        told = 'Unsupported value: "TerminatingOrFailed": supported values: "Failed"'
        yield Problem("spec.podReplacementPolicy", told, "FieldValueNotSupported")
    for place, rule in enumerate(spec["podFailurePolicy"].get("rules", [])):
        path = f"spec.podFailurePolicy.rules[{place}]"
        if rule.get("action") not in ("FailJob", "FailIndex", "Ignore", "Count"):
            yield Problem(f"{path}.action", f"Unsupported value: {rule.get('action')!r}", "FieldValueNotSupported")
        if ("onExitCodes" in rule) == bool(rule.get("onPodConditions")):
            yield Problem(path, "Invalid value: specifying one of OnExitCodes and OnPodConditions is required")
        codes = rule.get("onExitCodes", {})
        if codes.get("operator") == "In" and 0 in codes.get("values", []):
            told = "Invalid value: 0: must not be 0 for the In operator"
            yield Problem(f"{path}.onExitCodes.values", told)


def _containers(spec: Document, path: str) -> Iterator[Problem]:
    if not spec.get("containers"):
        yield Problem(f"{path}.containers", "Required value", "FieldValueRequired")
    seen = set()
    for place, one in enumerate(spec.get("containers") or []):
        at = f"{path}.containers[{place}]"
        for name in ("name", "image"):
            if not one.get(name):
                yield Problem(f"{at}.{name}", "Required value", "FieldValueRequired")
        if one.get("name") in seen:
            yield Problem(f"{at}.name", f'Duplicate value: "{one["name"]}"', "FieldValueDuplicate")
        seen.add(one.get("name"))
        volumes = {volume.get("name") for volume in spec.get("volumes") or []}
        for index, mount in enumerate(one.get("volumeMounts") or []):
            if mount.get("name") not in volumes:
                told = f'Not found: "{mount.get("name")}"'
                yield Problem(f"{at}.volumeMounts[{index}].name", told, "FieldValueNotFound")


def _size(item: Document) -> Iterator[Problem]:
    total = sum(
        len(str(value)) for name in ("data", "binaryData", "stringData") for value in (item.get(name) or {}).values()
    )
    if total > MEBIBYTE:
        yield Problem("data", f"Too long: may not be more than {MEBIBYTE} bytes", "FieldValueTooLong")


def check_change(resource: Resource, old: Document, new: Document) -> None:
    """Raises Refusal for a change that the kind does not allow."""
    check: Callable[[Document, Document], Iterator[Problem]] | None = {
        JOBS: _changed_job,
        PODS: _changed_pod,
        EVENTS: events.changed if resource.group else None,
        ("", "configmaps"): _changed_data,
        ("", "secrets"): _changed_data,
    }.get(resource.store)
    _raise(resource, new, [*names.problems(resource, new), *(check(old, new) if check else ())])


def _changed_job(old: Document, new: Document) -> Iterator[Problem]:
    held = old["spec"].get("suspend") and not old["status"].get("startTime")
    for name in ("completions", "selector", "template", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"):
        if old["spec"].get(name) != new["spec"].get(name) and not (name == "template" and held):
            yield Problem(f"spec.{name}", "Invalid value: field is immutable")
    had = {one["type"] for one in old["status"].get("conditions", []) if one["status"] == "True"}
    has = {one["type"] for one in new.get("status", {}).get("conditions", []) if one["status"] == "True"}
    for name in sorted(({"Complete", "Failed"} & had) - has):
        yield Problem("status.conditions", f"Invalid value: cannot disable the terminal {name}=True condition")


def _changed_pod(old: Document, new: Document) -> Iterator[Problem]:
    for name in ("containers", "nodeName", "serviceAccountName", "volumes", "restartPolicy"):
        before, after = old["spec"].get(name), new["spec"].get(name)
        if name == "containers":  # only images may change
            before, after = ([{**one, "image": ""} for one in items or []] for items in (before, after))
        if before != after and not (name == "nodeName" and not before):
            yield Problem(
                "spec",
                "Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
                "FieldValueForbidden",
            )


def _changed_data(old: Document, new: Document) -> Iterator[Problem]:
    yield from _size(new)
    if old.get("immutable"):
        for name in ("immutable", "data", "binaryData"):
            if old.get(name) != new.get(name):
                yield Problem(name, "Forbidden: field is immutable when `immutable` is set", "FieldValueForbidden")


def _raise(resource: Resource, item: Document, found: list[Problem]) -> None:
    if found:
        raise invalid(resource.group_kind, item["metadata"]["name"], found)


def checked_shape(resource: Resource, item: object) -> Document:
    """The body of a write as a document, or Refusal."""
    if not isinstance(item, dict):
        raise bad_request("the object provided is unrecognized")
    metadata = item.get("metadata")
    if not isinstance(metadata, dict) and metadata is not None:
        raise bad_request("the object's metadata cannot be decoded")
    for name, expected in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if item.get(name, expected) != expected:
            told = f"{name} in the data ({item[name]}) does not match the expected {name} ({expected})"
            raise bad_request(told)
    for name in ("labels", "annotations"):
        given = (metadata or {}).get(name)
        if given is not None and not (isinstance(given, dict) and all(isinstance(one, str) for one in given.values())):
            raise bad_request(f"cannot unmarshal metadata.{name}: a map of strings is expected")
    return item


def too_large() -> Refusal:
    return Refusal(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")

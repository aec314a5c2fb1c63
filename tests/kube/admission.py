"""What keeps pods out: a missing service account, quotas, and the Pod Security Standards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from kube.refusals import forbidden
from kube.resources import NAMESPACES, PODS, QUOTAS, Document, Resource
from kube.store import Objects

_SUFFIXES = {"m": Decimal("0.001"), "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6")}
_SUFFIXES |= {letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)}
_SUFFIXES |= {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
_FINISHED = ("Succeeded", "Failed")
_RESTRICTED_VOLUMES = {
    *(
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    )
}
ENFORCE = "pod-security.kubernetes.io/enforce"


def check_new(resource: Resource, item: Document, objects: Objects) -> None:
    """Raises Refusal for a pod that may not be."""
    if resource.store != PODS:
        return
    namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
    account = item["spec"].get("serviceAccountName") or "default"
    if account != "default" and not objects.find(("", "serviceaccounts"), (namespace, account)):
        why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        raise forbidden("pods", name, why)
    level = (objects.find(NAMESPACES, ("", namespace)) or {"metadata": {}})["metadata"].get("labels", {}).get(ENFORCE)
    if level == "restricted" and (broken := list(_breaks(item["spec"]))):
        raise forbidden("pods", name, f'violates PodSecurity "restricted:latest": {", ".join(broken)}')
    for quota in objects.all(QUOTAS, namespace):
        _check_quota(quota, item, objects)


def quantity(text: object) -> Decimal:
    """`500m`, `4Gi`, `1e3` ... as a number."""
    found = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)", str(text))
    if not found or found[2] not in _SUFFIXES:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(found[1]) * _SUFFIXES[found[2]]


def _check_quota(quota: Document, pod: Document, objects: Objects) -> None:
    """`pods`, and the sums of requests and limits, as far as the quota names them."""
    hard = quota["spec"].get("hard", {})
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    asked = dict(_usage(pod))
    if missing := sorted(one for one in hard if "." in one and one not in asked):
        who = ",".join(one["name"] for one in pod["spec"]["containers"])
        told = "; ".join(f"{one} for: {who}" for one in missing)
        raise forbidden("pods", name, f"failed quota: {quota['metadata']['name']}: must specify {told}")
    others = [one for one in objects.all(PODS, namespace) if one["status"].get("phase") not in _FINISHED]
    over: dict[str, list[str]] = {"requested": [], "used": [], "limited": []}
    for resource in sorted(hard.keys() & asked.keys()):
        used = sum((dict(_usage(one)).get(resource, Decimal(0)) for one in others), Decimal(0))
        if used + asked[resource] > quantity(hard[resource]):
            over["requested"].append(f"{resource}={_shown(asked[resource])}")
            over["used"].append(f"{resource}={_shown(used)}")
            over["limited"].append(f"{resource}={hard[resource]}")
    if over["limited"]:
        told = ", ".join(f"{word}: {','.join(each)}" for word, each in over.items())
        raise forbidden("pods", name, f"exceeded quota: {quota['metadata']['name']}, {told}")


def _shown(amount: Decimal) -> str:
    """An amount as Kubernetes writes it."""
    if amount != amount.to_integral_value():
        return f"{int(amount * 1000)}m"
    for unit, size in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if amount and amount % size == 0:
            return f"{int(amount) // size}{unit}"
    return str(int(amount))


def _usage(pod: Document) -> Iterator[tuple[str, Decimal]]:
    yield from (("pods", Decimal(1)), ("count/pods", Decimal(1)))
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            each = [one.get("resources", {}) for one in pod["spec"]["containers"]]
            given = [one.get(kind, {}).get(resource) or one.get("limits", {}).get(resource) for one in each]
            if all(given):
                yield f"{kind}.{resource}", sum(map(quantity, given), Decimal(0))


def _breaks(spec: Document) -> Iterator[str]:
    """The words of the *restricted* standard for what a pod lacks."""
    pod = spec.get("securityContext") or {}
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]

    def told(which: list[Document], must: str) -> str:
        names = ", ".join(f'"{one["name"]}"' for one in which)
        return f"container{'s' if len(which) > 1 else ''} {names} must {must}"

    def lacking(ok: object) -> list[Document]:
        return [one for one in containers if not ok(one.get("securityContext") or {})]  # type: ignore[operator]

    if spec.get("hostNetwork") or spec.get("hostPID") or spec.get("hostIPC"):
        yield "host namespaces (hostNetwork=true)"
    if bad := lacking(lambda one: not one.get("privileged")):
        yield f"privileged ({told(bad, 'not set securityContext.privileged=true')})"
    if bad := lacking(lambda one: one.get("allowPrivilegeEscalation") is False):
        yield f"allowPrivilegeEscalation != false ({told(bad, 'set securityContext.allowPrivilegeEscalation=false')})"
    if bad := lacking(lambda one: "ALL" in one.get("capabilities", {}).get("drop", ())):
        must = 'set securityContext.capabilities.drop=["ALL"]'
        yield f"unrestricted capabilities ({told(bad, must)})"
    volumes = [one for one in spec.get("volumes") or [] if not _RESTRICTED_VOLUMES & set(one)]
    if volumes:
        kinds = ", ".join(sorted({kind for one in volumes for kind in one if kind != "name"}))
        yield f'restricted volume types (volume "{volumes[0]["name"]}" uses restricted volume type "{kinds}")'
    if bad := lacking(lambda one: one.get("runAsNonRoot", pod.get("runAsNonRoot")) is True):
        yield f"runAsNonRoot != true (pod or {told(bad, 'set securityContext.runAsNonRoot=true')})"
    if bad := lacking(lambda one: one.get("runAsUser", pod.get("runAsUser")) != 0):
        yield f"runAsUser=0 (pod or {told(bad, 'set securityContext.runAsUser to a non-zero value')})"
    if bad := lacking(
        lambda one: (
            (one.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type")
            in ("RuntimeDefault", "Localhost")
        )
    ):
        must = 'set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield f"seccompProfile (pod or {told(bad, must)})"

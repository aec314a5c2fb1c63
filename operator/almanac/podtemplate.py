"""spec.podTemplate: merged into Almanac's own pods the way Kubernetes merges, and held to what a run's pods may be.

`merge` is a strategic merge: maps are merged, lists of things with names by these names, other lists are replaced.
`problems` says what a template may not: the operator creates pods for people who may not create any pod themselves, so
a template must stay within the restricted Pod Security Standard, and must leave alone what makes a driver a driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from almanac import names
from almanac.api import PodTemplate, Problem
from almanac.api.checks import is_inside, place

Raw = Mapping[str, Any]
Location = tuple[str | int, ...]

ROOT: Location = ("spec", "podTemplate")

FOLDER = "/etc/almanac"
"""Where the job's file is mounted."""
VOLUME = "almanac-job"
"""The volume of the job's file."""

_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "envFrom": "",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "schedulingGates": "name",
}
"""Lists that are merged, and by which key; without one, by adding to the end."""
_WHOLE = ("env", "volumes")
"""Lists whose items are one of several things: an item replaces the one of the same name as a whole."""


def merge(base: Raw, patch: Raw) -> dict[str, Any]:
    """`base` with a patch of the same shape merged into it; neither is changed. A null leaves things as they are."""
    merged = dict(base)
    for field, value in patch.items():
        before = base.get(field)
        if value is None:
            continue
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[field] = merge(before, value)
        elif field in _KEYS and isinstance(before, list) and isinstance(value, list):
            merged[field] = _merged_list(field, before, value)
        else:
            merged[field] = value
    return merged


def _merged_list(field: str, base: list[Any], patch: list[Any]) -> list[Any]:
    key = _KEYS[field]
    if not key:
        return [*base, *patch]
    merged = {item[key]: item for item in base}
    for item in patch:
        before = merged.get(item[key])
        merged[item[key]] = item if before is None or field in _WHOLE else merge(before, item)
    return list(merged.values())


def problems(template: PodTemplate) -> tuple[Problem, ...]:
    """All that a template may not say; empty where it can be merged."""
    shape = (*_metadata(template.metadata), *_shape(template.spec, (*ROOT, "spec")))
    return shape or (*_pod(template.spec), *_containers(template.spec))


def unmounted(uri: str, template: PodTemplate) -> tuple[Problem, ...]:
    """What is wrong with the place of results: a folder on a pod's own disk goes with the pod.

    Kept is what lies below a `mountPath` of the container that computes, as the template gives it.
    """
    main = [one for one in template.spec.get("containers") or () if one["name"] == names.CONTAINER]
    mounts = [mount["mountPath"] for one in main for mount in one.get("volumeMounts") or ()]
    if place(uri)[0] != "file" or any(is_inside(uri, mount) for mount in mounts):
        return ()
    why = f"is a folder of the pod and goes with it: write to s3:// or gs://, or below a mountPath of {names.CONTAINER}"
    return (Problem(("spec", "output", "uri"), f"{why} in spec.podTemplate", uri),)


def _metadata(metadata: Raw) -> Iterator[Problem]:
    for field, entries in metadata.items():
        where = (*ROOT, "metadata", field)
        if field not in ("labels", "annotations"):
            yield Problem(where, "is not read: pods of a run take labels and annotations only", at_key=True)
        elif entries is not None and not isinstance(entries, Mapping):
            yield Problem(where, "must be a mapping of names to strings", entries)
        else:
            for name, value in (entries or {}).items():
                if not isinstance(value, str) or not isinstance(name, str):
                    yield Problem((*where, name), "must be a string: put it into quotes", value)
                elif name.startswith("almanac.dev/") or name in (names.MANAGED_BY, names.NAME, names.COMPONENT):
                    yield Problem((*where, name), "is Almanac's own: choose another name", at_key=True)


_MAPS = ("securityContext", "resources", "requests", "limits", "nodeSelector", "affinity", "seccompProfile")


def _shape(place: Raw, where: Location) -> Iterator[Problem]:
    """What is not of the shape that merging, and the rules, rely on."""
    for field, value in place.items():
        at = (*where, field)
        if str(field).startswith("$"):
            yield Problem(at, "is a directive of patches, which a template does not take", at_key=True)
        elif field in _MAPS and value is not None and not isinstance(value, Mapping):
            yield Problem(at, "must be a mapping of names to values", value)
        elif field in ("securityContext", "resources") and value is not None:
            yield from _shape(value, at)
        elif field in _KEYS and value is not None:
            yield from _items(field, value, at)


def _items(field: str, items: object, at: Location) -> Iterator[Problem]:
    if not isinstance(items, list):
        yield Problem(at, "must be a list", items)
        return
    key, seen = _KEYS[field], set()
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            yield Problem((*at, index), "must be a mapping of names to values", item)
        elif key and not isinstance(item.get(key), int if field == "ports" else str):
            yield Problem((*at, index), f"needs `{key}`, by which it is told from the others", item.get(key))
        elif key and (name := (item[key], str(item.get("protocol")))) in seen:
            yield Problem((*at, index, key), "is there twice", item[key])
        else:
            seen.add(name if key else index)
            yield from _shape(item, (*at, index))


_OURS = {
    "restartPolicy": "retries are spec.backoffLimit's",
    "activeDeadlineSeconds": "write spec.activeDeadlineSeconds",
    "serviceAccountName": "write spec.serviceAccountName",
    "serviceAccount": "write spec.serviceAccountName",
    "automountServiceAccountToken": "whether a driver gets a token follows from its engine",
    "enableServiceLinks": "pods of a run have none",
    "ephemeralContainers": "kubectl debug adds them to a pod that runs",
    "nodeName": "the scheduler chooses; write nodeSelector or affinity",
}
_CONTAINER_OURS = {
    "command": "it is what a run is",
    "args": "it is what a run is",
    "workingDir": "it is what a run is",
    "terminationMessagePath": "the result is read from it",
    "terminationMessagePolicy": "the result is read from it",
    "restartPolicy": "retries are spec.backoffLimit's",
}
_VOLUMES = (
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral"),
    *("persistentVolumeClaim", "projected", "secret"),
)
_RESTRICTED = "pods of a run keep to the restricted Pod Security Standard"


def _pod(spec: Raw) -> Iterator[Problem]:
    where = (*ROOT, "spec")
    for field, why in _OURS.items():
        if spec.get(field) is not None:
            yield Problem((*where, field), f"cannot be set: {why}", at_key=True)
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield Problem((*where, field), f"must not be true: {_RESTRICTED}", spec[field])
    yield from _security(spec.get("securityContext") or {}, (*where, "securityContext"))
    for index, volume in enumerate(spec.get("volumes") or ()):
        at = (*where, "volumes", index)
        if volume["name"] == VOLUME:
            yield Problem((*at, "name"), "is Almanac's own: choose another name", VOLUME)
        for kind in volume:
            if kind != "name" and kind not in _VOLUMES:
                yield Problem((*at, kind), f"is no volume that a run may mount: {_RESTRICTED}", at_key=True)


def _containers(spec: Raw) -> Iterator[Problem]:
    for field in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(field) or ()):
            at = (*ROOT, "spec", field, index)
            if field == "containers" and container["name"] == names.CONTAINER:
                yield from _main(container, at)
            elif not container.get("image"):
                hint = f"needs an image; the run's own container is named {names.CONTAINER}"
                yield Problem(at, hint, container["name"])
            yield from _security(container.get("securityContext") or {}, (*at, "securityContext"))
            yield from _container_security(container, at)


def _main(container: Raw, at: Location) -> Iterator[Problem]:
    for field, why in _CONTAINER_OURS.items():
        if container.get(field) is not None:
            yield Problem((*at, field), f"cannot be set: {why}", at_key=True)
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        if f"{mount['mountPath'].rstrip('/')}/".startswith(f"{FOLDER}/"):
            place = (*at, "volumeMounts", index, "mountPath")
            yield Problem(place, "is where the job's file lies: mount it elsewhere", mount["mountPath"])


def _security(context: Raw, at: Location) -> Iterator[Problem]:
    """A securityContext of a pod or a container, against the restricted standard."""
    seccomp, armor = context.get("seccompProfile") or {}, context.get("appArmorProfile") or {}
    linux, windows = context.get("seLinuxOptions") or {}, context.get("windowsOptions") or {}
    broken = {
        "runAsNonRoot": context.get("runAsNonRoot") is False,
        "runAsUser": context.get("runAsUser") == 0,
        "seccompProfile": _of(seccomp, "type") not in (None, "RuntimeDefault", "Localhost"),
        "appArmorProfile": _of(armor, "type") not in (None, "RuntimeDefault", "Localhost"),
        "seLinuxOptions": bool(_of(linux, "user") or _of(linux, "role")) or _of(linux, "type") not in _SELINUX,
        "windowsOptions": bool(_of(windows, "hostProcess")),
        "sysctls": any(_of(one, "name") not in _SYSCTLS for one in _list(context.get("sysctls"))),
        "privileged": bool(context.get("privileged")),
        "allowPrivilegeEscalation": bool(context.get("allowPrivilegeEscalation")),
        "procMount": context.get("procMount") not in (None, "Default"),
        "capabilities": not _capable(context.get("capabilities") or {}),
    }
    for field, is_broken in broken.items():
        if is_broken:
            yield Problem((*at, field), f"is not allowed: {_RESTRICTED}", context[field])


def _container_security(container: Raw, at: Location) -> Iterator[Problem]:
    for index, port in enumerate(container.get("ports") or ()):
        if port.get("hostPort"):
            yield Problem((*at, "ports", index, "hostPort"), f"is not allowed: {_RESTRICTED}", port["hostPort"])
    lifecycle = container.get("lifecycle")
    hooks = [(("lifecycle", hook), _of(lifecycle, hook)) for hook in ("postStart", "preStop")]
    probes = [((probe,), container.get(probe)) for probe in ("livenessProbe", "readinessProbe", "startupProbe")]
    for path, handler in (*hooks, *probes):
        for how in ("httpGet", "tcpSocket"):
            if _of(_of(handler, how), "host"):
                yield Problem((*at, *path, how, "host"), f"is not allowed: {_RESTRICTED}", at_key=True)


_SELINUX = (None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_SYSCTLS = (
    "kernel.shm_rmid_forced",
    *("net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_syncookies"),
    *("net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time"),
    *("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
)


def _capable(capabilities: object) -> bool:
    """Whether all capabilities but NET_BIND_SERVICE stay dropped."""
    add, drop = _list(_of(capabilities, "add")), _of(capabilities, "drop")
    return all(one == "NET_BIND_SERVICE" for one in add) and (drop is None or "ALL" in _list(drop))


def _of(place: object, field: str) -> Any:
    """A field of what may be anything."""
    return place.get(field) if isinstance(place, Mapping) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

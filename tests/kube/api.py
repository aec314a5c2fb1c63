"""The verbs of the API on stored objects: what a request means once it is parsed. No HTTP, no threads, no waiting."""

from __future__ import annotations

import random
import string
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import uuid4

from kube import admission, events, kinds, ownership, resources, schema
from kube.refusals import Problem, bad_request, conflict, exists, forbidden, invalid, not_found, stale
from kube.resources import BUILT_IN, DEFINITIONS, EVENTS, JOBS, NAMESPACES, PODS, Document, Resource
from kube.store import Key, Objects

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
_POLICY_FINALIZERS = {"Orphan": ORPHAN, "Foreground": FOREGROUND}


@dataclass(frozen=True, slots=True)
class Options:
    """What the query of a write says."""

    subresource: str = ""
    manager: str = "unknown"
    operation: str = "Update"
    force: bool = False
    strict: bool = False
    dry_run: bool = False


DEFAULTS = Options()
Patch = Callable[[Document], Document]


class Api:
    """Every verb. Objects that come in are copied; those that go out are not to be changed."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.served: dict[tuple[str, str, str], Resource] = {}
        self._managers: defaultdict[str, list[ownership.Manager]] = defaultdict(list)
        for one in BUILT_IN:
            self._serve(one)
        for name in ("default", "kube-system"):
            self.create(self.built_in(NAMESPACES), "", {"metadata": {"name": name}})

    def _serve(self, resource: Resource) -> None:
        self.served[resource.group, resource.version, resource.plural] = resource

    def built_in(self, store: resources.Store) -> Resource:
        return self.served[store[0], "v1", store[1]]

    def of(self, store: resources.Store) -> Resource:
        """A version that serves a kind."""
        return next(one for one in self.served.values() if one.store == store)

    # Reading

    def get(self, resource: Resource, namespace: str, name: str) -> Document:
        found = self.objects.find(resource.store, (namespace, name))
        if found is None:
            raise not_found(resource.group_resource, name)
        return found

    def shown(self, resource: Resource, item: Document) -> Document:
        """A stored object as this version of its kind shows it."""
        if resource.store == EVENTS:
            item = events.to_events(item) if resource.group else item
        return {**item, "apiVersion": resource.api_version, "kind": resource.kind}

    # Writing

    def create(self, resource: Resource, namespace: str, body: object, options: Options = DEFAULTS) -> Document:
        item = deepcopy(kinds.checked_shape(resource, body))
        if resource.store == EVENTS and resource.group:
            item = events.to_core(item)
        metadata = item["metadata"] = dict(item.get("metadata") or {})
        self._place(resource, namespace, metadata)
        key = (namespace, metadata["name"])
        if self.objects.find(resource.store, key):
            raise exists(resource.group_resource, metadata["name"])
        item = {"apiVersion": resource.api_version, "kind": resource.kind, **item}
        item = self._custom(resource, kinds.prepared(resource, item), None, options)
        kinds.check_new(resource, item)
        admission.check_new(resource, item, self.objects)
        if resource.generations:
            item["metadata"]["generation"] = 1
        owners = None
        if options.operation == "Apply":
            by = _manager(resource, options)
            by.paths = set(ownership.fields(kinds.checked_shape(resource, body), ownership.list_keys(resource)))
            owners = [by]
        item = self._owned(resource, None, item, options, owners)
        if options.dry_run:
            return item
        made = self.objects.put(resource.store, key, item)
        return self._defined(made) if resource.store == DEFINITIONS else made

    def _place(self, resource: Resource, namespace: str, metadata: Document) -> None:
        given = metadata.get("namespace") or namespace
        if given != namespace and resource.namespaced:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        metadata.pop("namespace", None)
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                told = "Required value: name or generateName is required"
                raise invalid(resource.group_kind, "", [Problem("metadata.name", told, "FieldValueRequired")])
            letters = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))  # noqa: S311 - a name
            metadata["name"] = metadata["generateName"][:58] + letters
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if resource.namespaced:
            self._namespace_is_open(resource, namespace, metadata["name"])
            metadata["namespace"] = namespace
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields", "selfLink"):
            metadata.pop(name, None)
        metadata |= {"uid": str(uuid4()), "creationTimestamp": now()}

    def _namespace_is_open(self, resource: Resource, namespace: str, name: str) -> None:
        found = self.objects.find(NAMESPACES, ("", namespace))
        if found is None:
            raise not_found("namespaces", namespace)
        if "deletionTimestamp" in found["metadata"]:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = Problem("metadata.namespace", f"namespace {namespace} is being terminated", "NamespaceTerminating")
            raise forbidden(resource.group_resource, name, why, (cause,))

    def update(
        self, resource: Resource, namespace: str, name: str, body: object, options: Options = DEFAULTS
    ) -> Document:
        """PUT."""
        item = deepcopy(kinds.checked_shape(resource, body))
        if resource.store == EVENTS and resource.group:
            item = events.to_core(item)
        if resource.custom and not (item.get("metadata") or {}).get("resourceVersion"):
            told = "Invalid value: 0: must be specified for an update"
            raise invalid(resource.group_kind, name, [Problem("metadata.resourceVersion", told)])
        old = self.get(resource, namespace, name)
        given, uid = item["metadata"].get("uid"), old["metadata"]["uid"]
        if given not in (None, "", uid):
            why = f"Precondition failed: UID in precondition: {given}, UID in object meta: {uid}"
            raise conflict(resource.group_resource, name, why)
        return self._replace(resource, old, item, options)

    def patch(self, resource: Resource, namespace: str, name: str, how: Patch, options: Options = DEFAULTS) -> Document:
        """PATCH, but for apply. `how` makes the new document of the old one."""
        old = self.get(resource, namespace, name)
        return self._replace(resource, old, deepcopy(how(self.shown(resource, old))), options)

    def apply(self, resource: Resource, namespace: str, name: str, body: object, options: Options) -> Document:
        """Server-side apply."""
        wanted = deepcopy(kinds.checked_shape(resource, body))
        if (wanted.get("metadata") or {}).get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        wanted.setdefault("metadata", {}).setdefault("name", name)
        if "status" in resource.subresources:
            told = ("apiVersion", "kind", "metadata", "status") if options.subresource else wanted.keys() - {"status"}
            wanted = {field: value for field, value in wanted.items() if field in told}
        old = self.objects.find(resource.store, (namespace, name))
        if old is None:
            if options.subresource:
                raise not_found(resource.group_resource, name)
            return self.create(resource, namespace, wanted, replace(options, operation="Apply"))
        keys = ownership.list_keys(resource)
        by = _manager(resource, replace(options, operation="Apply"))
        held = deepcopy(self._managers[old["metadata"]["uid"]])
        given = wanted["metadata"]
        new, owners = ownership.applied(held, by, old, wanted, keys, options.force)
        new["metadata"] = {
            **new["metadata"],
            **{field: given[field] for field in ("uid", "resourceVersion") if given.get(field)},
        }
        if not given.get("resourceVersion"):
            new["metadata"].pop("resourceVersion", None)
        return self._replace(resource, old, new, options, owners)

    def _replace(
        self,
        resource: Resource,
        old: Document,
        new: Document,
        options: Options,
        owners: list[ownership.Manager] | None = None,
    ) -> Document:
        had, has = old["metadata"], dict(new.get("metadata") or {})
        name, namespace = had["name"], had.get("namespace", "")
        if has.get("resourceVersion") not in (None, "", had["resourceVersion"]):
            raise stale(resource.group_resource, name)
        if has.get("uid", had["uid"]) != had["uid"]:
            told = f'Invalid value: "{has["uid"]}": field is immutable'
            raise invalid(resource.group_kind, name, [Problem("metadata.uid", told)])
        new = self._isolated(resource, old, {**new, "metadata": has}, options.subresource)
        new = self._custom(resource, new, old, options)
        kinds.check_change(resource, old, new)
        has = new["metadata"]
        if "deletionTimestamp" in had and set(has.get("finalizers") or ()) - set(had.get("finalizers") or ()):
            told = "Forbidden: no new finalizers can be added if the object is being deleted"
            raise invalid(resource.group_kind, name, [Problem("metadata.finalizers", told, "FieldValueForbidden")])
        outside = ("metadata", "status") if "status" in resource.subresources else ("metadata",)
        if resource.generations and _without(old, outside) != _without(new, outside):
            has["generation"] = had.get("generation", 0) + 1
        if owners is None and _without(old) == _without(new) and _settled(had) == _settled(has):
            return old
        new = self._owned(resource, old, new, options, owners)
        if _settled(new["metadata"]) == _settled(had) and _without(old) == _without(new):
            same = had.get("managedFields"), new["metadata"].get("managedFields")
            if _timeless(same[0]) == _timeless(same[1]):
                return old
        if options.dry_run:
            return new
        if "deletionTimestamp" in had and not has.get("finalizers") and not has.get("deletionGracePeriodSeconds"):
            return self._remove(resource, new)
        made = self.objects.put(resource.store, (namespace, name), new)
        return self._defined(made) if resource.store == DEFINITIONS else made

    def _isolated(self, resource: Resource, old: Document, new: Document, subresource: str) -> Document:
        """What a write may change: the status by its own path only, and nothing of the server's metadata at all."""
        had = old["metadata"]
        if subresource == "status":
            kept = {**old, "metadata": dict(had)}
            if "status" in new:
                kept["status"] = new["status"]
            else:
                kept.pop("status", None)
            return kept
        fixed = {"uid": had["uid"], "creationTimestamp": had["creationTimestamp"], "name": had["name"]}
        for field in (
            "namespace",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generateName",
            "managedFields",
        ):
            new["metadata"].pop(field, None)
            if field in had:
                fixed[field] = had[field]
        new = {**new, "apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": {**new["metadata"], **fixed}}
        new["metadata"]["resourceVersion"] = had["resourceVersion"]
        if resource.store == EVENTS and resource.group:
            new = events.to_core(new)
        if "status" in resource.subresources:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        for field in ("labels", "annotations", "finalizers", "ownerReferences"):
            if not new["metadata"].get(field, True):
                del new["metadata"][field]
        return new

    def _custom(self, resource: Resource, item: Document, old: Document | None, options: Options) -> Document:
        """A custom resource with its defaults, without unknown fields, held to its schema and its rules."""
        if resource.schema is None:
            return item
        top = {name: value for name, value in item.items() if name not in ("apiVersion", "kind", "metadata")}
        fixed = {name: item[name] for name in ("apiVersion", "kind", "metadata") if name in item}
        lost: list[str] = []
        made = schema.pruned(top, resource.schema, "", lost)
        if lost and options.strict:
            raise bad_request("strict decoding error: " + ", ".join(f'unknown field "{one}"' for one in lost))
        made = schema.defaulted(made, resource.schema)
        found = list(schema.problems({**fixed, **made}, resource.schema))
        if not found:
            found = list(schema.broken_rules(made, old, resource.schema))
        if found:
            raise invalid(resource.group_kind, item["metadata"]["name"], found)
        return {**fixed, **made}

    def _owned(
        self,
        resource: Resource,
        old: Document | None,
        new: Document,
        options: Options,
        owners: list[ownership.Manager] | None = None,
    ) -> Document:
        """The object with `managedFields` brought up to date."""
        uid = new["metadata"]["uid"]
        if owners is None:
            keys = ownership.list_keys(resource)
            before = ownership.fields(old, keys) if old else {}
            by = _manager(resource, options)
            owners = ownership.updated(self._managers[uid], by, before, ownership.fields(new, keys))
        if not options.dry_run:
            self._managers[uid] = owners
        entries = [one.entry() for one in owners]
        return {**new, "metadata": {**new["metadata"], **({"managedFields": entries} if entries else {})}}

    # Deleting

    def delete(
        self, resource: Resource, namespace: str, name: str, given: Document | None = None
    ) -> tuple[Document, bool]:
        """What is left of the object, and whether it is gone at once."""
        given = given or {}
        old = self.get(resource, namespace, name)
        had = old["metadata"]
        for field, wanted in (given.get("preconditions") or {}).items():
            if had.get(field) != wanted:
                why = (
                    f"Precondition failed: {field.upper()} in precondition: {wanted}, in object meta: {had.get(field)}"
                )
                raise conflict(resource.group_resource, name, why)
        finalizers = self._finalizers(resource, had, given)
        grace = _grace(resource, old, given)
        spares = had.get("deletionGracePeriodSeconds", grace)
        if not finalizers and (grace == 0 or resource.store != PODS) and resource.store != NAMESPACES:
            if not given.get("dryRun"):
                self._remove(resource, old)
            return old, True
        if "deletionTimestamp" in had and grace >= spares and finalizers == had.get("finalizers", []):
            return old, False
        new = deepcopy(old)
        metadata = new["metadata"]
        metadata["deletionTimestamp"] = had.get("deletionTimestamp", now())
        metadata["deletionGracePeriodSeconds"] = min(grace, spares)
        if finalizers:
            metadata["finalizers"] = finalizers
        if "generation" in had and "deletionTimestamp" not in had:
            metadata["generation"] = had["generation"] + 1
        if resource.store == NAMESPACES:
            new["status"] = {**new.get("status", {}), "phase": "Terminating"}
        if given.get("dryRun"):
            return new, False
        return self.objects.put(resource.store, (namespace, name), new), False

    @staticmethod
    def _finalizers(resource: Resource, metadata: Document, given: Document) -> list[str]:
        """Those of the object, and the one that its dependents' fate asks for."""
        policy = given.get("propagationPolicy")
        if policy is None and given.get("orphanDependents") is not None:
            policy = "Orphan" if given["orphanDependents"] else "Background"
        if policy not in (None, "Orphan", "Foreground", "Background"):
            told = f'Unsupported value: "{policy}"'
            raise invalid(
                "DeleteOptions.meta.k8s.io", "", [Problem("propagationPolicy", told, "FieldValueNotSupported")]
            )
        kept = list(metadata.get("finalizers") or [])
        if policy is None:
            if not {ORPHAN, FOREGROUND} & set(kept) and resource.store == JOBS:
                kept.append(ORPHAN)  # what batch/v1 has always done
            return kept
        kept = [one for one in kept if one not in (ORPHAN, FOREGROUND)]
        return [*kept, _POLICY_FINALIZERS[policy]] if policy in _POLICY_FINALIZERS else kept

    def _remove(self, resource: Resource, item: Document) -> Document:
        metadata = item["metadata"]
        self._managers.pop(metadata["uid"], None)
        if resource.store == DEFINITIONS:
            self._undefined(item)
        return self.objects.remove(resource.store, (metadata.get("namespace", ""), metadata["name"]), item)

    def bind(self, namespace: str, name: str, body: Document) -> None:
        """What the scheduler does: give a pod to a node."""
        pod = self.get(self.built_in(PODS), namespace, name)
        if pod["spec"].get("nodeName"):
            raise conflict("pods/binding", name, f"pod {name} is already assigned to node {pod['spec']['nodeName']!r}")
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
        others = [one for one in pod["status"].get("conditions", []) if one["type"] != "PodScheduled"]
        status = {**pod["status"], "conditions": [scheduled, *others]}
        bound = {**pod, "spec": {**pod["spec"], "nodeName": body["target"]["name"]}, "status": status}
        self.objects.put(PODS, (namespace, name), bound)

    def finish_namespace(self, name: str) -> None:
        """Forget a namespace whose content is gone."""
        found = self.objects.find(NAMESPACES, ("", name))
        if found is not None:
            self._remove(self.built_in(NAMESPACES), found)

    # Custom resources

    def _defined(self, definition: Document) -> Document:
        """Serve what a definition defines, and tell so in its status."""
        spec = definition["spec"]
        for version in spec["versions"]:
            self.served.pop((spec["group"], version["name"], spec["names"]["plural"]), None)
        for one in resources.defined(definition):
            self._serve(one)
        if (definition.get("status") or {}).get("acceptedNames") == spec["names"]:
            return definition
        conditions = [
            {"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now()}
            for kind, reason in (("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted"))
        ]
        stored = [one["name"] for one in spec["versions"] if one["storage"]]
        status = {"conditions": conditions, "acceptedNames": spec["names"], "storedVersions": stored}
        return self.objects.put(DEFINITIONS, ("", definition["metadata"]["name"]), {**definition, "status": status})

    def _undefined(self, definition: Document) -> None:
        for one in list(resources.defined(definition)):
            for item in self.objects.all(one.store):
                self._remove(one, item)
            self.served.pop((one.group, one.version, one.plural), None)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(item: Document) -> Key:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _manager(resource: Resource, options: Options) -> ownership.Manager:
    return ownership.Manager(options.manager, options.operation, options.subresource, resource.api_version, now())


def _without(item: Document, names: tuple[str, ...] = ("metadata",)) -> Document:
    return {name: value for name, value in item.items() if name not in ("apiVersion", "kind", *names)}


def _settled(metadata: Document) -> Document:
    return {name: value for name, value in metadata.items() if name not in ("resourceVersion", "managedFields")}


def _timeless(entries: list[Document] | None) -> list[Document]:
    return [{name: value for name, value in one.items() if name != "time"} for one in entries or []]


def _grace(resource: Resource, item: Document, given: Document) -> int:
    """How long a pod may take to stop. Nothing else takes time, and neither does a pod that no node runs."""
    if (
        resource.store != PODS
        or not item["spec"].get("nodeName")
        or item["status"].get("phase") in ("Succeeded", "Failed")
    ):
        return 0
    asked = given.get("gracePeriodSeconds")
    return int(item["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked)

"""The kinds that are served: the built-in ones, and those of CustomResourceDefinitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
Store = tuple[str, str]
"""Where objects are kept, whatever version they are asked for in: group and plural."""

EVENTS: Store = ("", "events")
JOBS: Store = ("batch", "jobs")
NAMESPACES: Store = ("", "namespaces")
PODS: Store = ("", "pods")
QUOTAS: Store = ("", "resourcequotas")
DEFINITIONS: Store = ("apiextensions.k8s.io", "customresourcedefinitions")


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One version of one kind, as discovery tells it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    generations: bool = False
    schema: Document | None = None
    """The structural schema of a custom resource; None for what is built in, which is taken as it comes."""
    columns: tuple[Document, ...] = ()

    @property
    def store(self) -> Store:
        return EVENTS if self.plural == "events" else (self.group, self.plural)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}".strip("/")

    @property
    def group_resource(self) -> str:
        return f"{self.plural}.{self.group}".strip(".")

    @property
    def group_kind(self) -> str:
        return f"{self.kind}.{self.group}".strip(".")

    @property
    def custom(self) -> bool:
        return self.schema is not None


def _core(plural: str, kind: str, *short: str, **more: Any) -> Resource:
    return Resource("", "v1", plural, kind, short_names=short, **more)


_STATUS = {"subresources": ("status",)}

BUILT_IN = (
    _core("namespaces", "Namespace", "ns", namespaced=False, **_STATUS),
    _core("nodes", "Node", "no", namespaced=False, **_STATUS),
    _core("pods", "Pod", "po", subresources=("status", "log", "binding"), generations=True, categories=("all",)),
    _core("configmaps", "ConfigMap", "cm"),
    _core("secrets", "Secret"),
    _core("services", "Service", "svc", categories=("all",), **_STATUS),
    _core("serviceaccounts", "ServiceAccount", "sa", subresources=("token",)),
    _core("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", **_STATUS),
    _core("resourcequotas", "ResourceQuota", "quota", **_STATUS),
    _core("events", "Event", "ev"),
    Resource("events.k8s.io", "v1", "events", "Event", short_names=("ev",)),
    Resource("batch", "v1", "jobs", "Job", categories=("all",), generations=True, **_STATUS),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("apps", "v1", "deployments", "Deployment", True, ("deploy",), ("all",), generations=True, **_STATUS),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short_names=("netpol",)),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    Resource(
        *("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False),
        short_names=("crd", "crds"),
        generations=True,
        **_STATUS,
    ),
)


def defined(definition: Document) -> Iterator[Resource]:
    """The resources that a CustomResourceDefinition serves."""
    spec = definition["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if version["served"]:
            yield Resource(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                spec["scope"] == "Namespaced",
                tuple(names.get("shortNames", ())),
                tuple(names.get("categories", ())),
                tuple(version.get("subresources", ())),
                generations=True,
                schema=version["schema"]["openAPIV3Schema"],
                columns=tuple(version.get("additionalPrinterColumns", ())),
            )

"""Values of the Helm chart that stand for those that people write, and what one may ask of its manifests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tools.chart import Manifest

DIGEST = f"sha256:{'0123456789abcdef' * 4}"

VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "namespaces": {"watch": {"namespaces": ["finance", "sales"]}},
    "smallest": {
        "crds": {"install": False},
        "rbac": {"create": False, "aggregate": False},
        "serviceAccount": {"create": False, "name": "somebody"},
        "replicas": 1,
        "leaderElection": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "topologySpread": [],
        "spark": {"enabled": False},
    },
    "digests": {
        "image": {"repository": "registry.example/almanac", "digest": DIGEST},
        "spark": {"image": {"repository": "registry.example/almanac-spark", "tag": "0.1.0", "digest": DIGEST}},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "networks": {
        "watch": {"namespaces": ["finance"]},
        "networkPolicy": {
            "enabled": True,
            "namespaces": ["finance", "sales"],
            "dataPorts": [443, 9000],
            "dataPeers": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "minio"}}}],
            "metricsFrom": {"kubernetes.io/metadata.name": "monitoring"},
        },
    },
    "monitored": {
        "metrics": {
            "port": 9090,
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "driverMonitor": {"enabled": True},
            "rules": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Almanac"}},
        },
    },
    "workload identity": {
        "watch": {"namespaces": ["finance", "sales"]},
        "serviceAccount": {"name": "op", "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/op"}},
        "jobs": {
            "serviceAccount": {"create": True, "name": "jobs", "annotations": {"iam.gke.io/gcp-service-account": "x"}}
        },
    },
    "placed": {
        "fullnameOverride": "forecasting",
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "arch", "operator": "In", "values": ["x"]}]}]
                }
            }
        },
        "podAnnotations": {"example.com/a": "b"},
        "podLabels": {"team": "platform"},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    },
    "dask": {"dask": {"installOperator": True}},
}
"""Cases, by what they are about."""

CUSTOM = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
"""Kinds that Kubernetes itself does not have."""


def pods(made: list[Manifest]) -> Iterator[Manifest]:
    """The pods and templates of pods among manifests: metadata and spec."""
    for one in made:
        if one["kind"] == "Pod":
            yield one
        elif "template" in one.get("spec", {}):
            yield one["spec"]["template"]


def environment(made: list[Manifest]) -> dict[str, str]:
    """What the operator's container gets as environment, where it is said outright."""
    (operator,) = [one for one in made if one["kind"] == "Deployment"]
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value", "") for one in container["env"]}

"""A kind for the checks of the API itself, which go beyond what the project's kinds have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kube.cluster import MADE_BY_TESTS, Cluster

Raw = dict[str, Any]

GROUP = "conformance.almanac.dev"
SCHEMA: Raw = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["horizon"],
            "properties": {
                "horizon": {"type": "integer", "minimum": 1},
                "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
                "low": {"type": "integer"},
                "high": {"type": "integer"},
                "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "string", "default": "d"}}},
                "items": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
                    },
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.low) || !has(self.high) || self.low < self.high",
                    "message": "low must be below high",
                    "fieldPath": ".low",
                },
                {"rule": "self.mode == oldSelf.mode", "message": "mode cannot be changed"},
            ],
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


@pytest.fixture
def samples(cluster: Cluster) -> Callable[..., Raw]:
    """Makes objects of a kind with the plural `samples`: `samples("name", low=1)`; they are not created yet."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
            {"name": "Horizon", "type": "integer", "jsonPath": ".spec.horizon"},
        ],
        "schema": {"openAPIV3Schema": SCHEMA},
    }
    names = {"plural": "samples", "singular": "sample", "kind": "Sample", "listKind": "SampleList"}
    cluster.define(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"samples.{GROUP}", "labels": MADE_BY_TESTS},
            "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
        }
    )

    def sample(name: str, metadata: Raw | None = None, **spec: Any) -> Raw:
        return {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Sample",
            "metadata": {"name": name, **(metadata or {})},
            "spec": {"horizon": 1, **spec},
        }

    return sample

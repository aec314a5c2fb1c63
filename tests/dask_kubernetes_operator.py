"""dask-kubernetes for tests: its definitions, and its operator as a process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from finance import ended
from kube.cluster import MADE_BY_TESTS, Cluster


def define(cluster: Cluster) -> None:
    """Make an API serve the kinds of dask-kubernetes, unless it does; what tests define, a real one does not keep."""
    package = find_spec("dask_kubernetes")
    assert package is not None
    assert package.submodule_search_locations is not None
    for file in Path(package.submodule_search_locations[0]).rglob("crds/*.yaml"):
        made: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        plural, group = made["spec"]["names"]["plural"], made["spec"]["group"]
        if cluster.client.find("customresourcedefinitions", f"{plural}.{group}"):
            cluster.client.know(plural, f"{group}/v1")
        else:
            cluster.define(made | {"metadata": made["metadata"] | {"labels": MADE_BY_TESTS}})


@contextmanager
def operated(cluster: Cluster) -> Iterator[None]:
    """Run its operator for the namespace of a cluster."""
    kopf = Path(sys.executable).parent / "kopf"
    command = [str(kopf), "run", "-m", "dask_kubernetes.operator.controller", "-n", cluster.client.namespace]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with ended(command, environment | {"KUBECONFIG": str(cluster.kubeconfig)}, cluster.folder / "dask.log"):
        yield

"""Engines: what a run computes on, each as a pure function from a job and a run to the manifests to create."""

from __future__ import annotations

from collections.abc import Callable

from almanac.api import Engine, Job, Run
from almanac.engines import dask, local, spark
from almanac.manifests import Manifest
from almanac.settings import Settings

ENGINES: dict[Engine, Callable[[Job, Run, Settings], list[Manifest]]] = {
    Engine.LOCAL: local.build,
    Engine.SPARK: spark.build,
    Engine.DASK: dask.build,
}
"""The engines that this operator can start."""

COMPANIONS: dict[Engine, tuple[str, ...]] = {
    Engine.LOCAL: ("ConfigMap",),
    Engine.SPARK: ("ConfigMap", "Service", "RoleBinding", "Role", "ServiceAccount"),
    Engine.DASK: ("DaskCluster", "ConfigMap", "NetworkPolicy"),
}
"""What each engine creates besides drivers, by kind, in the order in which it is deleted."""

CLUSTERS: dict[Engine, str] = {Engine.DASK: "DaskCluster"}
"""The kind that is an engine's cluster, where that does not go with the driver's pod."""


def build(job: Job, run: Run, engine: Engine, settings: Settings) -> list[Manifest]:
    """All manifests of a run, in the order in which they are created. The driver is the last one.

    Raises:
        KeyError: for an engine that is not in `ENGINES`.
    """
    return ENGINES[engine](job, run, settings)

"""The engine dask: a scheduler and workers, which dask-kubernetes makes of a DaskCluster, and a driver that uses them.

The cluster lasts as long as the run, whichever of its pods is lost: a driver that is started again finds it at the same
address. Its pods are made again by Kubernetes, or their containers are started again where they are.
"""

from __future__ import annotations

from typing import Any

from almanac import manifests, names
from almanac.api import Engine, Job, Run
from almanac.api.checks import amount
from almanac.manifests import Manifest
from almanac.settings import Settings

COMM_PORT = 8786
"""Where the scheduler is talked to, by driver and workers."""
HTTP_PORT = 8787
"""Where the scheduler shows its pages, and is asked by dask-kubernetes which workers can go."""
WORKER_PORT = 8788
"""Where a worker is talked to, by the scheduler and other workers."""
WORKER_HTTP_PORT = 8789
"""Where a worker says whether it is well."""

PRELOADED = {"ForecastJob": "almanac_jobs.forecasting", "AnomalyJob": "almanac_jobs.detecting"}
"""What a worker imports as it starts, and not in its first task, by the kind of its job."""

SCHEDULER_MEMORY = "4Gi"
"""Memory of a scheduler; that of a worker where this is less."""


def build(job: Job, run: Run, settings: Settings) -> list[Manifest]:
    """The manifests of a run on Dask: who may talk to its pods, its files, its cluster, the driver."""
    return [
        _network_policy(job, run),
        manifests.config_map(job, run, Engine.DASK),
        _cluster(job, run, settings),
        manifests.driver(job, run, Engine.DASK, _driver(job, run, settings)),
    ]


def address(job: Job, run: Run) -> str:
    """Where the scheduler of a run is: the Service that dask-kubernetes makes."""
    return f"tcp://{run.driver}-scheduler.{job.metadata.namespace}.svc:{COMM_PORT}"


def _driver(job: Job, run: Run, settings: Settings) -> Manifest:
    env = [
        {"name": "ALMANAC_ENGINE", "value": str(Engine.DASK)},
        {"name": "DASK_SCHEDULER_ADDRESS", "value": address(job, run)},
    ]
    own = manifests.telling(run)
    container = manifests.container(job, settings.dask_image, command=manifests.COMMAND, **own, env=env)
    spec = manifests.pod_spec(job, run, _account(job, settings), container)
    labels = manifests.labels(job, run, Engine.DASK)
    return manifests.template(job, labels, spec, settings.cpu, settings.memory)


def _cluster(job: Job, run: Run, settings: Settings) -> Manifest:
    dask = job.spec.dask
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": manifests.metadata(job, run, Engine.DASK),
        "spec": {
            # dask-kubernetes lets go of a cluster only once the scheduler has answered whether it is idle, which one
            # that is lost does not: clusters would outlast their runs.
            "idleTimeout": 0,
            "scheduler": {**_scheduler(job, run, settings), "service": _service(run)},
            "worker": {**_worker(job, run, settings), "replicas": dask.fewest},
        },
    }


def _scheduler(job: Job, run: Run, settings: Settings) -> Manifest:
    ports = {"tcp-comm": COMM_PORT, "http-dashboard": HTTP_PORT}
    own = {
        "command": ["dask", "scheduler"],
        "args": ["--port", str(COMM_PORT), "--dashboard-address", f":{HTTP_PORT}"],
        "ports": _ports(ports),
        "env": [{"name": "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES", "value": str(ROUTES)}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": _probe("http-dashboard", periodSeconds=3),
        "livenessProbe": _probe("http-dashboard", periodSeconds=15, failureThreshold=8),
    }
    memory = min(job.spec.dask.memory, SCHEDULER_MEMORY, key=amount)
    return _pod(job, run, settings, names.SCHEDULER, own, "1", memory)


def _worker(job: Job, run: Run, settings: Settings) -> Manifest:
    dask = job.spec.dask
    ports = {"worker-comm": WORKER_PORT, "worker-http": WORKER_HTTP_PORT}
    own = {
        "command": ["dask", "worker"],
        # No nanny: the kubelet starts a process again that ended, and everybody sees how it did.
        "args": [
            "--no-nanny",
            *("--preload", PRELOADED[job.kind]),
            *("--name", "$(DASK_WORKER_NAME)"),
            *("--nthreads", str(dask.threads)),
            *("--memory-limit", str(amount(dask.memory))),
            *("--worker-port", str(WORKER_PORT)),
            *("--dashboard-address", f":{WORKER_HTTP_PORT}"),
            *("--local-directory", "/tmp/dask"),  # noqa: S108 - a volume of the pod's own
        ],
        "ports": _ports(ports),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": [
            {"name": "DASK_SCHEDULER_ADDRESS", "value": address(job, run)},
            {"name": "MALLOC_TRIM_THRESHOLD_", "value": "65536"},  # what a nanny sets: free memory is given back
        ],
        "readinessProbe": _probe("worker-http", periodSeconds=3),
    }
    return _pod(job, run, settings, names.WORKER, own, str(dask.threads), dask.memory)


ROUTES = [
    "distributed.http.scheduler.prometheus",
    "distributed.http.scheduler.info",
    "distributed.http.scheduler.json",
    "distributed.http.health",
    "distributed.http.proxy",
    "distributed.http.statics",
    "distributed.http.scheduler.api",
]
"""What a scheduler serves: what it does anyway, and the API that dask-kubernetes asks before it takes workers away."""


def _pod(
    job: Job, run: Run, settings: Settings, component: str, own: dict[str, Any], cpu: str, memory: str
) -> Manifest:
    """A pod of the cluster: spec.podTemplate shapes it, but for CPU and memory. It may request less CPU than it has."""
    container = manifests.container(job, settings.dask_image, **own)
    if component == names.SCHEDULER:
        container.pop("envFrom", None)  # it reads no storage
    spec = manifests.pod_spec(job, run, _account(job, settings), container)
    spec |= {"restartPolicy": "Always", "terminationGracePeriodSeconds": _GRACE}
    template = manifests.template(job, manifests.labels(job, run, Engine.DASK, component), spec, cpu, memory)
    (main,) = (one for one in template["spec"]["containers"] if one["name"] == names.CONTAINER)
    requested = min(str(main["resources"]["requests"]["cpu"]), cpu, key=amount)
    return manifests.sized(template, {"cpu": requested, "memory": memory}, {"cpu": cpu, "memory": memory})


_GRACE = 10
"""Seconds that a pod has to end: the parts of a cluster that goes as a whole would wait longer for each other."""


def _account(job: Job, settings: Settings) -> str:
    return job.spec.service_account_name or settings.service_account


def _ports(ports: dict[str, int]) -> list[Manifest]:
    return [{"name": name, "containerPort": port} for name, port in ports.items()]


def _probe(port: str, **timing: int) -> Manifest:
    """Whether Dask answers: its loop is busy for seconds now and then."""
    return {"httpGet": {"path": "/health", "port": port}, "timeoutSeconds": 10, **timing}


def _service(run: Run) -> Manifest:
    """The scheduler's name: that of the pod itself, which connections then lead to as long as it lasts."""
    return {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"dask.org/cluster-name": run.driver, "dask.org/component": "scheduler"},
        "ports": [
            {"name": name, "protocol": "TCP", "port": port, "targetPort": name}
            for name, port in (("tcp-comm", COMM_PORT), ("http-dashboard", HTTP_PORT))
        ],
    }


def _network_policy(job: Job, run: Run) -> Manifest:
    """Who reaches a scheduler or a worker of Dask has its rights: pods of the same run, and nobody else."""
    ours = {"podSelector": {"matchLabels": {names.JOB_UID: job.metadata.uid or "", names.RUN: run.id}}}
    told = [{"protocol": "TCP", "port": port} for port in (HTTP_PORT, manifests.PORT)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": manifests.metadata(job, run, Engine.DASK),
        "spec": {**ours, "policyTypes": ["Ingress"], "ingress": [{"from": [ours]}, {"ports": told}]},
    }

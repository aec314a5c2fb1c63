"""What engines share: a run's metadata, the ConfigMap with its job, the driver (a batch/v1 Job), and what a pod is.

Builds plain dicts from values and touches nothing. Every manifest is owned by the job's custom resource, so that
Kubernetes deletes it together with the job, and carries labels of Almanac's own alone: a label copied from the job
would make Argo CD take it for something that is not in Git.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from almanac import names, podtemplate
from almanac.api import Engine, ExitCode, Job, Run
from almanac.api.checks import ABOVE_ZERO

Manifest = dict[str, Any]

JOB_FILE = "job.json"
COMMAND = ["python", "-m", "almanac_jobs"]
"""The program that a driver runs."""
TERMINATION_LOG = "/dev/termination-log"
PORT = 9400
"""Where a driver tells its progress (/progress) and metrics (/metrics)."""
USER = 10001

NEVER_RETRIED = tuple(sorted(code for code in ExitCode if code.final and code is not ExitCode.DONE))
"""Exit codes after which the same run would fail again."""


def metadata(job: Job, run: Run, engine: Engine) -> Manifest:
    """The metadata of a run's objects, which all have the name of its driver."""
    about = {
        names.SPEC_HASH: run.spec_hash,
        names.TRIGGER: run.trigger,
        names.RESTART_NONCE: run.restart_nonce,
        names.ATTEMPT: run.attempts,
        names.SOURCE: run.source or None,
    }
    return {
        "name": run.driver,
        "namespace": job.metadata.namespace,
        "labels": labels(job, run, engine),
        "annotations": {name: str(value) for name, value in about.items() if value is not None},
        "ownerReferences": [
            {
                "apiVersion": job.api_version,
                "kind": job.kind,
                "name": job.metadata.name,
                "uid": job.metadata.uid or "",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def labels(job: Job, run: Run, engine: Engine, component: str = names.DRIVER) -> dict[str, str]:
    """The labels of a run's driver and of its pods, or of another component's."""
    return {
        names.NAME: names.ALMANAC,
        names.MANAGED_BY: names.ALMANAC,
        names.COMPONENT: component,
        names.KIND: job.kind,
        names.JOB: names.label(job.metadata.name),
        names.JOB_UID: job.metadata.uid or "",
        names.RUN: run.id,
        names.RUN_NUMBER: str(run.number),
        names.ENGINE: str(engine),
    }


def config_map(job: Job, run: Run, engine: Engine, files: Mapping[str, str] | None = None) -> Manifest:
    """The job as the driver reads it, without the pod template, which may hold what is private; and further files."""
    identity = {"name", "namespace", "uid", "generation"}
    job = job.reading(run.source) if run.source else job
    document = {
        "apiVersion": job.api_version,
        "kind": job.kind,
        "metadata": job.metadata.model_dump(mode="json", include=identity, exclude_none=True),
        "spec": job.spec.model_dump(mode="json", exclude_unset=True, exclude={"pod_template"}),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(job, run, engine),
        "immutable": True,
        "data": {JOB_FILE: json.dumps(document, indent=2, ensure_ascii=False) + "\n", **(files or {})},
    }


def driver(job: Job, run: Run, engine: Engine, template: Manifest) -> Manifest:
    """The driver of a run, whose pods are of this template. Retries, deadline and disruptions are Kubernetes' own."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(job, run, engine),
        "spec": {
            "backoffLimit": job.spec.backoff_limit,
            "activeDeadlineSeconds": job.spec.active_deadline_seconds,
            "completions": 1,
            "parallelism": 1,
            "suspend": False,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": names.CONTAINER,
                            "operator": "In",
                            "values": [int(code) for code in NEVER_RETRIED],
                        },
                    },
                ]
            },
            "template": template,
        },
    }


def template(job: Job, labels: Mapping[str, str], spec: Manifest, cpu: str, memory: str) -> Manifest:
    """The template of a run's pods: a spec with spec.podTemplate merged into it, held to what every pod keeps to.

    `cpu` and `memory` are for the container that computes, where spec.podTemplate gives it none.
    """
    given = job.spec.pod_template
    spec = podtemplate.merge(spec, given.spec)
    spec["containers"] = [_hardened(container, cpu, memory) for container in spec["containers"]]
    if spec.get("initContainers"):
        spec["initContainers"] = [_hardened(container, cpu, memory) for container in spec["initContainers"]]
    return {"metadata": podtemplate.merge({"labels": dict(labels)}, given.metadata), "spec": spec}


def pod_spec(job: Job, run: Run, account: str, container: Manifest) -> Manifest:
    """What every pod of a run is, around the container that computes. Without an account: the namespace's default."""
    return {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        **({"serviceAccountName": account} if account else {}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": podtemplate.VOLUME, "configMap": {"name": run.driver}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def container(job: Job, image: str, **own: Any) -> Manifest:
    """The container that computes, in every pod of a run. `own` is what the pod's part in it adds."""
    secrets = [{"secretRef": {"name": name}} for name in job.spec.secrets]
    return {
        "name": names.CONTAINER,
        "image": job.spec.image or image,
        **own,
        "env": [*ENV, *own.get("env", ())],
        **({"envFrom": secrets} if secrets else {}),
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": podtemplate.VOLUME, "mountPath": podtemplate.FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }


THREADS = {
    kind: {"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": {"resource": f"{kind}.cpu"}}}
    for kind in ("requests", "limits")
}
"""Threads of arithmetic: the cores that a container requests or may use, rounded up."""
ENV = (
    {"name": "HOME", "value": "/tmp"},  # noqa: S108 - a volume of the pod's own
    THREADS["requests"],
    {"name": "OMP_WAIT_POLICY", "value": "passive"},
    {"name": "AWS_REQUEST_CHECKSUM_CALCULATION", "value": "when_required"},
    {"name": "PYTHONUNBUFFERED", "value": "1"},
)
"""Environment of every container that computes."""


def telling(run: Run) -> Manifest:
    """What makes a container a driver's: the arguments of its program, and where it tells its progress and its end."""
    return {
        "args": [f"{podtemplate.FOLDER}/{JOB_FILE}", "--run-id", run.id, "--termination-log", TERMINATION_LOG],
        "ports": [{"name": "metrics", "containerPort": PORT}],
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _hardened(container: Mapping[str, Any], cpu: str, memory: str) -> Manifest:
    """A container with what the restricted standard asks of each, and with resources if it is the one that computes."""
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    hardened = {**container, "securityContext": podtemplate.merge(context, container.get("securityContext") or {})}
    if container["name"] == names.CONTAINER:
        return counted({**hardened, "resources": resources(container.get("resources") or {}, cpu, memory)})
    return hardened


def sized(template: Manifest, requests: Mapping[str, str], limits: Mapping[str, str]) -> Manifest:
    """A template whose container that computes has this CPU and memory; its other resources are as they were."""
    spec, given = template["spec"], {"requests": requests, "limits": limits}

    def container(one: Manifest) -> Manifest:
        if one["name"] != names.CONTAINER:
            return one
        changed = {kind: one["resources"][kind] | dict(sizes) for kind, sizes in given.items()}
        return counted({**one, "resources": one["resources"] | changed})

    return {**template, "spec": {**spec, "containers": [container(one) for one in spec["containers"]]}}


def counted(container: Manifest) -> Manifest:
    """A container with as many threads as it requests cores, or as it may use where it requests none.

    OpenMP takes zero threads for none said, and starts one for each core of the node.
    """
    kind = "requests" if re.search(ABOVE_ZERO, str(container["resources"]["requests"]["cpu"])) else "limits"
    env, ours = container.get("env"), THREADS.values()
    return container | {"env": [THREADS[kind] if one in ours else one for one in env]} if env else container


def resources(given: Mapping[str, Any], cpu: str, memory: str) -> Manifest:
    """Requests and limits of CPU and memory: where only one of the two is given, the other is the same."""
    requests, limits = dict(given.get("requests") or {}), dict(given.get("limits") or {})
    for name, default in (("cpu", cpu), ("memory", memory)):
        request = requests.get(name) or limits.get(name) or default
        requests[name], limits[name] = request, limits.get(name) or request
    return {**given, "requests": requests, "limits": limits}

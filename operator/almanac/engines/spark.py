"""The engine spark: a driver in client mode, which asks Kubernetes for its executors itself, and what that needs.

The driver finds Spark's settings as a file (SPARK_CONF_DIR) and opens a session with them. Executors are pods that
Spark makes from a template of ours, owned by the driver's pod: they go with it, and a new driver gets new ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from almanac import manifests, names, podtemplate
from almanac.api import Engine, ForecastJob, Job, Run
from almanac.api.checks import amount
from almanac.api.common import Spark, SparkDriver, SparkExecutors
from almanac.manifests import Manifest
from almanac.settings import Settings

CONF_FOLDER = f"{podtemplate.FOLDER}/spark"
CONF_FILE = "spark-defaults.conf"
TEMPLATE_FILE = "executor.json"

RPC_PORT = 7078
BLOCK_PORT = 7079
UI_PORT = 4040

EXECUTORS = 4
"""Executors of a job that does not say how many."""

VERBS = ["create", "get", "list", "watch", "patch", "delete", "deletecollection"]
"""What Spark's driver does with pods, in its own namespace. It needs nothing else."""


def build(job: Job, run: Run, settings: Settings) -> list[Manifest]:
    """The manifests of a run on Spark: who its driver is, what that may, where it is found, its files, the driver."""
    account = job.spec.service_account_name or settings.service_account
    files = {CONF_FILE: properties(conf(job, run, settings)), TEMPLATE_FILE: _json(_executor(job, run, settings))}
    return [
        *([] if account else [_service_account(job, run)]),
        _role(job, run),
        _role_binding(job, run, account or run.driver),
        _service(job, run),
        manifests.config_map(job, run, Engine.SPARK, files),
        manifests.driver(job, run, Engine.SPARK, _driver(job, run, settings, account or run.driver)),
    ]


def conf(job: Job, run: Run, settings: Settings) -> dict[str, str]:
    """Spark's settings for a run, by name. Those of the driver's own pod are read from its environment by Spark."""
    spark, namespace = _cluster(job), job.metadata.namespace
    return {
        **DEFAULTS,
        **_size(spark),
        **spark.conf,
        "spark.master": "k8s://https://kubernetes.default.svc",
        "spark.submit.deployMode": "client",
        "spark.app.name": run.driver,
        "spark.authenticate": "true",
        "spark.driver.host": f"{run.driver}.{namespace}.svc",
        "spark.driver.bindAddress": "${env:POD_IP}",
        "spark.driver.port": str(RPC_PORT),
        "spark.driver.blockManager.port": str(BLOCK_PORT),
        "spark.blockManager.port": str(BLOCK_PORT),
        "spark.ui.port": str(UI_PORT),
        "spark.kubernetes.namespace": namespace,
        "spark.kubernetes.driver.pod.name": "${env:POD_NAME}",
        "spark.kubernetes.driver.ownPersistentVolumeClaim": "false",
        "spark.kubernetes.driver.reusePersistentVolumeClaim": "false",
        "spark.kubernetes.driver.service.deleteOnTermination": "false",
        "spark.kubernetes.executor.podNamePrefix": "${env:POD_NAME}",
        "spark.kubernetes.executor.podTemplateFile": f"{CONF_FOLDER}/{TEMPLATE_FILE}",
        "spark.kubernetes.executor.podTemplateContainerName": names.CONTAINER,
        "spark.kubernetes.executor.disableConfigMap": "true",
        "spark.kubernetes.container.image": _image(job, settings),
        "spark.kubernetes.container.image.pullPolicy": _pull_policy(job),
    }


DEFAULTS = {
    "spark.sql.adaptive.enabled": "true",
    "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
    # A pod that is asked to go hands over what it holds: shuffled data are not computed again.
    "spark.decommission.enabled": "true",
    "spark.storage.decommission.enabled": "true",
    "spark.storage.decommission.shuffleBlocks.enabled": "true",
    "spark.storage.decommission.rddBlocks.enabled": "true",
    # Executors that fail again and again end the run, which says why, instead of being replaced for ever.
    "spark.executor.maxNumFailures": "10",
    "spark.executor.failuresValidityInterval": "1h",
    "spark.ui.showConsoleProgress": "false",
    # A driver only hands out work: compiling its code for speed takes longer than it saves.
    "spark.driver.defaultJavaOptions": "-XX:TieredStopAtLevel=1",
}
"""Settings that a job may change."""


def _cluster(job: Job) -> Spark:
    """The cluster that a job asks for, whose kind has one: `lifecycle` starts none for others."""
    assert isinstance(job, ForecastJob)  # noqa: S101 - see above
    return job.spec.spark


def _size(spark: Spark) -> dict[str, str]:
    """How many executors, and how big, in Spark's words."""
    executors, driver = spark.executors, spark.driver
    heap, memory = executors.heap >> 20, amount(executors.memory) >> 20
    size = {
        "spark.driver.memory": f"{driver.heap >> 20}m",
        "spark.executor.cores": str(executors.cores),
        "spark.executor.memory": f"{heap}m",
        "spark.executor.memoryOverhead": f"{memory - heap}m",
        "spark.kubernetes.executor.limit.cores": str(executors.cores),
    }
    if executors.maximum is None:
        return size | {"spark.executor.instances": str(executors.instances or EXECUTORS)}
    minimum = 1 if executors.minimum is None else executors.minimum
    return size | {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.minExecutors": str(minimum),
        "spark.dynamicAllocation.initialExecutors": str(minimum),
        "spark.dynamicAllocation.maxExecutors": str(executors.maximum),
    }


def properties(values: Mapping[str, str]) -> str:
    """Settings as a file of Java properties, sorted by name, in which nothing means more than it says."""
    lines = (f"{re.sub(_MEANING, _escape, name)}={_text(value)}" for name, value in sorted(values.items()))
    return "".join(f"{line}\n" for line in lines)


_MEANING = r"[\\\s:=#!]"
"""Characters that mean something to Java's reader of properties."""


def _escape(found: re.Match[str]) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}.get(found[0], f"\\{found[0]}")


def _text(value: str) -> str:
    return re.sub(r"^ |[\\\n\r\t\f]", _escape, value)


def _driver(job: Job, run: Run, settings: Settings, account: str) -> Manifest:
    own = manifests.telling(run)
    own["args"] = [*manifests.COMMAND, *own["args"]]
    own["ports"] = [{"name": name, "containerPort": port} for name, port in PORTS.items()]
    env = [
        {"name": "ALMANAC_ENGINE", "value": str(Engine.SPARK)},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "SPARK_CONF_DIR", "value": CONF_FOLDER},
    ]
    spec = manifests.pod_spec(job, run, account, manifests.container(job, settings.spark_image, **own, env=env))
    spec["automountServiceAccountToken"] = True
    spec["volumes"][0] = _files(run)
    labels = manifests.labels(job, run, Engine.SPARK)
    cluster = _cluster(job)
    made = manifests.template(job, labels, spec, "", "")
    return manifests.sized(made, *_resources(cluster.conf, names.DRIVER, cluster.driver))


PORTS = {"rpc": RPC_PORT, "blocks": BLOCK_PORT, "ui": UI_PORT, "metrics": manifests.PORT}
"""The driver's ports, by name."""


def _files(run: Run) -> Manifest:
    """The volume with the driver's files: the job, and a folder of Spark's."""
    items = [{"key": manifests.JOB_FILE, "path": manifests.JOB_FILE}]
    items += [{"key": name, "path": f"spark/{name}"} for name in (CONF_FILE, TEMPLATE_FILE)]
    return {"name": podtemplate.VOLUME, "configMap": {"name": run.driver, "items": items}}


def _executor(job: Job, run: Run, settings: Settings) -> Manifest:
    """The template of executors' pods. Spark gives them name, owner, image, program and size."""
    env = [{"name": "OMP_NUM_THREADS", "value": "1"}]  # tasks run side by side, one a core
    account = job.spec.service_account_name or settings.service_account
    container = manifests.container(job, settings.spark_image)
    container["env"] = podtemplate.merge({"env": container["env"]}, {"env": env})["env"]
    spec = manifests.pod_spec(job, run, account, container)
    labels = manifests.labels(job, run, Engine.SPARK, names.EXECUTOR)
    made = manifests.template(job, labels, spec, "", "")
    cluster = _cluster(job)
    sized = manifests.sized(made, *_resources(cluster.conf, names.EXECUTOR, cluster.executors))
    return {"apiVersion": "v1", "kind": "Pod"} | sized


def _resources(
    conf: Mapping[str, str], role: str, size: SparkDriver | SparkExecutors
) -> tuple[dict[str, str], dict[str, str]]:
    """What a pod of a role requests, and what it may use."""
    request, limit = (
        {"cpu": conf.get(f"spark.kubernetes.{role}.{word}.cores", str(size.cores)), "memory": size.memory}
        for word in ("request", "limit")
    )
    return request, limit


def _image(job: Job, settings: Settings) -> str:
    main = _main(job)
    return str(main.get("image") or job.spec.image or settings.spark_image)


def _pull_policy(job: Job) -> str:
    return str(_main(job).get("imagePullPolicy") or "IfNotPresent")


def _main(job: Job) -> Mapping[str, Any]:
    """What spec.podTemplate says of the container that computes."""
    containers = job.spec.pod_template.spec.get("containers") or ()
    return next((one for one in containers if one["name"] == names.CONTAINER), {})


def _service_account(job: Job, run: Run) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": manifests.metadata(job, run, Engine.SPARK),
        "automountServiceAccountToken": False,
    }


def _role(job: Job, run: Run) -> Manifest:
    return {
        "apiVersion": RBAC,
        "kind": "Role",
        "metadata": manifests.metadata(job, run, Engine.SPARK),
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": VERBS}],
    }


def _role_binding(job: Job, run: Run, account: str) -> Manifest:
    return {
        "apiVersion": RBAC,
        "kind": "RoleBinding",
        "metadata": manifests.metadata(job, run, Engine.SPARK),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": run.driver},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": job.metadata.namespace}],
    }


RBAC = "rbac.authorization.k8s.io/v1"


def _service(job: Job, run: Run) -> Manifest:
    """The driver's name for its executors, and for those who look at Spark's pages: known before it is ready."""
    selector = {names.COMPONENT: names.DRIVER, names.RUN: run.id, names.ENGINE: str(Engine.SPARK)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": manifests.metadata(job, run, Engine.SPARK),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {**selector, names.JOB_UID: job.metadata.uid or ""},
            "ports": [{"name": name, "port": port, "targetPort": name} for name, port in PORTS.items()],
        },
    }


def _json(document: Manifest) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

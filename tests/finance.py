"""A namespace of a real cluster that takes restricted pods only, an operator that watches it, and one job in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from almanac import names
from almanac.crd import RESOURCES
from almanac_jobs import __main__ as driver
from kube.cluster import Cluster
from kube.waiting import eventually
from s3 import S3Server

Raw = dict[str, Any]

ADDRESS = "ALMANAC_TEST_ADDRESS"
"""Environment variable: the address of this machine, for pods of the cluster."""
PATIENCE = 600
"""Seconds for what takes half a minute on a machine that has nothing else to do."""


def marks(image: str) -> list[pytest.MarkDecorator]:
    """Marks of tests with pods in a real cluster, of the image that the environment variable of this name says."""
    missing = [name for name in ("KUBECONFIG", image, ADDRESS) if not os.environ.get(name)]
    skip = pytest.mark.skipif(bool(missing), reason=f"there are no pods of a real cluster: set {', '.join(missing)}")
    return [skip, pytest.mark.timeout(1200)]


class Finance:
    """What there is to be seen of a job, and what happens to its pods."""

    def __init__(self, cluster: Cluster, s3: S3Server) -> None:
        self.client, self.s3 = cluster.client, s3
        self.client.namespace = cluster.make_namespace(**{"pod-security.kubernetes.io/enforce": "restricted"})
        secret = {name: s3.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        self.client.create("secrets", {"metadata": {"name": "s3"}, "stringData": secret}, version="v1")
        self.plural = self.name = ""

    def submit(self, document: Raw) -> None:
        """Create a job, whose results go to a folder of this namespace's."""
        document["metadata"]["namespace"] = self.client.namespace
        document["spec"]["output"]["uri"] = f"s3://lake/{self.client.namespace}"
        document["spec"]["storage"] = {"endpoint": self.s3.endpoint, "region": "us-east-1", "secretName": "s3"}
        self.plural, self.name = RESOURCES[document["kind"]].plural, document["metadata"]["name"]
        self.client.create(self.plural, document)

    def edit(self, **spec: Any) -> None:
        self.client.patch(self.plural, self.name, {"spec": spec})

    def delete(self) -> None:
        self.client.delete(self.plural, self.name)

    @property
    def status(self) -> Raw:
        found: Raw = self.client.get(self.plural, self.name).get("status") or {}
        return found

    @property
    def said(self) -> tuple[str, str, str]:
        """Phase, reason and message."""
        ready = [one for one in self.status.get("conditions", ()) if one["type"] == "Ready"]
        return self.status.get("phase", ""), *((ready[0]["reason"], ready[0]["message"]) if ready else ("", ""))

    def pods(self, component: str) -> list[Raw]:
        return self.client.list("pods", labels=f"{names.MANAGED_BY}=almanac,{names.COMPONENT}={component}")

    def running(self, component: str) -> Callable[[], list[Raw]]:
        return lambda: [one for one in self.pods(component) if one.get("status", {}).get("phase") == "Running"]

    def kill(self, pod: Raw) -> None:
        """Take a pod away at once, as the loss of its node does."""
        self.client.delete("pods", pod["metadata"]["name"], gracePeriodSeconds=0)

    def until(self, found: Callable[[], Any], what: str) -> Any:
        """What is found once it is there; the test fails as soon as the job has."""

        def told() -> Any:
            assert self.said[0] != "Failed", self.said
            return found()

        return eventually(told, what, PATIENCE)

    def trains(self) -> None:
        """Wait until a model is being trained. The operator asks the driver every quarter of a minute."""

        def seen() -> bool:
            assert self.said[0] != "Succeeded", "the run was over before its training was seen"
            return bool(self.status.get("stage") == "train" and self.status.get("done"))

        self.until(seen, "training to begin")

    def fails(self) -> tuple[str, str, str]:
        """What the status says once the job has failed."""
        eventually(lambda: self.said[0] == "Failed", "the job to be given up", PATIENCE)
        return self.said

    def succeeds(self) -> Raw:
        """The report of the run, once it is complete."""
        self.until(lambda: self.status.get("phase") == "Succeeded", "the job to be done")
        return report(self.s3, f"{self.client.namespace}/runs/{self.status['run']['id']}")

    def left(self, *kinds: str) -> list[Raw]:
        """What there still is of these kinds that operators have made."""
        return [one for kind in kinds for one in self.client.list(kind, labels=names.SELECTOR)]


def report(s3: S3Server, folder: str) -> Raw:
    """The report of a run."""
    body = s3.client.get_object(Bucket="lake", Key=f"{folder}/report.json")["Body"].read()
    read: Raw = json.loads(body)
    return read


def tables(report: Raw) -> dict[str, str]:
    """Checksums of a run's tables."""
    return {one["path"]: one["sha256"] for one in report["files"] if one["path"].endswith(".parquet")}


def locally(document: Raw, s3: S3Server, folder: Path, environment: Callable[[str, str], None]) -> Raw:
    """The report of a job that runs in this process. `environment` sets a variable."""
    place = f"local/{document['kind']}"
    document["spec"]["storage"] = {"endpoint": s3.endpoint, "region": "us-east-1"}
    document["spec"] |= {"output": {"uri": f"s3://lake/{place}"}, "engine": "local"}
    (folder / "job.json").write_text(json.dumps(document))
    for name, value in s3.environment.items():
        environment(name, value)
    identity = "20000101-000000-000000"
    assert driver.main([str(folder / "job.json"), "--run-id", identity, "--port", "0"]) == 0
    return report(s3, f"{place}/runs/{identity}")


@contextmanager
def operated(cluster: Cluster, settings: Mapping[str, str]) -> Iterator[None]:
    """Run an operator with these settings for the namespace of a cluster, as a process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ALMANAC_"))}
    environment = {
        **kept,
        "KUBECONFIG": str(cluster.kubeconfig),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "ALMANAC_LEASE": "",
        "ALMANAC_METRICS_PORT": "0",
        **settings,
    }
    command = [sys.executable, "-c", "from almanac.cli import main; main()", "operator"]
    with ended([*command, "--namespace", cluster.client.namespace], environment, cluster.folder / "operator.log"):
        yield


@contextmanager
def ended(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while the block lasts."""
    with log.open("w") as file:
        process = subprocess.Popen(command, env=dict(environment), stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)

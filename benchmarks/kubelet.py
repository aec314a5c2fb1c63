"""A kubelet, played by patching the status of pods, and an operator process.

For an API server with the Job controller and the garbage collector. Nodes may be there: they leave these pods alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from almanac import names
from almanac.cluster import PODS, ApiError, Cluster, Resource

Raw = dict[str, Any]

SCHEDULER = "played-by-a-benchmark"
"""Pods that ask for this scheduler, which there is not, stay off the nodes of a cluster that has some."""


def stamp() -> str:
    """Now, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(name: str, namespace: str, **spec: Any) -> Raw:
    """A small job."""
    return {
        "apiVersion": "almanac.dev/v1alpha1",
        "kind": "ForecastJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "source": {"uri": "s3://lake/sales", "columns": {"entity": "shop", "time": "day", "value": "amount"}},
            "frequency": "D",
            "horizon": 7,
            "output": {"uri": f"s3://lake/forecasts/{name}"},
            "podTemplate": {"spec": {"schedulerName": SCHEDULER}},
            **spec,
        },
    }


async def watch(
    cluster: Cluster, resource: Resource, namespace: str, selector: str = ""
) -> AsyncIterator[tuple[str, Raw]]:
    """Every object and every change of one, for ever: the type (ADDED ...) and the object."""
    async with cluster.session() as session:
        while True:
            version = ""
            async for page in cluster.list(resource, namespace, **({"labelSelector": selector} if selector else {})):
                version = page["metadata"]["resourceVersion"]
                for one in page["items"]:
                    yield "ADDED", one
            query = {"watch": "true", "resourceVersion": version, "labelSelector": selector}
            url = cluster.access.server + resource.path(namespace)
            timeout = aiohttp.ClientTimeout(total=None)
            try:
                async with session.get(url, params=query, timeout=timeout, read_bufsize=2**22) as response:
                    async for line in response.content:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        yield event["type"], event["object"]
            except (aiohttp.ClientError, ValueError):
                await asyncio.sleep(0.2)


async def run_pod(cluster: Cluster, pod: Raw) -> None:
    """Have a pod's container run."""
    state = {"running": {"startedAt": stamp()}}
    await _patch(cluster, pod, "Running", state, ready=True)


async def end_pod(cluster: Cluster, pod: Raw, code: int = 0, message: str = "") -> None:
    """Have a pod's container end."""
    ended = {
        "exitCode": code,
        "reason": "Completed" if code == 0 else "Error",
        "finishedAt": stamp(),
        "message": message,
    }
    await _patch(
        cluster,
        pod,
        "Succeeded" if code == 0 else "Failed",
        {"terminated": ended | {"finishedAt": stamp()}},
        ready=False,
    )


def report(pod: Raw) -> str:
    """The termination message of a run that is complete."""
    run = pod["metadata"]["labels"][names.RUN]
    result = {"uri": f"s3://lake/{run}", "entities": 3, "rows": 100, "scores": {"mase": 0.8}, "checksum": "sha256:0"}
    said = {"run": run, "reason": "Completed", "exitCode": 0, "message": "done", "engine": "local", "result": result}
    return json.dumps(said)


async def _patch(cluster: Cluster, pod: Raw, phase: str, state: Raw, *, ready: bool) -> None:
    container = {
        "name": names.CONTAINER,
        "image": "almanac",
        "imageID": "",
        "restartCount": 0,
        "ready": ready,
        "state": state,
    }
    status = {"phase": phase, "startTime": stamp(), "containerStatuses": [container]}
    try:
        await cluster.patch(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {"status": status}, "status")
    except ApiError as error:
        if not error.gone:
            raise


async def side_by_side(works: list[Callable[[], Awaitable[Any]]], at_once: int = 24) -> None:
    """Run many things, some at once."""
    waiting = iter(works)

    async def worker() -> None:
        for one in waiting:
            await one()

    await asyncio.gather(*(worker() for _ in range(at_once)))


class OperatorProcess:
    """An operator, as a process of its own, that watches one namespace."""

    def __init__(self, namespace: str, port: int, log: Path) -> None:
        self.namespace = namespace
        self.port = port
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        """Start it."""
        environment = {
            **os.environ,
            "ALMANAC_NAMESPACE": self.namespace,
            "ALMANAC_METRICS_PORT": str(self.port),
            **settings,
        }
        command = [sys.executable, "-c", "from almanac.cli import main; main()", "operator", "-n", self.namespace]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)

    def kill(self) -> None:
        """End it at once, wherever it is."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> float:
        """Ask it to stop; the seconds that it takes."""
        begun = time.monotonic()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
        return time.monotonic() - begun

    @property
    def resident(self) -> float:
        """Its memory in MiB; 0 while it is not there."""
        try:
            lines = Path(f"/proc/{self._process.pid if self._process else 0}/status").read_text().splitlines()
        except OSError:
            return 0.0
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)

    async def up(self) -> None:
        """Wait until it has read what there is.

        Raises:
            RuntimeError: it has ended instead.
        """
        while not await self._ready():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the operator has ended: {self._log} says why")
            await asyncio.sleep(0.05)

    async def _ready(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.port}/readyz"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def metrics(self) -> dict[str, float]:
        """Its metrics by name and labels; empty while it does not answer."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}/metrics") as response,
            ):
                lines = (await response.text()).splitlines()
        except aiohttp.ClientError:
            return {}
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

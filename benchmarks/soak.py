"""Thousands of short jobs in one go, and an operator that is stopped and killed meanwhile: python -m benchmarks.soak

Needs KUBECONFIG, as `benchmarks.operating` does. All jobs are created at once; every pod runs for a second or two and
ends well, and what a run leaves is deleted half a minute later. Each time that an eighth of the jobs has succeeded, the
operator is ended: by a signal, then by SIGKILL, and so on.

Counted are jobs that did not succeed (lost), jobs that got a second driver (twice), ends without a reason, and drivers
and ConfigMaps that are left over. Memory is that of the operator's process, looked at twice a second: its highest in
each half of the successes. The program fails if anything is counted, or if the second half needs over 10 % more than
the first. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from almanac import kubeconfig, names
from almanac.cluster import CONFIG_MAPS, DRIVERS, PODS, Cluster
from benchmarks.kubelet import OperatorProcess, end_pod, job, report, run_pod, side_by_side, watch
from benchmarks.operating import FORECASTS, NAMESPACES, until

Raw = dict[str, Any]

LIFE = 1.5
"""Seconds that a pod runs."""
PODS_AT_ONCE = 128
"""Pods that run at a time: a node would have no room for more."""
TTL = 30
"""Seconds after which a finished run's driver is deleted."""
PARTS = 8
"""The operator is ended between two of so many equal parts of the successes."""
GROWTH = 10.0
"""Percent by which the second half may need more memory than the first."""


class Soak:
    """A namespace with jobs, what becomes of them, and a kubelet that is played."""

    def __init__(self, cluster: Cluster, namespace: str, jobs: int) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._wanted = [f"job-{one:05d}" for one in range(jobs)]
        self._pods: asyncio.Queue[Raw] = asyncio.Queue()
        self.ends: dict[str, tuple[str, str]] = {}
        """Phase and reason of jobs that are over."""
        self.drivers: dict[str, set[str]] = defaultdict(set)
        """The uids of all drivers that a job ever had."""

    async def create(self) -> None:
        """All jobs, as fast as the API takes them."""
        made = [job(name, self._namespace, ttlSecondsAfterFinished=TTL) for name in self._wanted]
        await side_by_side([partial(self._cluster.post, FORECASTS, self._namespace, one) for one in made])

    async def follow_jobs(self) -> None:
        """Remember how jobs end."""
        async for _, raw in watch(self._cluster, FORECASTS, self._namespace):
            status = raw.get("status") or {}
            if status.get("phase") in ("Succeeded", "Failed"):
                (ready,) = [one for one in status["conditions"] if one["type"] == "Ready"]
                self.ends[raw["metadata"]["name"]] = (status["phase"], ready["reason"])

    async def follow_drivers(self) -> None:
        """Remember which drivers there were."""
        async for _, raw in watch(self._cluster, DRIVERS, self._namespace, names.DRIVER_SELECTOR):
            self.drivers[raw["metadata"]["labels"][names.JOB]].add(raw["metadata"]["uid"])

    async def follow_pods(self) -> None:
        """Have every pod live its life."""
        known: set[str] = set()
        async for kind, pod in watch(self._cluster, PODS, self._namespace, names.DRIVER_SELECTOR):
            if kind != "DELETED" and pod["metadata"]["uid"] not in known:
                known.add(pod["metadata"]["uid"])
                self._pods.put_nowait(pod)

    async def play(self) -> None:
        """Run pods and end them, one after the other; many of these run side by side."""
        while True:
            pod = await self._pods.get()
            await run_pod(self._cluster, pod)
            await asyncio.sleep(LIFE)
            await end_pod(self._cluster, pod, 0, report(pod))

    @property
    def succeeded(self) -> int:
        """Jobs that have succeeded."""
        return sum(phase == "Succeeded" for phase, _ in self.ends.values())

    async def left(self) -> int:
        """Drivers and ConfigMaps that are there."""
        count = 0
        for kind in (DRIVERS, CONFIG_MAPS):
            async for page in self._cluster.list(kind, self._namespace, labelSelector=names.SELECTOR):
                count += len(page["items"])
        return count

    def verdict(self) -> dict[str, int]:
        """What went wrong."""
        return {
            "lost": sum(self.ends.get(name, ("", ""))[0] != "Succeeded" for name in self._wanted),
            "twice": sum(len(uids) > 1 for uids in self.drivers.values()),
            "without_reason": sum(not reason for _, reason in self.ends.values()),
        }


class Memory:
    """The highest memory of the operator's process in each half, in MiB."""

    def __init__(self, operator: OperatorProcess, soak: Soak, jobs: int) -> None:
        self._operator, self._soak, self._jobs = operator, soak, jobs
        self.halves = [0.0, 0.0]

    async def look(self) -> None:
        """Look at it for ever."""
        while True:
            if self._soak.ends:
                half = int(self._soak.succeeded * 2 >= self._jobs)
                self.halves[half] = max(self.halves[half], self._operator.resident)
            await asyncio.sleep(0.5)

    @property
    def growth(self) -> float:
        """Percent by which the second half needed more."""
        first, second = self.halves
        return 100 * (second / first - 1)


async def soak(cluster: Cluster, namespace: str, operator: OperatorProcess, arguments: argparse.Namespace) -> Raw:
    """All figures."""
    count, begun = arguments.jobs, time.perf_counter()
    world = Soak(cluster, namespace, count)
    memory = Memory(operator, world, count)
    helpers = (world.follow_jobs, world.follow_drivers, world.follow_pods, memory.look, *[world.play] * PODS_AT_ONCE)
    tasks = [asyncio.create_task(one()) for one in helpers]
    operator.start(ALMANAC_LEASE="")
    await operator.up()
    creating = asyncio.create_task(world.create())
    for part in range(1, PARTS):
        wanted = count * part // PARTS
        await until(lambda wanted=wanted: world.succeeded >= wanted, arguments.patience, f"{wanted} jobs")  # type: ignore[misc]
        print(
            f"{world.succeeded} succeeded after {time.perf_counter() - begun:.0f} s, {operator.resident:.0f} MiB",
            flush=True,
        )
        await asyncio.to_thread(operator.stop if part % 2 else operator.kill)
        operator.start(ALMANAC_LEASE="")
        await operator.up()
    await creating
    await until(lambda: len(world.ends) == count, arguments.patience, f"{count} jobs")
    seconds = time.perf_counter() - begun
    end = time.monotonic() + arguments.patience
    while (left := await world.left()) and time.monotonic() < end:
        await asyncio.sleep(1)
    for one in tasks:
        one.cancel()
    failed = [one for one in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(one, Exception)]
    for one in failed:
        raise one
    figures = {"jobs": count, "restarts": PARTS - 1, "seconds": round(seconds), **world.verdict(), "left": left}
    first, second = (round(one) for one in memory.halves)
    return figures | {"mib_first_half": first, "mib_second_half": second, "growth_pct": round(memory.growth, 1)}


async def main(arguments: argparse.Namespace) -> int:
    """Soak in a namespace of its own, and print; the program's exit code."""
    namespace = f"soak-{os.getpid()}"
    async with Cluster(kubeconfig.find(os.environ)) as cluster:
        await cluster.post(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        operator = OperatorProcess(namespace, 8953, Path(tempfile.gettempdir()) / f"{namespace}.log")
        try:
            figures = await soak(cluster, namespace, operator, arguments)
        finally:
            operator.kill()
            await cluster.delete(NAMESPACES, None, namespace)
    print(json.dumps(figures))
    wrong = [name for name in ("lost", "twice", "without_reason", "left") if figures[name]]
    return int(bool(wrong) or figures["growth_pct"] > GROWTH)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--patience", type=float, default=600, help="seconds that an eighth of the jobs may take")
    sys.exit(asyncio.run(main(parser.parse_args())))

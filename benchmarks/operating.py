"""The operator against an API server: 1000 jobs at once, 1000 transitions, and rest: python -m benchmarks.operating

Needs KUBECONFIG: an API server with the Job controller and the CustomResourceDefinitions. The kubelet is played: nodes,
if there are some, leave these pods alone. Everything happens in a namespace of its own, deleted at the end. The server,
etcd and the controllers share this machine with the operator, and with this program.

Latency is from the answer to a job's creation to the moment that a watch shows its driver. Requests are those of the
operator, without watches and the Lease; they are its own count. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from almanac import kubeconfig, names
from almanac.cluster import DRIVERS, JOBS, PODS, Cluster, Resource
from benchmarks.kubelet import OperatorProcess, end_pod, job, report, run_pod, side_by_side, watch

Raw = dict[str, Any]

FORECASTS = JOBS["ForecastJob"]
NAMESPACES = Resource("", "v1", "namespaces", "Namespace")


class Seen:
    """What the watches of this program show, and when it came."""

    def __init__(self) -> None:
        self.phases: dict[str, str] = {}
        self.drivers: dict[str, float] = {}
        self.pods: dict[str, Raw] = {}
        self.completed: dict[str, float] = {}
        self.succeeded: dict[str, float] = {}

    async def follow(self, cluster: Cluster, resource: Resource, namespace: str) -> None:
        """Watch one kind."""
        selector = "" if resource is FORECASTS else names.DRIVER_SELECTOR
        async for _, raw in watch(cluster, resource, namespace, selector):
            metadata = raw["metadata"]
            if resource is FORECASTS:
                phase = self.phases[metadata["name"]] = (raw.get("status") or {}).get("phase", "")
                if phase == "Succeeded":
                    self.succeeded.setdefault(metadata["name"], time.perf_counter())
            elif resource is DRIVERS:
                self.drivers.setdefault(metadata["labels"][names.JOB], time.perf_counter())
                if any(one["type"] == "Complete" for one in raw["status"].get("conditions") or ()):
                    self.completed.setdefault(metadata["labels"][names.JOB], time.perf_counter())
            else:
                self.pods[metadata["labels"][names.JOB]] = raw

    def count(self, phase: str) -> int:
        """Jobs in a phase."""
        return sum(one == phase for one in self.phases.values())


async def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for something; the seconds that it took."""
    begun = time.perf_counter()
    while not condition():
        if time.perf_counter() - begun > seconds:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        await asyncio.sleep(0.02)
    return time.perf_counter() - begun


async def apply(cluster: Cluster, namespace: str, prefix: str, count: int, seen: Seen) -> tuple[float, list[float]]:
    """Create jobs all at once; seconds until all have a driver, and the latency of each, sorted."""
    created: dict[str, float] = {}

    async def create(name: str) -> None:
        await cluster.post(FORECASTS, namespace, job(name, namespace))
        created[name] = time.perf_counter()

    begun = time.perf_counter()
    wanted = [f"{prefix}{one:04d}" for one in range(count)]
    await side_by_side([partial(create, name) for name in wanted])
    await until(lambda: all(name in seen.drivers for name in wanted), 300, f"drivers of {count} jobs")
    last = max(seen.drivers[name] for name in wanted)
    return last - begun, sorted(max(0.0, seen.drivers[name] - created[name]) for name in wanted)


def percentile(values: list[float], part: float) -> float:
    """A percentile of sorted values."""
    return values[min(len(values) - 1, int(part * len(values)))]


def calls(metrics: dict[str, float]) -> float:
    """Requests so far, without watches and without what the Lease takes (updates, and the looks of a standby)."""
    wanted = ("create", "patch", "get", "delete")
    return sum(
        value
        for name, value in metrics.items()
        for verb in wanted
        if 'requests_total{code="' in name and f'verb="{verb}"' in name
    )


async def crowd(cluster: Cluster, namespace: str, drivers: list[Raw], each: int) -> None:
    """More pods for drivers that are over, as if each had needed several attempts."""

    async def create(driver: Raw, number: int) -> None:
        metadata = driver["metadata"]
        name = f"{metadata['name']}-x{number}"
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
        }
        template = driver["spec"]["template"]
        labels = {
            key: value for key, value in template["metadata"]["labels"].items() if "almanac" in key or "app." in key
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": labels,
                "ownerReferences": [owner | {"controller": True}],
            },
            "spec": template["spec"],
        }
        await cluster.post(PODS, namespace, pod)

    await side_by_side([partial(create, driver, number) for driver in drivers for number in range(each)])


async def measure(cluster: Cluster, namespace: str, operator: OperatorProcess, arguments: argparse.Namespace) -> Raw:
    """All figures."""
    seen, count = Seen(), arguments.jobs
    followers = [asyncio.create_task(seen.follow(cluster, one, namespace)) for one in (FORECASTS, DRIVERS, PODS)]
    operator.start()
    await operator.up()
    await asyncio.sleep(2)
    start = await operator.metrics()
    print(f"an operator that has nothing to do: {start['process_resident_memory_bytes'] / 2**20:.0f} MiB")
    _, some = await apply(cluster, namespace, "few", 100, seen)
    print(f"100 jobs at once: p50 {percentile(some, 0.5):.2f} s, p99 {percentile(some, 0.99):.2f} s to a job's driver")
    await asyncio.sleep(3)
    before = await operator.metrics()
    seconds, many = await apply(cluster, namespace, "many", count, seen)
    after = await operator.metrics()
    processor = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    print(
        f"{count} jobs at once: {seconds:.1f} s to all drivers, {count / seconds:.0f} jobs/s, p50 "
        f"{percentile(many, 0.5):.2f} s, p99 {percentile(many, 0.99):.2f} s; {processor:.1f} s of CPU, "
        f"{after['process_resident_memory_bytes'] / 2**20:.0f} MiB"
    )
    total = count + 100
    await until(lambda: len(seen.pods) == total, 300, "pods of all drivers")
    pods = list(seen.pods.values())
    begun = time.perf_counter()
    await side_by_side([partial(run_pod, cluster, pod) for pod in pods])
    await until(lambda: seen.count("Running") == total, 300, "all jobs Running")
    print(f"{total} pods begin to run: {time.perf_counter() - begun:.1f} s to all statuses")
    begun = time.perf_counter()
    await side_by_side([partial(end_pod, cluster, pod, 0, report(pod)) for pod in pods])
    await until(lambda: seen.count("Succeeded") == total, 300, "all jobs Succeeded")
    lags = sorted(
        max(0.0, end - seen.completed[name]) for name, end in seen.succeeded.items() if name in seen.completed
    )
    print(
        f"{total} pods end: {time.perf_counter() - begun:.1f} s to all statuses, at the pace of the Job controller; "
        f"from a driver's end to its job's: p50 {percentile(lags, 0.5):.2f} s, p99 {percentile(lags, 0.99):.2f} s"
    )
    await asyncio.sleep(5)
    end = await operator.metrics()
    requests = (calls(end) - calls(start)) / total
    print(f"requests: {requests:.2f} a job from creation to success, events included")
    drivers = [raw async for page in cluster.list(DRIVERS, namespace) for raw in page["items"]][:count]
    await crowd(cluster, namespace, drivers, arguments.pods)
    await asyncio.sleep(10)
    rest = await operator.metrics()
    await asyncio.sleep(arguments.rest)
    rested = await operator.metrics()
    idle = (calls(rested) - calls(rest)) * 60 / arguments.rest
    busy = (rested["process_cpu_seconds_total"] - rest["process_cpu_seconds_total"]) / arguments.rest
    resident = rested["process_resident_memory_bytes"] / 2**20
    jobs, remembered = (int(rested[f'almanac_objects{{kind="{kind}"}}']) for kind in ("ForecastJob", "Pod"))
    print(
        f"at rest with {jobs} jobs and {remembered} pods: {resident:.0f} MiB, "
        f"{idle:.1f} requests/min, {busy:.2%} of a core"
    )
    print(f"CPU in all: {rested['process_cpu_seconds_total']:.1f} s; graceful stop: {operator.stop():.1f} s")
    operator.start()
    begun = time.perf_counter()
    await operator.up()
    await asyncio.sleep(10)
    again = await operator.metrics()
    resident_again = again["process_resident_memory_bytes"] / 2**20
    spent = again["process_cpu_seconds_total"]
    print(f"started anew beside them: {resident_again:.0f} MiB, {calls(again):.0f} requests, {spent:.1f} s of CPU")
    for one in followers:
        one.cancel()
    return {
        "jobs_per_s": round(count / seconds, 1),
        "p99_s_100": round(percentile(some, 0.99), 2),
        "rss_mib_1000": round(max(resident, resident_again)),
        "requests_per_job": round(requests, 2),
        "idle_requests_per_min": round(idle, 2),
    }


async def main(arguments: argparse.Namespace) -> None:
    """Measure in a namespace of its own, and print."""
    namespace = f"bench-{os.getpid()}"
    log = Path(tempfile.gettempdir()) / f"{namespace}.log"
    async with Cluster(kubeconfig.find(os.environ)) as cluster:
        await cluster.post(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        operator = OperatorProcess(namespace, 8951, log)
        try:
            figures = await measure(cluster, namespace, operator, arguments)
        finally:
            operator.kill()
            await cluster.delete(NAMESPACES, None, namespace)
    print(json.dumps(figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=4, help="more pods for each driver that is over")
    parser.add_argument("--rest", type=float, default=60, help="seconds to watch the operator do nothing")
    asyncio.run(main(parser.parse_args()))

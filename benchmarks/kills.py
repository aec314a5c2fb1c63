"""An operator that is killed again and again while jobs live their lives: python -m benchmarks.kills

Needs KUBECONFIG, as `benchmarks.operating` does. Jobs are created, run, end, fail, are edited, restarted, suspended,
resumed and deleted, at random; meanwhile the operator is killed (SIGKILL) at random moments and started again. At last
every job is left to finish. Counted are: runs that got a second driver (double), jobs with two active runs at once
(overlaps), objects whose job is gone (orphans), ConfigMaps that outlive their driver (leftovers), and jobs that do not
end with the run that their spec asks for (stuck, lost runs among them). The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from almanac import kubeconfig, names
from almanac.api import ForecastJob
from almanac.cluster import CONFIG_MAPS, DRIVERS, JOBS, PODS, ApiError, Cluster, Resource
from benchmarks.kubelet import OperatorProcess, end_pod, job, report, run_pod, watch

Raw = dict[str, Any]

FORECASTS = JOBS["ForecastJob"]
NAMESPACES = Resource("", "v1", "namespaces", "Namespace")


class World:
    """A namespace with jobs, users who change their minds, and a kubelet."""

    def __init__(self, cluster: Cluster, namespace: str, jobs: int, chance: random.Random) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._chance = chance
        self._wanted = [f"job-{one:02d}" for one in range(jobs)]
        self._deleted = 0
        self.done: Counter[str] = Counter()
        self.drivers: dict[str, tuple[str, str, float, float]] = {}
        """Of each driver's uid: job uid, run, seen first, gone or over."""
        self.quiet = False

    async def create(self) -> None:
        """All jobs."""
        for name in self._wanted:
            await self._cluster.post(FORECASTS, self._namespace, job(name, self._namespace))

    async def play_users(self) -> None:
        """Somebody changes something about a job, several times a second."""
        while not self.quiet:
            name = self._chance.choice(self._wanted)
            change = self._chance.choice(("edit", "restart", "suspend", "resume", "delete", "edit", "restart"))
            try:
                await self._change(name, change)
                self.done[change] += 1
            except ApiError as error:
                if error.code not in (404, 409):
                    raise
            await asyncio.sleep(self._chance.uniform(0.05, 0.4))

    async def _change(self, name: str, change: str) -> None:
        if change == "delete":
            await self._cluster.delete(FORECASTS, self._namespace, name)
            self._deleted += 1
            await asyncio.sleep(0.05)
            await self._cluster.post(FORECASTS, self._namespace, job(name, self._namespace))
            return
        spec: Raw = {
            "edit": {"horizon": self._chance.randint(1, 400)},
            "restart": {"restartNonce": self._chance.randint(1, 10**6)},
            "suspend": {"suspend": True},
            "resume": {"suspend": False},
        }[change]
        await self._cluster.patch(FORECASTS, self._namespace, name, {"spec": spec})

    async def settle(self) -> None:
        """Users leave; nothing is suspended any more."""
        self.quiet = True
        for name in self._wanted:
            await self._cluster.patch(FORECASTS, self._namespace, name, {"spec": {"suspend": False}})

    async def play_kubelet(self) -> None:
        """Every pod runs after a while, and ends after another."""
        played: set[str] = set()
        tasks: set[asyncio.Task[None]] = set()
        async for kind, pod in watch(self._cluster, PODS, self._namespace, names.DRIVER_SELECTOR):
            if kind != "DELETED" and pod["metadata"]["uid"] not in played:
                played.add(pod["metadata"]["uid"])
                task = asyncio.create_task(self._live(pod))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _live(self, pod: Raw) -> None:
        await asyncio.sleep(self._chance.uniform(0.1, 2))
        await run_pod(self._cluster, pod)
        await asyncio.sleep(self._chance.uniform(0.1, 3))
        if self._chance.random() < 0.15 and not self.quiet:
            await end_pod(self._cluster, pod, self._chance.choice((65, 77)), "the source is not what it was")
        else:
            await end_pod(self._cluster, pod, 0, report(pod))

    async def watch_drivers(self) -> None:
        """Remember which driver lived when."""
        async for kind, raw in watch(self._cluster, DRIVERS, self._namespace, names.DRIVER_SELECTOR):
            metadata, now = raw["metadata"], time.monotonic()
            labels = metadata["labels"]
            over = kind == "DELETED" or "deletionTimestamp" in metadata or raw["status"].get("conditions")
            _, _, first, end = self.drivers.get(metadata["uid"], ("", "", now, float("inf")))
            run = (labels[names.JOB_UID], labels[names.RUN], first, min(end, now) if over else float("inf"))
            self.drivers[metadata["uid"]] = run

    async def _all(self, resource: Resource, **query: str) -> list[Raw]:
        return [one async for page in self._cluster.list(resource, self._namespace, **query) for one in page["items"]]

    async def unfinished(self) -> list[str]:
        """Jobs that are not where their spec leads."""
        found = {one["metadata"]["name"]: one for one in await self._all(FORECASTS)}
        missing = [name for name in self._wanted if name not in found]
        return missing + [name for name, one in found.items() if not _settled(one)]

    async def verdict(self) -> dict[str, int]:
        """What went wrong."""
        stuck = await self.unfinished()
        uids = {one["metadata"]["uid"] for one in await self._all(FORECASTS)}
        drivers, config_maps = [
            [one["metadata"] for one in await self._all(kind, labelSelector=names.SELECTOR)]
            for kind in (DRIVERS, CONFIG_MAPS)
        ]
        orphans = [one for one in (*drivers, *config_maps) if one["labels"][names.JOB_UID] not in uids]
        leftovers = {one["name"] for one in config_maps} - {one["name"] for one in drivers}
        return {
            "runs": len({one[:2] for one in self.drivers.values()}),
            "stuck": len(stuck),
            "orphans": len(orphans),
            "leftovers": len(leftovers),
        } | (self._doubles())

    def _doubles(self) -> dict[str, int]:
        """Runs that computed twice, and jobs two of whose runs were active at once."""
        runs: dict[tuple[str, str], int] = Counter(one[:2] for one in self.drivers.values())
        jobs: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for uid, _, first, end in self.drivers.values():
            jobs[uid].append((first, end))
        overlaps = 0
        for spans in jobs.values():
            spans.sort()
            overlaps += sum(later[0] < earlier[1] - 0.5 for earlier, later in pairwise(spans))
        return {"double": sum(count > 1 for count in runs.values()), "overlaps": overlaps}


def _settled(raw: Raw) -> bool:
    """Whether a job's last run is over, and is the one that its spec calls for."""
    status = raw.get("status") or {}
    run = status.get("run") or {}
    spec = ForecastJob.parse({name: value for name, value in raw.items() if name != "status"}).spec
    return (
        status.get("phase") in ("Succeeded", "Failed")
        and status.get("observedGeneration") == raw["metadata"]["generation"]
        and run.get("specHash") == spec.hash
        and run.get("restartNonce") == spec.restart_nonce
        and bool(run.get("endTime"))
    )


async def main(arguments: argparse.Namespace) -> None:
    """Kill, and count."""
    chance = random.Random(arguments.seed)  # noqa: S311 - a game
    namespace = f"kills-{os.getpid()}"
    async with Cluster(kubeconfig.find(os.environ)) as cluster:
        await cluster.post(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        world = World(cluster, namespace, arguments.jobs, chance)
        operator = OperatorProcess(namespace, 8952, Path(tempfile.gettempdir()) / f"{namespace}.log")
        tasks = [asyncio.create_task(one()) for one in (world.play_kubelet, world.watch_drivers)]
        try:
            await world.create()
            tasks.append(asyncio.create_task(world.play_users()))
            for number in range(arguments.kills):
                operator.start(ALMANAC_LEASE="")
                if chance.random() < 0.9:  # the others die as they start
                    await operator.up()
                await asyncio.sleep(chance.uniform(0, arguments.life))
                await asyncio.to_thread(operator.kill)
                if number % 10 == 9:
                    print(f"{number + 1} kills, {len(world.drivers)} drivers, {dict(world.done)}", flush=True)
            await world.settle()
            operator.start(ALMANAC_LEASE="")
            end = time.monotonic() + arguments.patience
            while await world.unfinished() and time.monotonic() < end:
                await asyncio.sleep(1)
            await asyncio.sleep(5)
            for name in await world.unfinished():
                print("stuck:", name, json.dumps((await cluster.get(FORECASTS, namespace, name)).get("status")))
            figures = {"kills": arguments.kills} | await world.verdict()
        finally:
            operator.kill()
            for task in tasks:
                task.cancel()
            failed = [one for one in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(one, Exception)]
            await cluster.delete(NAMESPACES, None, namespace)
    for one in failed:
        raise one
    print(json.dumps(figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--life", type=float, default=4, help="seconds that an operator lives at most, once it is up")
    parser.add_argument("--patience", type=float, default=180, help="seconds that jobs get to settle in the end")
    parser.add_argument("--seed", type=int, default=20261121)
    asyncio.run(main(parser.parse_args()))

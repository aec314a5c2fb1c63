"""The operator's process, and everything that people may send to the API: it lives on, and each job has a status.

`pytest tests/api/test_hostile.py --manifests 2000` sends more of them; with KUBECONFIG, to a real API server too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

import pytest

from almanac import troubles
from almanac.api import JobError, Phase
from almanac.conditions import TYPES
from almanac.resource import read_job
from hostile import STATUSES, manifests, wire
from kube.client import MERGE
from kube.cluster import Cluster
from kube.waiting import eventually

Raw = dict[str, Any]

SEED = 20261121
PATIENCE = 300.0
"""Seconds in which every job must have a status."""


class Process:
    """An operator that watches one namespace, as a process of its own."""

    def __init__(self, api: Cluster) -> None:
        self._log = api.folder / "operator.log"
        settings = {"KUBECONFIG": str(api.kubeconfig), "ALMANAC_LEASE": "", "ALMANAC_METRICS_PORT": "0"}
        command = [sys.executable, "-c", "from almanac.cli import main; main()", "operator", "-n", api.namespace]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    @property
    def faults(self) -> list[str]:
        """What it logged that nobody foresaw: what is no log line, errors, and events that the API did not take."""
        return [line for line in self._log.read_text().splitlines() if _unforeseen(line)]


def _unforeseen(line: str) -> bool:
    if not line.startswith("{"):
        return True
    said = json.loads(line)
    ours = said["logger"].startswith("almanac.") and said["level"] not in ("info", "warning")  # kopf's are told again
    return ours or "exception" in said or said["message"].startswith("event ")


@pytest.fixture
def operator(cluster: Cluster) -> Iterator[Process]:
    process = Process(cluster)
    yield process
    process.stop()


def jobs(api: Cluster) -> Iterator[Raw]:
    """Every job there is."""
    query: Raw = {"limit": 50}
    while True:
        page = api.client.request("GET", api.client.path("forecastjobs"), **query).json()
        yield from page["items"]
        if not page["metadata"].get("continue"):
            return
        query["continue"] = page["metadata"]["continue"]


def full(api: Cluster) -> set[str]:
    """Jobs that leave no room for a status, as an event says."""
    return {one["involvedObject"]["name"] for one in api.client.list("events") if one["reason"] == "TooLarge"}


def unsaid(api: Cluster) -> set[str]:
    """Jobs whose status does not speak of them as they are."""
    told = ((one["metadata"], one.get("status") or {}) for one in jobs(api))
    silent = {job["name"] for job, status in told if status.get("observedGeneration") != job["generation"]}
    return silent - full(api) if silent else silent


@pytest.mark.timeout(1800)
def test_every_job_that_the_api_takes_has_a_status(
    cluster: Cluster, operator: Process, request: pytest.FixtureRequest
) -> None:
    count, chance = request.config.getoption("--manifests"), Random(SEED)  # noqa: S311 - a game
    path = cluster.client.path("forecastjobs")
    limits: Raw = {} if cluster.real else {"deepest": 300, "largest": 300_000}
    taken = []
    for manifest in islice(manifests(SEED, **limits), count):
        reply = cluster.client.request("POST", path, wire(manifest), fieldValidation="Ignore")
        if reply.status_code == 201:
            taken.append(manifest["metadata"]["name"])
        else:
            assert reply.json()["status"] == "Failure"
    assert count * 0.2 < len(taken) < count * 0.9
    eventually(lambda: not unsaid(cluster), "a status of every job", PATIENCE)
    check(cluster, taken)

    others = islice(manifests(SEED + 1, **limits), count // 10)
    for name, manifest in zip(chance.sample(taken, len(taken) // 5), others, strict=False):
        if isinstance(manifest, dict):
            cluster.client.request(
                "PATCH", f"{path}/{name}", wire({"spec": manifest.get("spec")}), MERGE, fieldValidation="Ignore"
            )
        body = wire({"status": chance.choice(STATUSES)})
        cluster.client.request("PATCH", f"{path}/{name}/status", body, MERGE, fieldValidation="Ignore")
    eventually(lambda: not unsaid(cluster), "a status of every job that was changed", PATIENCE)
    assert operator.lives
    operator.stop()
    assert operator.faults == []


def check(api: Cluster, taken: list[str]) -> None:
    """Each job says where it stands, and what is wrong with it if something is."""
    found = {one["metadata"]["name"]: one for one in jobs(api)}
    assert set(found) == set(taken)
    for name in found.keys() - full(api):
        job = found[name]
        status = job["status"]
        assert [one["type"] for one in status["conditions"]] == list(TYPES), name
        assert status["phase"] in set(Phase), name
        (ready,) = [one for one in status["conditions"] if one["type"] == "Ready"]
        read = read_job(job)
        if isinstance(read, JobError):
            told = (status["phase"], ready["reason"], ready["message"])
            assert told == (Phase.FAILED, "InvalidSpec", troubles.plain(read.message, 8192)), name

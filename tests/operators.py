"""The operator's whole process but for its command line, in a thread of the tests, and a job that it looks after."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Self

import requests

import raw
from almanac import names, process
from almanac.api import Phase
from almanac.crd import RESOURCES
from almanac.kubeconfig import Access, Token
from almanac.settings import Settings
from kube.client import Client
from kube.cluster import SCHEDULER, Cluster
from kube.kubelet import Kubelet
from kube.real import free_port
from kube.waiting import eventually
from manifests import document
from matrix import Moment

Raw = dict[str, Any]

LIFE = ("Submitted", "Running", "Suspended", "Resumed", "Running", "Completed")
"""Events of a life."""


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose time can pass faster than that of the machine, and whose connections can break all at once."""

    def __init__(self) -> None:
        self._pace = 1.0
        self._since = (time.monotonic(), time.monotonic())
        """The machine's time and its own when the pace changed last."""
        self._alone = False
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                return super().select(timeout and timeout / loop._pace)

        super().__init__(Selector())

    def time(self) -> float:
        theirs, own = self._since
        return own + (time.monotonic() - theirs) * self._pace

    def hurry(self, pace: float) -> None:
        """Have its time pass so many times as fast, from another thread."""

        def change() -> None:
            self._since, self._pace = (time.monotonic(), self.time()), pace

        self.call_soon_threadsafe(change)

    def cut_off(self) -> None:
        """Break every connection, and let none come about any more. The loop must have stopped."""
        self._alone = True
        for transport in list(self._transports.values()):  # type: ignore[attr-defined]
            with suppress(OSError):
                transport.get_extra_info("socket")._sock.shutdown(socket.SHUT_RDWR)
            transport.abort()

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        if self._alone:
            raise ConnectionRefusedError
        await super().sock_connect(sock, address)


class Pages:
    """What an operator says of itself at a port of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, page: str) -> requests.Response | None:
        """What it answers at a path, `healthz`, `readyz` or `metrics`; None where it does not."""
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/{page}", timeout=5)
        except requests.ConnectionError:
            return None

    @property
    def ready(self) -> bool:
        reply = self.get("readyz")
        return reply is not None and reply.ok

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name and labels, as they are told."""
        reply = self.get("metrics")
        assert reply is not None
        lines = [line.rpartition(" ") for line in reply.text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    @property
    def leads(self) -> bool:
        """Whether it is elected, or needs no election."""
        return self.metrics["almanac_leader"] == 1

    @property
    def looks(self) -> float:
        """How often it has looked at a ForecastJob."""
        return self.metrics['almanac_reconcile_duration_seconds_count{kind="ForecastJob"}']


class Operator(Pages):
    """Watches, store, queue, election, health and metrics of an operator for one namespace.

    It has no lease unless `settings` say so, and runs while the `with` block lasts: `process.run` with a task that is
    cancelled, as a signal would.
    """

    def __init__(self, cluster: Cluster, token: str = "", **settings: Any) -> None:
        read = Token(lambda: (token, float("inf"))) if token else None
        self._access = Access(cluster.url, cluster.namespace, token=read)
        given = Settings(image="almanac:test", namespaces=(cluster.namespace,), namespace=cluster.namespace, lease="")
        super().__init__(free_port())
        self._settings = replace(given, metrics_port=self.port, **settings)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._loop = _Loop()
        self._task = self._loop.create_task(process.run(self._access, self._settings))
        self._thread = threading.Thread(target=self._run, name="operator", daemon=True)
        self._thread.start()
        eventually(lambda: self.get("metrics") is not None, "the operator to answer")

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(60)
            assert not self._thread.is_alive(), "the operator does not stop"
            self._thread = None
            self._loop.close()
            if not self._task.cancelled():
                self._task.result()

    def die(self) -> None:
        """End as a process does that is killed: between two steps, with its connections, and with nothing tidied up.

        Nobody hears how the rest of it ends: it is cut off by then.
        """
        assert self._thread is not None
        self._loop.set_exception_handler(lambda *_: None)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._thread = None
        self._loop.cut_off()
        self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            self._loop.run_until_complete(self._task)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    @contextmanager
    def hurried(self, seconds: float, pace: float = 60) -> Iterator[Callable[[], None]]:
        """All that it waits for comes so many times as fast; gives what waits until so many of its seconds are over."""
        end = self._loop.time() + seconds
        self._loop.hurry(pace)
        try:
            yield lambda: eventually(lambda: self._loop.time() > end, "its time to pass", seconds)
        finally:
            self._loop.hurry(1)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It stands still, as a process that got SIGSTOP or a machine that is asleep, and goes on after the block."""
        still, on = threading.Event(), threading.Event()

        def stand() -> None:
            still.set()
            on.wait()

        self._loop.call_soon_threadsafe(stand)
        assert still.wait(60)
        try:
            yield
        finally:
            on.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        with suppress(RuntimeError):  # it has died
            self._loop.run_until_complete(asyncio.wait([self._task]))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())


MOMENTS = (Moment.BEFORE, Moment.WHILE, Moment.PUBLISHING, Moment.AFTER)
"""Moments in a job's life that its operator has a part in: what a driver reads and writes is not its own."""


class Ledger:
    """A job, `ledger` or `entries`: what its user does, what becomes of its pods, and what is there to be seen of it.

    Its pods are left alone by the nodes of a real cluster.
    """

    def __init__(self, cluster: Cluster, make: Callable[..., Raw] = document) -> None:
        """`make` gives the document of a job of any kind, from fields of its spec."""
        self._cluster = cluster
        self._make = make
        self._name = make()["metadata"]["name"]
        self._plural = RESOURCES[make()["kind"]].plural

    # What a user does

    def submit(self, **spec: Any) -> None:
        made = self._make(**spec)
        made["spec"].setdefault("podTemplate", {}).setdefault("spec", {})["schedulerName"] = SCHEDULER
        self._cluster.client.create(self._plural, made)

    def edit(self, **spec: Any) -> None:
        self._cluster.client.patch(self._plural, self._name, {"spec": spec})

    def delete(self) -> None:
        self._cluster.client.delete(self._plural, self._name)

    # What becomes of its pods

    @property
    def driver(self) -> Raw:
        """The driver that is not over, once there is one."""

        def active() -> list[Raw]:
            return [one for one in self.drivers if not ended(one) and "deletionTimestamp" not in one["metadata"]]

        (only,) = eventually(active, "a driver")
        return only

    def pod(self, but: tuple[str, ...] = ()) -> str:
        """The name of the driver's pod, once there is one."""
        return self._cluster.kubelet.pod_of(self.driver["metadata"]["name"], but)

    def run(self, ip: str = "10.0.0.1") -> str:
        """Let its pod run, and have that in the status; the pod's name."""
        pod = self.pod()
        self._cluster.kubelet.run(pod, ip)
        self.until(Phase.RUNNING, "Running")
        return pod

    def succeed(self) -> None:
        """Let its pod end well."""
        self._cluster.kubelet.exit(self.pod(), 0, raw.success(self.status["run"]["id"]))

    def live(self, before: Mapping[Moment, Callable[[], object]] = MappingProxyType({})) -> None:
        """A life with every kind of write: submitted, run, suspended and resumed, successful, and nothing left of it.

        `before` is called at `MOMENTS` of it, each time just before the operator gets something to do.
        """
        assert before.keys() <= set(MOMENTS)

        def now(moment: Moment) -> None:
            before.get(moment, lambda: None)()

        now(Moment.BEFORE)
        self.submit()
        self._cluster.kubelet.waiting(self.pod())
        self.run()
        now(Moment.WHILE)
        self.edit(suspend=True)
        self.until(Phase.SUSPENDED, "Suspended")
        self._cluster.wait(lambda: not self._cluster.client.list("pods"), "the pod to go")
        self.edit(suspend=False)
        self.until(Phase.PENDING, "Resumed")
        self.run()
        now(Moment.PUBLISHING)
        self.succeed()
        self.until(Phase.SUCCEEDED, "Completed")
        now(Moment.AFTER)
        self.edit(ttlSecondsAfterFinished=0)
        self._cluster.wait(lambda: not self.drivers and not self.config_maps, "what the run has left to go")

    def has_lived(self) -> None:
        """All of that has happened, and was told, once."""
        self.has_ended()
        self.until_events(*LIFE)

    def has_ended(self) -> None:
        """One run with one driver has ended well."""
        status = self.status
        assert (status["run"]["number"], status["run"]["attempts"]) == (1, 1)
        assert [one["reason"] for one in status["history"]] == ["Completed"]
        assert status["result"]["entities"] == 5

    # What is there to be seen

    @property
    def document(self) -> Raw:
        return self._cluster.client.get(self._plural, self._name)

    @property
    def status(self) -> Raw:
        status: Raw = self.document.get("status", {})
        return status

    @property
    def told(self) -> tuple[str, str, str]:
        """Phase, reason and message of the status, if it is of the spec that is there."""
        job = self.document
        status = job.get("status", {})
        if status.get("observedGeneration") != job["metadata"]["generation"]:
            return "", "", ""
        (ready,) = [one for one in status["conditions"] if one["type"] == "Ready"]
        return status["phase"], ready["reason"], ready["message"]

    def until(self, phase: Phase, reason: str) -> str:
        """Wait until the status says so; the message that it has then."""
        try:
            return eventually(lambda: self.told if self.told[:2] == (phase, reason) else None, "this")[2]  # type: ignore[index]
        except AssertionError as late:
            raise AssertionError(f"the status says {self.told} and not {(phase, reason)}") from late

    @property
    def drivers(self) -> list[Raw]:
        return self._cluster.client.list("jobs", labels=f"{names.DRIVER_SELECTOR},{names.JOB}={self._name}")

    @property
    def config_maps(self) -> list[Raw]:
        """ConfigMaps that an operator has made for it."""
        return self._cluster.client.list("configmaps", labels=f"{names.SELECTOR},{names.JOB}={self._name}")

    @property
    def numbers(self) -> list[str]:
        """Numbers of the runs whose drivers are there."""
        return sorted(one["metadata"]["labels"][names.RUN_NUMBER] for one in self.drivers)

    @property
    def events(self) -> list[str]:
        """Reasons of the events about the job, in the order that they happened."""
        found = self._cluster.client.list("events", fields=f"involvedObject.uid={self.document['metadata']['uid']}")
        return [one["reason"] for one in sorted(found, key=lambda one: str(one["eventTime"]))]

    def until_events(self, *reasons: str) -> None:
        """Wait until these events are there; none of them twice, and no others."""
        try:
            eventually(lambda: len(self.events) >= len(reasons), "events")
        finally:
            found = self.events
            assert found == list(reasons), f"the events are {found}"


def play(client: Client, kubelet: Kubelet, pod: Raw, *, runs: bool = True) -> str:
    """Create a pod that others than the operator make, as `raw` has it, and let it run; its name."""
    made = deepcopy(pod)
    del made["status"], made["metadata"]["uid"], made["metadata"]["creationTimestamp"]
    made["spec"]["schedulerName"] = SCHEDULER
    for container in made["spec"]["containers"]:
        container.setdefault("image", "almanac:test")
    name: str = client.create("pods", made)["metadata"]["name"]
    if runs:
        kubelet.run(name)
    return name


def ended(driver: Raw) -> bool:
    """Whether a driver is over."""
    conditions = driver.get("status", {}).get("conditions") or ()
    return any(one["type"] in ("Complete", "Failed") and one["status"] == "True" for one in conditions)

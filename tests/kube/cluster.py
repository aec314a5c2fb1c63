"""A cluster for a test: embedded, or a real API server behind the same front. See the fixture `cluster`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest
import yaml

from kube.client import Client, Document
from kube.controllers import Controllers
from kube.kubelet import Kubelet
from kube.refusals import Refusal
from kube.rest import Embedded
from kube.server import Server
from kube.waiting import eventually

T = TypeVar("T")
DEFINITIONS = Path(__file__).parents[2] / "crds"
MADE_BY_TESTS = {"almanac.dev/made-by": "tests"}
"""Labels of CustomResourceDefinitions that a real cluster does not keep."""
SCHEDULER = "played-by-a-test"
"""A pod with this `schedulerName` is left alone by the nodes of a real cluster: tests play its kubelet."""


@dataclass
class Cluster:
    """One API, one namespace of it, and a kubelet to play.

    `server` is where things are made to go wrong: `fault`, `drop_watches`, `compact`, `muted`, `away`.
    """

    server: Server
    client: Client
    folder: Path
    real: bool = False
    has_controllers: bool = True
    keeper: Callable[[], Callable[[bool], None]] | None = None
    """Makes a backup of a real cluster that is this test's own: see `ControlPlane.back_up`."""
    _namespaces: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.client.namespace

    @property
    def url(self) -> str:
        return self.server.url

    @cached_property
    def kubelet(self) -> Kubelet:
        self.needs_controllers()
        return Kubelet(self.client, self.server.logs)

    @cached_property
    def kubeconfig(self) -> Path:
        """A kubeconfig file for programs under test, with this namespace as their own."""
        return self.write_kubeconfig()

    def write_kubeconfig(self, token: str = "") -> Path:
        context = {"cluster": "test", "user": "test", "namespace": self.namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "test", "context": context}],
        }
        path = self.folder / f"kubeconfig-{uuid4().hex[:6]}"
        path.write_text(yaml.safe_dump(config))
        return path

    def begin(self) -> None:
        """Serve the project's kinds, and work in a fresh namespace."""
        for one in own_definitions():
            self.define(one)
        self.client.namespace = self.make_namespace()

    def define(self, definition: Document) -> None:
        """Make the API serve a CustomResourceDefinition, and the client know it."""
        name, spec = definition["metadata"]["name"], definition["spec"]
        self.client.apply("customresourcedefinitions", definition, force=True)

        def established() -> bool:
            told = self.client.get("customresourcedefinitions", name)["status"].get("conditions") or []
            return any(one["type"] == "Established" and one["status"] == "True" for one in told)

        eventually(established, f"{name} to be established")
        self.client.know(spec["names"]["plural"], f"{spec['group']}/{spec['versions'][0]['name']}")
        plural = spec["names"]["plural"]
        eventually(lambda: self.client.request("GET", self.client.path(plural)).ok, f"{name} to be served")

    def make_namespace(self, **labels: str) -> str:
        """A further namespace, gone when the test ends."""
        name = f"test-{uuid4().hex[:10]}"
        given = {name.replace("__", "/").replace("_", "-"): value for name, value in labels.items()}
        self.client.create("namespaces", {"metadata": {"name": name, "labels": given}})
        if self.real and self.has_controllers:
            eventually(lambda: self.client.find("serviceaccounts", "default", namespace=name), "a service account")
        elif self.real:  # no pod may be without one, and nothing else makes it
            self.client.create("serviceaccounts", {"metadata": {"name": "default"}}, namespace=name)
        self._namespaces.append(name)
        return name

    def close(self) -> None:
        for name in self._namespaces:
            try:
                self.client.delete("namespaces", name)
            except Refusal as refusal:
                if refusal.code not in (404, 409):
                    raise

    def wait(self, found: Callable[[], T], what: str) -> T:
        """The first true result of a function; the test fails with `what` if there is none within a minute."""
        return eventually(found, what)

    def back_up(self) -> Callable[[bool], None]:
        """Make a backup of the whole cluster; gives what restores it, as if nothing had happened since.

        That is told whether versions then go on beyond the last one, or back to where they were.
        """
        server = self.server
        with server.away():
            restore = self.keeper() if self.keeper else server.back_up()
        made, told = len(server.made), len(server.told)

        def put_back(ahead: bool) -> None:
            with server.away():
                restore(ahead)
                del server.made[made:], server.told[told:]

        return put_back

    def needs_controllers(self) -> None:
        """Skip the test where nothing runs Jobs."""
        if not self.has_controllers:
            pytest.skip("this API server has no controllers beside it")

    @property
    def controllers(self) -> Controllers:
        """The simulated controllers, to be paused. Skips the test on a real cluster."""
        if self.server.controllers is None:
            pytest.skip("only simulated controllers can be paused")
        return self.server.controllers


@contextmanager
def embedded(folder: Path) -> Iterator[Cluster]:
    """A new API in this process, with the project's kinds and an empty namespace."""
    with Server(Embedded()) as server:
        cluster = Cluster(server, Client(server.url), folder)
        cluster.begin()
        yield cluster


@cache
def own_definitions() -> list[Document]:
    """The project's CustomResourceDefinitions, as they are committed."""
    return [yaml.safe_load(path.read_text()) for path in sorted(DEFINITIONS.glob("*.yaml"))]

"""A real API server for the tests: the one of KUBECONFIG, or one started from the programs in KUBEBUILDER_ASSETS.

A cluster that is not on this machine is left alone unless pytest is called with `--any-cluster`: the tests make and
delete namespaces, and replace the project's CustomResourceDefinitions.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from almanac.kubeconfig import Access, from_kubeconfig
from kube.client import Client
from kube.cluster import MADE_BY_TESTS, Cluster
from kube.server import Server
from kube.upstream import Upstream
from kube.waiting import eventually

_HERE = {"localhost", "127.0.0.1", "::1"}


@contextmanager
def found(folder: Path, anywhere: bool = False) -> Iterator[tuple[Access, bool]]:
    """A real API, and whether controllers run beside it. Skips the test, with the reason, where there is none."""
    if os.environ.get("KUBECONFIG"):
        access = from_kubeconfig([Path(one) for one in os.environ["KUBECONFIG"].split(os.pathsep)])
        host = urlsplit(access.server).hostname
        if host not in _HERE and not anywhere:
            pytest.skip(f"KUBECONFIG leads to {host}, which is another machine: --any-cluster if it is for tests")
        yield access, True
    elif os.environ.get("KUBEBUILDER_ASSETS"):
        with ControlPlane(Path(os.environ["KUBEBUILDER_ASSETS"]), folder) as started:
            yield started.access, started.controlled
    else:
        pytest.skip("no real API server: set KUBECONFIG or KUBEBUILDER_ASSETS")


@contextmanager
def own(folder: Path) -> Iterator[ControlPlane]:
    """A control plane that nobody else uses, and that can be put back to an earlier state."""
    if not os.environ.get("KUBEBUILDER_ASSETS"):
        pytest.skip("no programs for an API server of the test's own: set KUBEBUILDER_ASSETS")
    with ControlPlane(Path(os.environ["KUBEBUILDER_ASSETS"]), folder) as started:
        yield started


@contextmanager
def real(access: Access, controlled: bool, folder: Path) -> Iterator[Cluster]:
    """A fresh namespace of a real API, behind the same front as the embedded one."""
    with Server(Upstream(access)) as server:
        cluster = Cluster(server, Client(server.url), folder, real=True, has_controllers=controlled)
        cluster.begin()
        try:
            yield cluster
        finally:
            cluster.close()


def tidy(access: Access) -> None:
    """Take the kinds away that tests have defined, but for the project's."""
    ((label, value),) = MADE_BY_TESTS.items()
    with Server(Upstream(access)) as server:
        client = Client(server.url)
        client.request("DELETE", client.path("customresourcedefinitions"), labelSelector=f"{label}={value}")


class ControlPlane:
    """etcd, kube-apiserver and, if it is there, kube-controller-manager, on ports of their own and in a folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        token, port = secrets.token_hex(16), free_port()
        (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = serialization.PrivateFormat.TraditionalOpenSSL
        accounts = folder / "accounts.key"
        accounts.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
        store, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        kubeconfig = folder / "kubeconfig"
        server = f"https://127.0.0.1:{port}"
        config = {
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }
        kubeconfig.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
        self.controlled = (programs / "kube-controller-manager").exists()
        self.access = from_kubeconfig([kubeconfig])
        self._programs, self._folder, self._server = programs, folder, server
        self._data, self._store = folder / "etcd", store
        self._commands = {
            "etcd": [
                *(f"--data-dir={self._data}", "--unsafe-no-fsync", f"--listen-peer-urls={peer}"),
                *(f"--listen-client-urls={store}", f"--advertise-client-urls={store}"),
            ],
            "kube-apiserver": [
                *(f"--etcd-servers={store}", f"--secure-port={port}", "--bind-address=127.0.0.1", "--allow-privileged"),
                *(f"--cert-dir={folder / 'certificates'}", f"--token-auth-file={folder / 'tokens.csv'}"),
                *("--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"),
                *("--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={accounts}"),
                f"--service-account-signing-key-file={accounts}",
            ],
            "kube-controller-manager": [
                *(f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--use-service-account-credentials"),
                *(f"--service-account-private-key-file={accounts}", "--secure-port=0"),
            ],
        }
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all of it, on what etcd has."""
        self._run("etcd")
        self._start_rest()

    def _start_rest(self) -> None:
        self._run("kube-apiserver")
        eventually(lambda: _is_ready(self._server), "the API server to be ready")
        if self.controlled:
            self._run("kube-controller-manager")

    def stop(self) -> None:
        """Stop all of it, what was started last first: etcd in order, the others, which have no state, at once."""
        while self._running:
            process = self._running.pop()
            if self._running:
                process.kill()
            else:
                process.terminate()
            process.wait()

    def back_up(self) -> Callable[[bool], None]:
        """Copy what etcd has, while all is stopped. Gives what starts all anew on the copy, as if nothing had happened.

        It is told whether revisions then go on beyond the last one, and older ones are forgotten, as with the options
        of `etcdutl snapshot restore` that Kubernetes' documentation asks for; or go back to where they were.
        """
        self.stop()
        copy = Path(tempfile.mkdtemp(dir=self._folder)) / "backup"
        shutil.copytree(self._data, copy)
        self.start()

        def restore(ahead: bool) -> None:
            last = self._revision()
            self.stop()
            shutil.rmtree(self._data)
            shutil.copytree(copy, self._data)
            self._run("etcd")
            if ahead:
                eventually(lambda: self._etcd("maintenance/status"), "etcd to answer")
                while self._revision() <= last:
                    self._etcd("kv/put", key="YQ==", value="")
                self._etcd("kv/compaction", revision=str(last))
            self._start_rest()

        return restore

    def _revision(self) -> int:
        return int(self._etcd("maintenance/status")["header"]["revision"])

    def _etcd(self, call: str, **arguments: str) -> Any:
        """Ask etcd; nothing while it does not answer."""
        with suppress(requests.ConnectionError):
            return requests.post(f"{self._store}/v3/{call}", json=arguments, timeout=10).json()

    def _run(self, name: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            command = [self._programs / name, *self._commands[name]]
            self._running.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder))


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _is_ready(server: str) -> bool:
    anyone = ssl._create_unverified_context()  # noqa: S323 - it has made its certificate itself, just now
    try:
        return bool(urllib.request.urlopen(f"{server}/readyz", timeout=5, context=anyone).status == 200)  # noqa: S310
    except (urllib.error.URLError, OSError):
        return False

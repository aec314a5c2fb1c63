"""A real API server for the tests: the one of KUBECONFIG, or one started from the programs in KUBEBUILDER_ASSETS.

A cluster that is not on this machine is left alone unless pytest is called with `--any-cluster`: the tests make and
delete namespaces, and replace the project's CustomResourceDefinitions.
"""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
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
        with _started(Path(os.environ["KUBEBUILDER_ASSETS"]), folder) as (access, controlled):
            yield access, controlled
    else:
        pytest.skip("no real API server: set KUBECONFIG or KUBEBUILDER_ASSETS")


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


@contextmanager
def _started(programs: Path, folder: Path) -> Iterator[tuple[Access, bool]]:
    """etcd, kube-apiserver and, if it is there, kube-controller-manager, on ports of their own."""
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
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> None:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen([programs / name, *arguments], stdout=log, stderr=log, cwd=folder)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        start(
            "etcd",
            *(f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync", f"--listen-peer-urls={peer}"),
            *(f"--listen-client-urls={store}", f"--advertise-client-urls={store}"),
        )
        start(
            "kube-apiserver",
            *(f"--etcd-servers={store}", f"--secure-port={port}", "--bind-address=127.0.0.1", "--allow-privileged"),
            *(f"--cert-dir={folder / 'certificates'}", f"--token-auth-file={folder / 'tokens.csv'}"),
            *("--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24"),
            *("--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={accounts}"),
            f"--service-account-signing-key-file={accounts}",
        )
        eventually(lambda: _is_ready(server), "the API server to be ready")
        controlled = (programs / "kube-controller-manager").exists()
        if controlled:
            start(
                "kube-controller-manager",
                *(f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--use-service-account-credentials"),
                *(f"--service-account-private-key-file={accounts}", "--secure-port=0"),
            )
        yield from_kubeconfig([kubeconfig]), controlled


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

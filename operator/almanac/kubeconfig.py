"""Where the Kubernetes API is, and who we are to it: in a pod by its service account, elsewhere by a kubeconfig file.

Reads files and runs credential plugins; calls no API. Tokens are read anew before they expire.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REREAD = 60.0
"""Seconds after which a token is read from its file again: the kubelet replaces it before it expires."""
_PLUGIN_TIMEOUT = 60


class AccessError(Exception):
    """No way to the Kubernetes API: the message names the file, and what is wrong with it."""


@dataclass
class Token:
    """A bearer token that is read when it is first needed, and again once it is old."""

    read: Callable[[], tuple[str, float]]
    """The token, and the time (of `time.time`) up to which it is good. May block: it reads a file or runs a program."""
    _value: str = ""
    _until: float = 0.0

    def get(self) -> str:
        """The token; read anew where the last one is too old."""
        if self.stale:
            self._value, self._until = self.read()
        return self._value

    @property
    def stale(self) -> bool:
        """Whether `get` would read it anew, and might block."""
        return time.time() >= self._until

    def expire(self) -> None:
        """Have it read anew: the API refused it."""
        self._until = 0.0


@dataclass(frozen=True)
class Access:
    """How to reach one Kubernetes API."""

    server: str
    """Its address, without a slash at the end."""
    namespace: str = "default"
    tls: ssl.SSLContext | None = None
    token: Token | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request: basic authentication, where a kubeconfig has it."""


def find(environment: Mapping[str, str], context: str | None = None) -> Access:
    """The API of KUBECONFIG, of the pod that this runs in, or of ~/.kube/config: the first that there is.

    Raises:
        AccessError: there is none of these, or it cannot be used.
    """
    named = [Path(one) for one in environment.get("KUBECONFIG", "").split(os.pathsep) if one]
    if named:
        return from_kubeconfig(named, context)
    if context is None and "KUBERNETES_SERVICE_HOST" in environment and (SERVICE_ACCOUNT / "token").exists():
        return in_cluster(environment)
    home = Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"
    if not home.exists():
        raise AccessError(f"no Kubernetes API is known: set KUBECONFIG, or write {home}")
    return from_kubeconfig([home], context)


def in_cluster(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    """The API of the cluster that this pod runs in, as its service account."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    return Access(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=(folder / "namespace").read_text().strip(),
        tls=_trusting(cafile=str(folder / "ca.crt")),
        token=_from_file(folder / "token"),
    )


def from_kubeconfig(paths: list[Path], context: str | None = None) -> Access:
    """The API of a context of kubeconfig files, the current one by default; of several files the first entry counts.

    Raises:
        AccessError: a file cannot be read, or has no such context, cluster or user.
    """
    files = [(path, _document(path)) for path in paths if path.exists() or len(paths) == 1]
    name = context or next((one["current-context"] for _, one in files if one.get("current-context")), "")
    where = ", ".join(map(str, paths))
    if not name:
        raise AccessError(f"{where}: no current-context: choose one with `kubectl config use-context`")
    _, chosen = _entry(files, "context", name, where)
    base, cluster = _entry(files, "cluster", chosen.get("cluster", ""), where)
    user_base, user = _entry(files, "user", chosen["user"], where) if chosen.get("user") else (base, {})
    server = cluster.get("server", "").rstrip("/")
    return Access(
        server=server,
        namespace=chosen.get("namespace") or "default",
        tls=_tls(cluster, base, user, user_base) if server.startswith("https") else None,
        token=_token(user, user_base, cluster),
        headers=_basic(user),
    )


def _document(path: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise AccessError(f"{path}: cannot be read as a kubeconfig: {error}") from error
    if not isinstance(read, dict):
        raise AccessError(f"{path}: is not a kubeconfig")
    return read


def _entry(files: list[tuple[Path, dict[str, Any]]], kind: str, name: str, where: str) -> tuple[Path, dict[str, Any]]:
    """The folder of the file that has it, to which paths inside are relative, and the entry itself."""
    for path, document in files:
        for one in document.get(f"{kind}s") or ():
            if one.get("name") == name:
                return path.parent, one.get(kind) or {}
    raise AccessError(f"{where}: has no {kind} named {name!r}")


def _tls(cluster: Mapping[str, Any], base: Path, user: Mapping[str, Any], user_base: Path) -> ssl.SSLContext:
    data = _data(cluster, "certificate-authority-data")
    file = cluster.get("certificate-authority")
    tls = _trusting(cafile=str(base / file) if file and not data else None, cadata=data.decode() if data else None)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    with ExitStack() as stack:  # ssl reads certificates of clients from files alone
        certificate = _file(stack, user, "client-certificate", user_base)
        key = _file(stack, user, "client-key", user_base)
        if certificate and key:
            tls.load_cert_chain(certificate, key)
    return tls


def _trusting(cafile: str | None = None, cadata: str | None = None) -> ssl.SSLContext:
    """Trust in an authority as kubectl has it: many clusters' own lack extensions that Python asks for from 3.13 on."""
    tls = ssl.create_default_context(cafile=cafile, cadata=cadata)
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return tls


def _file(stack: ExitStack, user: Mapping[str, Any], name: str, base: Path) -> str | None:
    data = _data(user, f"{name}-data")
    if data:
        file = stack.enter_context(tempfile.NamedTemporaryFile(buffering=0))  # noqa: SIM115 - the stack closes it
        file.write(data)
        return file.name
    return str(base / user[name]) if user.get(name) else None


def _data(entry: Mapping[str, Any], name: str) -> bytes:
    return base64.b64decode(entry.get(name) or "")


def _basic(user: Mapping[str, Any]) -> dict[str, str]:
    if not user.get("username"):
        return {}
    pair = base64.b64encode(f"{user['username']}:{user.get('password', '')}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _token(user: Mapping[str, Any], base: Path, cluster: Mapping[str, Any]) -> Token | None:
    if user.get("exec"):
        return Token(lambda: _plugin(user["exec"], base, cluster))
    if user.get("tokenFile"):
        return _from_file(base / user["tokenFile"])
    return Token(lambda: (user["token"], float("inf"))) if user.get("token") else None


def _from_file(path: Path) -> Token:
    return Token(lambda: (path.read_text().strip(), time.time() + REREAD))


def _plugin(config: Mapping[str, Any], base: Path, cluster: Mapping[str, Any]) -> tuple[str, float]:
    """A token from a credential plugin, as kubectl calls it (client.authentication.k8s.io)."""
    command = config.get("command", "")
    if "/" in command:
        command = str(base / command)
    info = {
        "apiVersion": config.get("apiVersion", "client.authentication.k8s.io/v1"),
        "kind": "ExecCredential",
        "spec": {"interactive": False, **({"cluster": dict(cluster)} if config.get("provideClusterInfo") else {})},
    }
    given = {one["name"]: one["value"] for one in config.get("env") or ()}
    try:
        done = subprocess.run(
            [command, *(config.get("args") or ())],
            env={**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            capture_output=True,
            check=True,
            timeout=_PLUGIN_TIMEOUT,
        )
        status = json.loads(done.stdout)["status"]
        until = status.get("expirationTimestamp")
        return status["token"], datetime.fromisoformat(until).timestamp() - 10 if until else float("inf")
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise AccessError(f"credential plugin {command}: gave no token: {error}") from error

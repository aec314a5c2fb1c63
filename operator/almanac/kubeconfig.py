"""Where the Kubernetes API is, and who we are to it: in a pod by its service account, elsewhere by a kubeconfig file.

Reads files and runs credential plugins; calls no API. Tokens and certificates are read anew before they expire.
What a kubeconfig may say and this cannot do is an error: to leave it out would be to ask as somebody else.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml

from almanac import plugin

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REREAD = 60.0
"""Seconds after which a token is read from its file again: the kubelet replaces it before it expires."""


class AccessError(Exception):
    """No way to the Kubernetes API: the message names the file, and what is wrong with it."""


@dataclass
class Token:
    """A bearer token that is read when it is first needed, and again once it is old.

    It is empty where a plugin gives a client certificate instead: reading it puts that into the TLS context.
    """

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
    """Sent with every request: basic authentication and whom to act as, where a kubeconfig has it."""
    proxy: str = ""
    """Address of the HTTP proxy that leads there; empty: none."""
    server_name: str = ""
    """Name that the server's certificate is for, where that is not the host of its address."""


def find(environment: Mapping[str, str], context: str | None = None) -> Access:
    """The API of KUBECONFIG, of the pod that this runs in, or of ~/.kube/config: the first that there is.

    Raises:
        AccessError: there is none of these, or it cannot be used.
    """
    try:
        return _find(environment, context)
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:  # its entries may be anything
        raise AccessError(f"the kubeconfig cannot be used: {error}") from error


def _find(environment: Mapping[str, str], context: str | None) -> Access:
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
        proxy=_from_environment("https", host),
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
    server = str(cluster.get("server") or "").rstrip("/")
    if urlsplit(server).scheme not in ("http", "https"):
        raise AccessError(f"{where}: cluster {chosen.get('cluster')}: server must be an address: https://...")
    _refuse(user, f"{where}: user {chosen.get('user')}")
    tls = _tls(cluster, base, user, user_base) if server.startswith("https") else None
    return Access(
        server=server,
        namespace=chosen.get("namespace") or "default",
        tls=tls,
        token=_token(user, user_base, _absolute(cluster, base), tls),
        headers=_headers(user),
        proxy=_proxy(cluster, server, where),
        server_name=cluster.get("tls-server-name") or "",
    )


_UNSUPPORTED = {
    "auth-provider": "which kubectl has dropped as well: use a credential plugin (exec), such as kubelogin for OIDC",
    "as-groups": "only `as` and `as-uid` are",
    "as-user-extra": "only `as` and `as-uid` are",
}


def _refuse(user: Mapping[str, Any], who: str) -> None:
    for field_, why in _UNSUPPORTED.items():
        if user.get(field_):
            given = user[field_].get("name") if field_ == "auth-provider" and isinstance(user[field_], Mapping) else ""
            raise AccessError(f"{who}: {field_}{f' {given}' if given else ''} is not supported, {why}")


def _proxy(cluster: Mapping[str, Any], server: str, where: str) -> str:
    """The proxy of a cluster, or that of the environment (HTTPS_PROXY, NO_PROXY), as kubectl has it."""
    given = str(cluster.get("proxy-url") or "")
    if given and urlsplit(given).scheme not in ("http", "https"):
        raise AccessError(f"{where}: proxy-url {given} is not supported: only proxies of http:// and https:// are")
    address = urlsplit(server)
    return given or _from_environment(address.scheme, address.hostname or "")


def _from_environment(scheme: str, host: str) -> str:
    return "" if host in ("localhost", "127.0.0.1", "::1") or proxy_bypass(host) else getproxies().get(scheme, "")


def _absolute(cluster: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A cluster whose authority's file is named from the root."""
    file = cluster.get("certificate-authority")
    return {**cluster, **({"certificate-authority": str(base / file)} if file else {})}


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
        if bool(certificate) != bool(key):
            raise AccessError("client-certificate and client-key: a kubeconfig's user has both, or none")
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


def _headers(user: Mapping[str, Any]) -> dict[str, str]:
    headers = {"Impersonate-User": user.get("as"), "Impersonate-Uid": user.get("as-uid")}
    if user.get("username"):
        pair = base64.b64encode(f"{user['username']}:{user.get('password', '')}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    return {name: str(value) for name, value in headers.items() if value}


def _token(user: Mapping[str, Any], base: Path, cluster: Mapping[str, Any], tls: ssl.SSLContext | None) -> Token | None:
    if user.get("exec"):
        return Token(lambda: _from_plugin(user["exec"], base, cluster, tls))
    if user.get("tokenFile"):
        return _from_file(base / user["tokenFile"])
    return Token(lambda: (user["token"], float("inf"))) if user.get("token") else None


def _from_file(path: Path) -> Token:
    return Token(lambda: (path.read_text().strip(), time.time() + REREAD))


def _from_plugin(
    config: Mapping[str, Any], base: Path, cluster: Mapping[str, Any], tls: ssl.SSLContext | None
) -> tuple[str, float]:
    """A token from a credential plugin. A certificate that it gives is used for connections from now on."""
    try:
        given = plugin.credential(config, base, cluster)
    except plugin.PluginError as error:
        raise AccessError(str(error)) from error
    if given.certificate:
        if tls is None:
            raise AccessError(f"credential plugin {config.get('command')}: gives a certificate, but server is no https")
        with tempfile.NamedTemporaryFile(buffering=0) as file:  # of one file: readable by this user alone
            file.write(f"{given.certificate}\n{given.key}\n".encode())
            try:
                tls.load_cert_chain(file.name)
            except ssl.SSLError as error:
                message = f"credential plugin {config.get('command')}: gives a certificate and a key that do not fit"
                raise AccessError(message) from error
    return given.token, given.until

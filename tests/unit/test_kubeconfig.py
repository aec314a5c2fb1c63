"""Kubeconfigs as people have them: proxies, certificates, credential plugins, several files, and what is refused."""

from __future__ import annotations

import asyncio
import json
import shlex
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from almanac.cluster import PODS, ApiError, Cluster
from almanac.kubeconfig import Access, AccessError, find, from_kubeconfig

V1 = "client.authentication.k8s.io/v1"


def written(
    path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any] | None = None, context: str | None = "c"
) -> Path:
    """A kubeconfig with one of each."""
    document = {
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        **({"current-context": context} if context else {}),
    }
    path.write_text(json.dumps(document))
    return path


def plugin(path: Path, status: Mapping[str, Any] | None = None, script: str = "", **config: Any) -> dict[str, Any]:
    """The user of a kubeconfig with a plugin that answers with `status`, or is a shell script."""
    answer = json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status})
    script = script or f"printf %s {shlex.quote(answer)}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"exec": {"apiVersion": V1, "command": str(path), **config}}


@dataclass(frozen=True)
class Identity:
    """A certificate, its key, and both in one file."""

    certificate: str
    key: str
    file: Path


def identity(folder: Path, name: str, *, host: str = "", by: tuple[x509.Certificate, Any] | None = None) -> Any:
    """A certificate of an authority (itself, if none is given), as an `Identity` and as its parts."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (by[0].subject, by[1]) if by else (subject, key)
    start = datetime.now(UTC) - timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if host:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    made = builder.sign(signer, hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    file = folder / f"{name}.pem"
    file.write_text(pem + private)
    return Identity(pem, private, file), (made, key)


def asked(access_of: Any, tls: ssl.SSLContext | None = None) -> tuple[list[str], list[Mapping[str, str]]]:
    """Who a server was asked by: names of clients' certificates and headers, of two requests to it."""
    names: list[str] = []
    headers: list[Mapping[str, str]] = []

    async def handler(request: web.Request) -> web.Response:
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        subject = dict(pair[0] for pair in certificate["subject"]) if certificate else {}
        names.append(subject.get("commonName", ""))
        headers.append({"target": request.raw_path, **request.headers})
        refused = request.headers.get("Authorization") == "Bearer old"
        return web.json_response({"items": []}, status=401 if refused else 200)

    async def main() -> None:
        runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        try:
            async with Cluster(access_of(runner.addresses[0][1])) as cluster:
                await cluster.get(PODS, "default", "a")
                await cluster.get(PODS, "default", "b")
        finally:
            await runner.cleanup()

    asyncio.run(main())
    return names, headers


def test_a_client_certificate_from_a_plugin(tmp_path: Path) -> None:
    authority, by = identity(tmp_path, "authority")
    server, _ = identity(tmp_path, "server", host="kubernetes.example", by=by)
    client, _ = identity(tmp_path, "jane", by=by)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    tls.load_cert_chain(server.file)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    user = plugin(tmp_path / "login", {"clientCertificateData": client.certificate, "clientKeyData": client.key})
    cluster = {"certificate-authority": "authority.pem", "tls-server-name": "kubernetes.example"}

    def access(port: int) -> Access:
        return from_kubeconfig([written(tmp_path / "config", cluster | {"server": f"https://127.0.0.1:{port}"}, user)])

    names, headers = asked(access, tls)
    assert names == ["jane", "jane"]
    assert all("Authorization" not in one for one in headers)


def test_a_certificate_for_another_name_is_not_taken(tmp_path: Path) -> None:
    _, by = identity(tmp_path, "authority")
    server, _ = identity(tmp_path, "server", host="kubernetes.example", by=by)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(server.file)

    def access(port: int, **cluster: Any) -> Access:
        trusted = {"server": f"https://127.0.0.1:{port}", "certificate-authority": "authority.pem", **cluster}
        return from_kubeconfig([written(tmp_path / "config", trusted)])

    with pytest.raises(ApiError, match=r"(?i)certificate"):
        asked(access, tls)
    with pytest.raises(ApiError, match=r"(?i)certificate"):
        asked(lambda port: access(port, **{"tls-server-name": "other.example"}), tls)
    names, _ = asked(lambda port: access(port, **{"insecure-skip-tls-verify": True}), tls)
    assert names == ["", ""]


def test_a_proxy_leads_to_the_server(tmp_path: Path) -> None:
    """The server is one that no name leads to: only a proxy, which is asked for the whole address, can answer."""

    def access(port: int) -> Access:
        cluster = {"server": "http://kubernetes.invalid", "proxy-url": f"http://127.0.0.1:{port}"}
        return from_kubeconfig([written(tmp_path / "config", cluster)])

    _, headers = asked(access)
    assert headers[0]["Host"] == "kubernetes.invalid"
    assert headers[0]["target"].startswith("http://kubernetes.invalid/api/v1/namespaces/default/pods/")


def test_a_proxy_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")

    def proxy(server: str) -> str:
        return from_kubeconfig([written(tmp_path / "config", {"server": server})]).proxy

    assert proxy("https://kubernetes.example") == "http://proxy.example:3128"
    assert proxy("https://127.0.0.1:6443") == ""
    monkeypatch.setenv("no_proxy", ".example")
    assert proxy("https://kubernetes.example") == ""


def test_whom_to_act_as(tmp_path: Path) -> None:
    user = {"token": "t", "as": "jane", "as-uid": "7"}
    _, headers = asked(
        lambda port: from_kubeconfig([written(tmp_path / "c", {"server": f"http://127.0.0.1:{port}"}, user)])
    )
    assert (headers[0]["Impersonate-User"], headers[0]["Impersonate-Uid"]) == ("jane", "7")


def test_a_plugin_is_asked_again_when_its_token_is_refused(tmp_path: Path) -> None:
    script = f"""
n=$(cat {tmp_path}/count 2>/dev/null || echo old); echo new > {tmp_path}/count
echo '{{"apiVersion": "{V1}", "status": {{"token": "'$n'"}}}}'"""
    user = plugin(tmp_path / "login", script=script)
    _, headers = asked(
        lambda port: from_kubeconfig([written(tmp_path / "c", {"server": f"http://127.0.0.1:{port}"}, user)])
    )
    assert [one["Authorization"] for one in headers] == ["Bearer old", "Bearer new", "Bearer new"]


def test_what_a_plugin_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("an authority")
    script = f"""echo "$KUBERNETES_EXEC_INFO" > {tmp_path}/told; echo "$REALM $1" > {tmp_path}/given
echo '{{"apiVersion": "{V1}", "status": {{"token": "t"}}}}'"""
    user = plugin(
        tmp_path / "login",
        script=script,
        provideClusterInfo=True,
        args=["get"],
        env=[{"name": "REALM", "value": "x"}],
    )
    cluster = {
        "server": "http://127.0.0.1:1",
        "certificate-authority": "ca.pem",
        "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}],
    }
    access = from_kubeconfig([written(tmp_path / "config", cluster, user)])
    assert access.token is not None
    assert access.token.get() == "t"
    assert json.loads((tmp_path / "told").read_text())["spec"] == {
        "interactive": False,
        "cluster": {
            "server": "http://127.0.0.1:1",
            "certificate-authority-data": "YW4gYXV0aG9yaXR5",
            "config": {"audience": "a"},
        },
    }
    assert (tmp_path / "given").read_text() == "x get\n"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"script": "echo no session >&2; exit 3"}, "ended with exit code 3: no session"),
        ({"script": "echo hello"}, "what it wrote is no ExecCredential"),
        ({"status": {}}, "gives neither a token nor a client certificate"),
        ({"status": {"clientCertificateData": "x"}}, "without the other"),
        ({"status": {"clientCertificateData": "x", "clientKeyData": "y"}}, "server is no https"),
        ({"status": {"token": "t"}, "apiVersion": "client.authentication.k8s.io/v1alpha1"}, "write client.auth"),
        ({"status": {"token": "t"}, "apiVersion": "client.authentication.k8s.io/v1beta1"}, "answers with apiVersion"),
        ({"status": {"token": "t"}, "interactiveMode": "Always"}, "interactiveMode: Always is not supported"),
        ({"command": "no-such-plugin", "installHint": "brew install\nit"}, "no such program: brew install it"),
    ],
    ids=str,
)
def test_a_plugin_that_gives_nothing(made: dict[str, Any], words: str, tmp_path: Path) -> None:
    user = plugin(tmp_path / "login", **made)
    access = from_kubeconfig([written(tmp_path / "config", {"server": "http://127.0.0.1:1"}, user)])
    assert access.token is not None
    with pytest.raises(AccessError, match=words):
        access.token.get()


@pytest.mark.parametrize(
    ("cluster", "user", "words"),
    [
        ({}, {"auth-provider": {"name": "oidc"}}, "user u: auth-provider oidc is not supported"),
        ({}, {"as": "a", "as-groups": ["b"]}, "user u: as-groups is not supported"),
        ({}, {"as": "a", "as-user-extra": {"b": ["c"]}}, "user u: as-user-extra is not supported"),
        ({"proxy-url": "socks5://p:1080"}, {}, "proxy-url socks5://p:1080 is not supported"),
        ({"server": ""}, {}, "cluster k: server must be an address"),
        ({"server": "https://x"}, {"client-certificate-data": "eA=="}, "client-certificate and client-key"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused(
    cluster: dict[str, Any], user: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "config", {"server": "http://127.0.0.1:1", **cluster}, user)
    with pytest.raises(AccessError, match=words):
        from_kubeconfig([path])


def test_several_files_are_one(tmp_path: Path) -> None:
    """The first that says something counts; a file that is not there says nothing."""
    first = written(tmp_path / "a", {"server": "http://first:1"}, {"token": "one"}, context=None)
    second = tmp_path / "b"
    second.write_text(
        json.dumps(
            {
                "current-context": "d",
                "clusters": [{"name": "k", "cluster": {"server": "http://second:1"}}],
                "contexts": [{"name": "d", "context": {"cluster": "k", "user": "v", "namespace": "finance"}}],
                "users": [{"name": "v", "user": {"token": "two"}}],
            }
        )
    )
    access = find({"KUBECONFIG": f"{tmp_path / 'none'}:{first}:{second}"})
    assert (access.server, access.namespace) == ("http://first:1", "finance")
    assert access.token is not None
    assert access.token.get() == "two"

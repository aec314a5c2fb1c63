"""How to reach a real API server: what a kubeconfig says."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import yaml

_LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}  # noqa: S104 - a name to compare with


@dataclass(frozen=True, slots=True)
class Access:
    """Address, authority and credentials of an API server. Certificates are PEM."""

    server: str
    authority: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    token: str = ""
    verify: bool = True

    @classmethod
    def from_kubeconfig(cls, path: Path) -> Self:
        """The current context of a kubeconfig. Plugins that make credentials are not run."""
        config: dict[str, Any] = yaml.safe_load(path.read_text())

        def named(kind: str, name: str) -> dict[str, Any]:
            return next(one[kind.removesuffix("s")] for one in config[kind] if one["name"] == name) or {}

        context = named("contexts", config["current-context"])
        cluster, user = named("clusters", context["cluster"]), named("users", context["user"])

        def pem(where: dict[str, Any], name: str) -> bytes:
            if f"{name}-data" in where:
                return base64.b64decode(where[f"{name}-data"])
            return (path.parent / where[name]).read_bytes() if name in where else b""

        return cls(
            cluster["server"].rstrip("/"),
            pem(cluster, "certificate-authority"),
            pem(user, "client-certificate"),
            pem(user, "client-key"),
            user.get("token", ""),
            not cluster.get("insecure-skip-tls-verify", False),
        )

    @property
    def on_this_machine(self) -> bool:
        return urlsplit(self.server).hostname in _LOCAL

    def tls(self) -> ssl.SSLContext | bool:
        """What a connection needs; True where nothing special."""
        if not self.server.startswith("https"):
            return True
        context = ssl.create_default_context(cadata=self.authority.decode() or None)
        if not self.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate:
            with tempfile.NamedTemporaryFile(suffix=".pem", delete=False) as file:
                file.write(self.certificate + b"\n" + self.key)
            try:
                context.load_cert_chain(file.name)
            finally:
                os.unlink(file.name)  # noqa: PTH108 - the name of a temporary file
        return context

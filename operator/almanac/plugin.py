"""Credentials from a program that a kubeconfig names, as kubectl runs it (client.authentication.k8s.io).

Runs the program; calls no API. A plugin gives a token, a client certificate with its key, or both.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

TIMEOUT = 60
"""Seconds that a plugin may take."""
_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_EXTENSION = "client.authentication.k8s.io/exec"
_EARLY = 10
"""Seconds before its time at which a credential counts as expired."""


class PluginError(Exception):
    """A plugin gave nothing that could be used: the message names it, and says what it said."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a plugin gave. What it did not is empty."""

    token: str = ""
    certificate: str = ""
    """Client certificate, PEM."""
    key: str = ""
    """Its private key, PEM."""
    until: float = float("inf")
    """The time (of `time.time`) up to which it is good."""


def credential(config: Mapping[str, Any], base: Path, cluster: Mapping[str, Any] | None = None) -> Credential:
    """What the plugin of a kubeconfig's `exec` gives; a relative path of its command starts at `base`.

    `cluster` is told to a plugin that wants to know (`provideClusterInfo`).

    Raises:
        PluginError: it is not there, fails, needs somebody to talk to, or its answer is no credential.
    """
    command, version = str(config.get("command") or ""), config.get("apiVersion")
    said = f"credential plugin {command}"
    if version not in _VERSIONS:
        raise PluginError(f"{said}: apiVersion {version}: write {' or '.join(_VERSIONS)}")
    if config.get("interactiveMode") == "Always":
        raise PluginError(f"{said}: interactiveMode: Always is not supported: nobody is there to answer it")
    if not command:
        raise PluginError("exec: command is missing")
    info: dict[str, Any] = {"interactive": False}
    if config.get("provideClusterInfo"):
        info["cluster"] = _told(cluster or {}, base)
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": info}
    given = {one["name"]: str(one["value"]) for one in config.get("env") or ()}
    try:
        done = subprocess.run(
            [str(base / command) if "/" in command else command, *map(str, config.get("args") or ())],
            env={**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=TIMEOUT,
        )
    except FileNotFoundError as error:
        hint = " ".join(str(config.get("installHint") or "install it, or correct the kubeconfig").split())
        raise PluginError(f"{said}: there is no such program: {hint}") from error
    except subprocess.CalledProcessError as error:
        words = " ".join(error.stderr.decode(errors="replace").split())[-500:]
        raise PluginError(f"{said}: ended with exit code {error.returncode}{': ' + words if words else ''}") from error
    except subprocess.TimeoutExpired as error:
        raise PluginError(f"{said}: not done within {TIMEOUT} s") from error
    except OSError as error:
        raise PluginError(f"{said}: cannot be run: {error.strerror}") from error
    return _read(done.stdout, str(version), said)


def _told(cluster: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A cluster of a kubeconfig as plugins are told of it: with the authority itself, not the file that holds it."""
    fields = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
    told = {name: cluster[name] for name in fields if cluster.get(name)}
    file = cluster.get("certificate-authority")
    if file and "certificate-authority-data" not in told:
        told["certificate-authority-data"] = base64.b64encode((base / file).read_bytes()).decode()
    for one in cluster.get("extensions") or ():
        if one.get("name") == _EXTENSION:
            told["config"] = one.get("extension")
    return told


def _read(output: bytes, version: str, said: str) -> Credential:
    try:
        answer = json.loads(output)
        status = answer["status"]
        token, certificate, key = (
            str(status.get(name) or "") for name in ("token", "clientCertificateData", "clientKeyData")
        )
        expires = status.get("expirationTimestamp")
        until = datetime.fromisoformat(expires).timestamp() - _EARLY if expires else float("inf")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PluginError(f"{said}: what it wrote is no ExecCredential with a status") from error
    if answer.get("apiVersion") != version:
        raise PluginError(f"{said}: answers with apiVersion {answer.get('apiVersion')}, not {version}")
    if bool(certificate) != bool(key):
        raise PluginError(f"{said}: gives one of clientCertificateData and clientKeyData without the other")
    if not token and not certificate:
        raise PluginError(f"{said}: gives neither a token nor a client certificate")
    return Credential(token, certificate, key, until)

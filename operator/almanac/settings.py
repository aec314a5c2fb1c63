"""The operator's settings: environment variables, read once, as one frozen value."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

PREFIX = "ALMANAC_"


class SettingsError(ValueError):
    """An environment variable cannot be what it says."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How this operator is set up. Each field is the environment variable of its name: `ALMANAC_IMAGE` is `image`."""

    image: str = "almanac:latest"
    """Container image of runs in one pod, where a job names none."""
    spark_image: str = "almanac-spark:latest"
    """Container image of runs on Spark, driver and executors, where a job names none."""
    dask_image: str = "almanac-dask:latest"
    """Container image of runs on Dask, driver, scheduler and workers, where a job names none."""
    service_account: str = ""
    """Service account of drivers, where a job names none. Empty: the namespace's default."""
    cpu: str = "1"
    """CPU that a driver requests and may use, unless spec.podTemplate says otherwise."""
    memory: str = "4Gi"
    """Memory that a driver requests and may use, unless spec.podTemplate says otherwise."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to watch. Empty: all."""
    namespace: str = "default"
    """Namespace of the operator itself, where its Lease lives."""
    identity: str = ""
    """Who this operator is in the Lease, e.g. its pod's name. Empty: the host's name."""
    lease: str = "almanac-operator"
    """Name of the Lease that the leader holds. Empty: no election, this operator leads."""
    metrics_port: int = 8080
    """Port of /metrics and /healthz. 0: none."""
    log_level: str = "info"
    """debug, info, warning or error."""


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings that an environment says; what it does not mention, or leaves empty, keeps its default.

    Raises:
        SettingsError: naming the variable, its value and what to write.
    """
    given: dict[str, Any] = {}
    for field in fields(Settings):
        variable = f"{PREFIX}{field.name.upper()}"
        text = environment.get(variable, "").strip()
        if variable in environment and (text or field.name == "lease"):
            given[field.name] = _READERS.get(field.name, _text)(variable, text)
    return Settings(**given)


def _text(variable: str, text: str) -> str:
    return text


def _port(variable: str, text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise SettingsError(f"{variable}={text}: must be a port from 1 to 65535, or 0 for none")
    return int(text)


def _names(variable: str, text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for name in re.split(r"[\s,]+", text) if name))
    wrong = [name for name in names if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)]
    if wrong:
        raise SettingsError(f"{variable}={text}: {wrong[0]!r} cannot be a namespace: write names with commas between")
    return names


def _quantity(variable: str, text: str) -> str:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?(m|[kMGT]i?)?", text) or not re.search("[1-9]", text):
        raise SettingsError(f"{variable}={text}: must be an amount above zero such as 2, 500m or 4Gi")
    return text


def _level(variable: str, text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise SettingsError(f"{variable}={text}: must be debug, info, warning or error")
    return text.lower()


_READERS: dict[str, Callable[[str, str], Any]] = {
    "cpu": _quantity,
    "memory": _quantity,
    "namespaces": _names,
    "metrics_port": _port,
    "log_level": _level,
}

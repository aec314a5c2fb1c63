"""What this process may use: cores, and memory as the container's limit (cgroup v1 or v2) or the machine has it.

Reads /proc and /sys/fs/cgroup, whose root is an argument; where they do not exist the machine's own figures count.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

from almanac.api import JobError, Reason

ROOT = Path("/")
GIB = 1 << 30
_NEARLY = 0.95
_UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as a number close to 2**63


def usable_cores(root: Path = ROOT) -> int:
    """Cores that this process may keep busy: its CPU affinity, cut to the container's CPU quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min((_quota(folder) for folder in _cgroups(root, "cpu")), default=math.inf)
    return max(1, min(cores, math.ceil(quota)) if math.isfinite(quota) else cores)


def memory_limit(root: Path = ROOT) -> int:
    """Bytes that this process may hold before it is killed: its container's limit, or what the machine has left."""
    limits = [_number(folder / name) for folder in _cgroups(root, "memory") for name in _MEMORY_FILES]
    given = [limit for limit in limits if limit is not None and limit < _UNLIMITED]
    return min(_free(root) + memory_used(root), *given, _UNLIMITED)


def memory_used(root: Path = ROOT) -> int:
    """Bytes of memory that this process holds (resident set); 0 where the system does not say."""
    try:
        pages = (root / "proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def memory_guard(limit: int, root: Path = ROOT) -> Callable[[], None]:
    """A check that raises TooBigForLocal once this process holds nearly `limit` bytes, before the system kills it."""

    def guard() -> None:
        used = memory_used(root)
        if used > _NEARLY * limit:
            raise JobError(
                Reason.TOO_BIG_FOR_LOCAL,
                f"the data do not fit into this process: {used / GIB:.1f} GiB of {limit / GIB:.1f} GiB are in use: "
                "give it more memory, or read less with spec.source.filter or a longer spec.frequency",
            )

    return guard


_MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")


def _cgroups(root: Path, controller: str) -> list[Path]:
    """The folders whose limits hold for this process: its own cgroup and all that enclose it."""
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        mount = root / "sys/fs/cgroup"
        if controllers:
            if controller not in controllers.split(","):
                continue
            mount /= controller
        # Inside a container with its own cgroup namespace the path is "/" and the mount is the container's own cgroup.
        own = Path(path.lstrip("/"))
        folders += [mount / own, *(mount / parent for parent in own.parents)]
    return folders


def _quota(folder: Path) -> float:
    """Cores' worth of time that a cgroup gives; infinite if it does not limit them."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except OSError:
        microseconds, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        return microseconds / period_us if microseconds and period_us and microseconds > 0 else math.inf
    return math.inf if quota == "max" else int(quota) / int(period)


def _free(root: Path) -> int:
    try:
        fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.lstrip("-").isdigit() else None

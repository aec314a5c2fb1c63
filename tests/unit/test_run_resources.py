"""Limits of cores and memory, read from trees of files as Linux shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from almanac.api import ExitCode, JobError
from almanac_jobs.resources import memory_guard, memory_limit, memory_used, usable_cores

GIB = 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": f"MemTotal: {64 << 20} kB\nMemAvailable: {32 << 20} kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def test_a_machine_without_cgroups(tmp_path: Path) -> None:
    tree(tmp_path, {})
    assert usable_cores(tmp_path) == 16
    assert memory_limit(tmp_path) == 32 * GIB


def test_version_2_inside_a_container(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
        },
    )
    assert usable_cores(tmp_path) == 2
    assert memory_limit(tmp_path) == 2 * GIB


def test_version_2_takes_the_tightest_of_all_enclosing_groups(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice/session.scope\n",
            "sys/fs/cgroup/user.slice/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/user.slice/memory.max": f"{3 * GIB}\n",
            "sys/fs/cgroup/user.slice/session.scope/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user.slice/session.scope/memory.max": "max\n",
        },
    )
    assert usable_cores(tmp_path) == 4
    assert memory_limit(tmp_path) == 3 * GIB


def test_version_1(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/kubepods/pod1\n4:cpu,cpuacct:/kubepods/pod1\n1:name=systemd:/\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
        },
    )
    assert usable_cores(tmp_path) == 1
    assert memory_limit(tmp_path) == GIB


def test_version_1_without_limits(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert usable_cores(tmp_path) == 16
    assert memory_limit(tmp_path) == 32 * GIB


def test_a_system_without_proc_falls_back_on_its_physical_memory(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert usable_cores(tmp_path) == 16
    assert memory_used(tmp_path) == 0


def test_memory_used_counts_pages(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/self/statm": "1000 250 30 1 0 99 0\n"})
    assert memory_used(tmp_path) == 250 * os.sysconf("SC_PAGE_SIZE")


def test_the_guard_speaks_before_the_system_kills(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/self/statm": f"1 {2 * GIB // os.sysconf('SC_PAGE_SIZE')} 0 0 0 0 0\n"})
    memory_guard(3 * GIB, tmp_path)()
    with pytest.raises(JobError, match=r"2\.0 GiB of 2\.0 GiB are in use") as caught:
        memory_guard(2 * GIB, tmp_path)()
    assert caught.value.exit_code is ExitCode.TOO_BIG_FOR_LOCAL

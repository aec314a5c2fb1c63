"""Disks that are full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A disk of that size, such as `600k`, at a new folder; skips where mounting is not allowed, as it is to root."""
    folder.mkdir()
    command = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounts a file system, which is not allowed here: it takes root")
    try:
        yield folder
    finally:
        # Lazily: a process that is about to end may still have a file open there.
        subprocess.run([shutil.which("umount") or "umount", "--lazy", folder], check=True)


@contextmanager
def filled(disk: Path, all_but: int = 0) -> Iterator[None]:
    """Leave no room on a disk, or about that many bytes."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        os.truncate(ballast, ballast.stat().st_size - all_but)
        assert shutil.disk_usage(disk).free <= all_but + 4096
        yield
    finally:
        ballast.unlink(missing_ok=True)

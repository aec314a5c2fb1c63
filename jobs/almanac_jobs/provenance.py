"""What computed a run: versions of what could change its bytes, and the revision of this code."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

REVISION = "ALMANAC_GIT_REVISION"
"""Environment variable with the revision that an image was built from."""


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that compute and write."""
    found = {"python": platform.python_version()}
    for name in ("almanac", "numpy", "pyarrow"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def git_revision(folder: Path = Path(__file__).parent) -> str | None:
    """The commit that this code is of, as the environment or pip says, or of the checkout that `folder` is in.

    `-dirty` is appended if the checkout has changes. None if nobody knows.
    """
    return os.environ.get(REVISION) or _installed() or _checked_out(folder)


def _installed() -> str | None:
    """What pip wrote down where it installed from a repository (PEP 610)."""
    try:
        origin = json.loads(distribution("almanac").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    revision: str | None = origin.get("vcs_info", {}).get("commit_id")
    return revision


def _checked_out(folder: Path) -> str | None:
    # An environment may lie inside of another project's checkout, whose revision says nothing of this code.
    tracked = _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
    return tracked and _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None if it fails, takes too long or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - git is wherever it is
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

"""The revision of the code that computed a run: never that of somebody else's checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy
import pytest

from almanac_jobs import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_versions() -> None:
    assert provenance.versions().keys() == {"almanac", "numpy", "pyarrow", "python"}
    assert provenance.versions()["numpy"] == numpy.__version__


def test_the_environment_knows_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(provenance.REVISION, "abc")
    assert provenance.git_revision() == "abc"


def test_a_checkout_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(provenance.REVISION, raising=False)
    assert provenance.git_revision(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    file = tmp_path / "package" / "provenance.py"
    file.parent.mkdir()
    file.write_text("1")
    assert provenance.git_revision(file.parent) is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    git(tmp_path, "tag", "v1")
    revision = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.git_revision(file.parent) == revision
    file.write_text("2")
    assert provenance.git_revision(file.parent) == f"{revision}-dirty"
    assert provenance.git_revision(tmp_path) is None

"""Rules of the house that no other tool checks."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("root", ["operator", "jobs"])
def test_source_roots_are_no_packages(root: str) -> None:
    assert not list((ROOT / root).glob("*.py")), f"{root}/ is a source root: as a package it would shadow other modules"


def test_no_module_is_named_operator() -> None:
    named = [path for folder in ("operator", "jobs", "tests") for path in (ROOT / folder).rglob("operator.py")]
    assert not named, "it would shadow the standard library's"


def test_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## \[(Unreleased|{re.escape(version)})\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_constraints_agree() -> None:
    """What runs a job on this machine is tested at the same versions as everything else."""
    pinned = [
        {line.rstrip(" \\") for line in (ROOT / name).read_text().splitlines() if re.match(r"[a-z0-9]", line)}
        for name in ("constraints-local.txt", "constraints.txt")
    ]
    assert pinned[0] <= pinned[1]

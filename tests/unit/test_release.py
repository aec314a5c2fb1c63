"""What a release relies on: pinned versions that agree, and a changelog that knows the version."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def pinned(name: str) -> set[str]:
    """Each `package==version ; marker` of a constraints file, without its hashes."""
    return {line.rstrip(" \\") for line in (ROOT / name).read_text().splitlines() if re.match(r"[a-z0-9]", line)}


def test_what_runs_a_job_is_tested_at_the_same_versions() -> None:
    assert pinned("constraints-local.txt") <= pinned("constraints.txt")


def test_constraints_hold_hashes_and_no_addresses() -> None:
    for file in ROOT.glob("constraints*.txt"):
        text = file.read_text()
        assert "://" not in text
        assert len(re.findall(r"^[a-z0-9].* \\\n    --hash=sha256:", text, re.MULTILINE)) == len(pinned(file.name)) > 0


def test_the_changelog_knows_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"^## \[(Unreleased|{re.escape(version)})\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

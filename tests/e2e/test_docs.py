"""What pages tell a reader to type on this machine, typed: it works, and prints what they show.

The data are those of `make demo`, since what pages show was printed by them. Commands for a cluster are left out: what
they take is checked in tests/unit/test_docs.py. Of `almanac submit` the job is run here instead, as a driver would.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import programs
from pages import ROOT, Block, Command, blocks, called, commands
from s3 import S3Server

DATA = ROOT / "data/cdnow"
WALKED = ("README.md", "docs/laptop.md", "docs/tutorial.md")
"""Pages whose commands can be typed one after the other."""
HERE = {"run", "show", "validate"}
"""Commands of almanac's that need no cluster."""
ALMANAC = ".venv/bin/almanac"
DEMO = f"{ALMANAC} run -f examples/cdnow.yaml"
"""What `make demo` does once all is installed and fetched."""
ENDPOINT, IN_CLUSTER = "http://localhost:9000", "http://s3.default.svc:9000"
"""The tutorial's S3 server, as this machine and as pods reach it."""
VARYING = (
    (re.compile(r"\s+"), " "),
    (re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}"), "RUN"),
    (re.compile(r"in [\d.]+ s, [\d ]+ a second"), "in TIME"),
)
"""How wide the terminal is, and what differs from run to run."""


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.mark.skipif(not (DATA / "_SUCCESS").is_file(), reason="needs the data of `make demo`")
@pytest.mark.parametrize("page", WALKED)
def test_a_page_can_be_followed(page: str, tmp_path: Path, s3: S3Server) -> None:
    clone = _clone(tmp_path / "clone")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ALMANAC_"))}
    environment["PATH"] = os.pathsep.join([str(_tools(tmp_path / "bin")), environment["PATH"]])
    typed, told = 0, ""
    for block in blocks(page=ROOT / page):
        block = replace(block, text=block.text.replace(ENDPOINT, s3.endpoint).replace(IN_CLUSTER, s3.endpoint))
        if block.title:
            (clone / block.title).write_text(block.text, encoding="utf-8")
        if block.text.startswith("✓"):  # what the command before has printed
            assert _steady(block.text) in _steady(told), (block.place, told)
        for line, command in _typed(block):
            if line.startswith("export "):
                environment |= dict(re.findall(r"(\w+)=(\S+)", line))
                continue
            made = subprocess.run(
                [programs.found("bash"), "-o", "pipefail", "-c", line],
                cwd=clone,
                env=environment,
                capture_output=True,
                text=True,
            )
            typed, told = typed + 1, made.stdout + made.stderr
            assert (made.returncode != 0) is command.output.startswith("error:"), (block.place, line, told)
            assert _steady(command.output) in _steady(told), (block.place, line, told)
    assert typed > 2


def _clone(folder: Path) -> Path:
    """What a clone has after `make demo`: examples, an environment, data, and the result."""
    folder.mkdir()
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "data").mkdir()
    (folder / "data/cdnow").symlink_to(DATA)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def _tools(folder: Path) -> Path:
    """What a reader has on the PATH, which almanac is not."""
    folder.mkdir()
    (folder / "kubectl").symlink_to(programs.found("kubectl"))
    return folder


def _typed(block: Block) -> Iterator[tuple[str, Command]]:
    """What of a block can be done here: lines for a shell, with the command that they come from."""
    if block.language == "python":
        yield f".venv/bin/python - <<'END'\n{block.text}\nEND", Command(block, "")
    for command in commands(block):
        calls = [called(words) for words in command.parts()]
        if command.line == "make demo":
            yield DEMO, command
        elif all(_is_here(call) for call in calls):
            yield command.line, command
        elif command.line.startswith(f"{ALMANAC} submit "):
            yield command.line.replace(" submit ", " run ").replace(" --wait", ""), command


def _is_here(program: list[str]) -> bool:
    match program:
        case ["almanac", name, *_]:
            return name in HERE
        case ["kubectl", "kustomize", *_] | ["export" | "cp" | "python", *_]:
            return True
        case _:
            return False


def _steady(text: str) -> str:
    for pattern, word in VARYING:
        text = pattern.sub(word, text)
    return text.strip()

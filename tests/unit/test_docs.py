"""What the documentation shows can be done: commands with their options, parts of jobs, Python, links."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from almanac.api import AnomalyJob, ForecastJob, Job
from almanac.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md"])
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
CALL = re.compile(r"(?:^|[|&$] )(?:kubectl )?almanac ([^|&#)>\n]*)", re.MULTILINE)
SUBSTITUTED = re.compile(r'"\$\(([^)]*)\)"')
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """Every fenced block in one of the languages: where it stands, and what it says."""
    for page in PAGES:
        for number, (language, text) in enumerate(FENCED.findall(page.read_text(encoding="utf-8")), start=1):
            if language in languages:
                yield f"{page.relative_to(ROOT)}:{number}", text


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every call of almanac."""
    for place, text in blocks("", "sh", "bash", "console"):
        text = text.replace("\\\n", " ")
        inner = SUBSTITUTED.findall(text)
        for call in CALL.findall("\n".join([SUBSTITUTED.sub("uri", text), *inner])):
            yield place, shlex.split(call)


def described(found: Iterator[tuple[str, Any]]) -> list[Any]:
    return [pytest.param(*one, id=f"{one[0]} {' '.join(one[1])}"[:80]) for one in found]


@pytest.mark.parametrize(("place", "words"), described(commands()))
def test_commands_exist_with_their_options(place: str, words: list[str]) -> None:
    assert isinstance(main, click.Group)
    with main.make_context("almanac", list(words)) as context:
        name, command, rest = main.resolve_command(context, words)
        assert command is not None
        try:
            command.make_context(name, rest, parent=context).close()
        except click.MissingParameter:
            raise
        except click.BadParameter as error:  # a file that is not here
            if "does not exist" not in error.message:
                raise


@pytest.mark.parametrize(("place", "text"), list(blocks("yaml")))
def test_parts_of_jobs_are_valid(place: str, text: str) -> None:
    for document in yaml.safe_load_all(text):
        if "apiVersion" in document or set(document) != {"spec"}:
            continue
        spec = document["spec"]
        kind: type[Job] = AnomalyJob if {"features", "label", "contamination", "explain"} & set(spec) else ForecastJob
        kind.parse(_completed(kind, spec))


def _completed(kind: type[Job], spec: dict[str, Any]) -> dict[str, Any]:
    source = {"uri": "data", "columns": {"entity": "a", "time": "b"} | ({"value": "c"} if kind is ForecastJob else {})}
    least = {"source": source, "output": {"uri": "out"}} | ({"horizon": 1} if kind is ForecastJob else {})
    return {
        "apiVersion": "almanac.dev/v1alpha1",
        "kind": kind.__name__,
        "metadata": {"name": "shown"},
        "spec": least | spec,
    }


@pytest.mark.parametrize(("place", "text"), list(blocks("python")))
def test_python_imports_what_there_is(place: str, text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("almanac"):
            module = importlib.import_module(str(node.module))
            for one in node.names:
                if not hasattr(module, one.name):  # a module within it, which nobody has imported so far
                    importlib.import_module(f"{node.module}.{one.name}")
        elif isinstance(node, ast.Import):
            for one in node.names:
                if one.name.startswith("almanac"):
                    importlib.import_module(one.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", one) for one in HEADING.findall(text)]
    named = set(re.findall(r"\{ *#([\w-]+) *\}", text)) | set(re.findall(r'(?:id|name)="([\w-]+)"', text))
    return named | {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", one.lower()).strip()) for one in plain}


def test_all_of_it_is_looked_at() -> None:
    assert len(list(commands())) > 10
    assert any("/cluster.md" in place for place, _ in commands())
    assert len(list(blocks("python"))) > 3

"""What the documentation shows is there: commands with their options and files, YAML, Python, links."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import helm_python
import pytest
import yaml

from almanac.cli import main
from almanac.crd import RESOURCES
from pages import FENCED, PAGES, PROMPT, ROOT, Command, blocks, called, commands
from tools import chart

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
INLINE = re.compile(r"`(?:kubectl )?(almanac|make) ([^`]+)`")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
EXTRA = re.compile(r"(?:almanac|\.)\[([\w,]+)\]")
OURS = ("benchmarks/", "deploy/", "docs/", "examples/", "helm/", "images/", "tests/", "tools/")
"""Where files are that a clone has. `data/` and `out/` are what commands write."""

COMMANDS = [command for block in blocks() for command in commands(block)]


def almanac(arguments: list[str]) -> None:
    """Its command line takes them, but for files that are not here."""
    assert isinstance(main, click.Group)
    words = ["value" if re.fullmatch(r"[A-Z]+", one) else one for one in arguments]
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


def make(arguments: list[str]) -> None:
    """The Makefile has the target."""
    targets = TARGET.findall((ROOT / "Makefile").read_text())
    assert next(one for one in arguments if "=" not in one) in targets


def helm(arguments: list[str]) -> None:
    """The chart takes the values, from files and from `--set`."""
    values: dict[str, Any] = {}
    for name, value in pairwise(arguments):
        if name in ("-f", "--values"):
            values |= yaml.safe_load((ROOT / value).read_text())
        elif name == "--set":
            values = _set(values, *value.partition("=")[::2])
    if {"helm/almanac", "./almanac-older"} & set(arguments):
        assert chart.render(values)
    else:
        assert not values


def _set(values: dict[str, Any], path: str, value: str) -> dict[str, Any]:
    name, _, rest = path.partition(".")
    return values | {name: _set(values.get(name, {}), rest, value) if rest else yaml.safe_load(value)}


def kubectl(arguments: list[str]) -> None:
    """What is asked for by its kind is ours, or Kubernetes'."""
    verb, *rest = arguments
    ours = {name for kind, one in RESOURCES.items() for name in (kind.lower(), one.plural, one.short)}
    if verb in ("get", "describe", "delete", "annotate", "label"):
        assert rest[0].partition("/")[0] in ours | KUBERNETES, rest[0]


KUBERNETES = {
    *("almanac", "applications", "clusterrole", "clusterrolebinding", "configmap", "crd", "deployment", "job", "lease"),
    *("namespace", "pods"),
}
"""What kubectl calls the category of our kinds, and kinds that are not ours."""


def docker(arguments: list[str]) -> None:
    """Images are built of files that there are."""
    if arguments[0] == "build":
        assert Path(arguments[arguments.index("-f") + 1]).name == "Dockerfile"


def pip(arguments: list[str]) -> None:
    """Almanac has the extras."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for one in arguments:
        for named in EXTRA.findall(one):
            assert set(named.split(",")) <= extras.keys()


def python(arguments: list[str]) -> None:
    """The program is there."""
    assert (ROOT / arguments[0]).is_file()


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "almanac": almanac,
    "make": make,
    "helm": helm,
    "kubectl": kubectl,
    "docker": docker,
    "pip": pip,
    "python": python,
}
OTHERS = {
    *("cp", "curl", "cut", "export", "find", "git", "grep", "sha256sum", "sort", "xargs"),
    *("grype", "jq", "kind", "kustomize", "setup-envtest", "trivy"),
}
"""Programs that are known, and whose arguments nobody checks beyond files."""


@pytest.mark.parametrize("command", [pytest.param(one, id=f"{one.block.place} {one.line}"[:90]) for one in COMMANDS])
def test_commands_exist_with_their_options_and_files(command: Command) -> None:
    for words in command.parts():
        program = called(words)
        if not program:
            continue
        assert program[0] in CHECKS.keys() | OTHERS
        if program[0] in CHECKS:
            CHECKS[program[0]](program[1:])
        for word in program[1:]:
            assert not word.startswith(OURS) or (ROOT / word).exists(), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_the_prose_exist_with_their_options(page: Path) -> None:
    """In the middle of a sentence a command may be without its arguments."""
    assert isinstance(main, click.Group)
    context = click.Context(main)
    targets = TARGET.findall((ROOT / "Makefile").read_text())
    for program, said in INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        words = said.split()
        if program == "make":
            assert words[0] in targets, said
        elif not words[0].startswith("-"):
            command = main.get_command(context, words[0])
            assert command is not None, said
            options = {name for one in command.get_params(click.Context(command)) for name in one.opts}
            assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= options, said


def test_no_command_hides_where_nobody_looks() -> None:
    """Blocks without a language are what is printed, after a prompt or without one."""
    for block in blocks(""):
        for line in block.text.splitlines():
            first = called(line.removeprefix(PROMPT).split() or [""])
            assert line.startswith(PROMPT) or not first or first[0] not in CHECKS, (block.place, line)


def test_a_value_that_the_chart_does_not_have_is_found() -> None:
    with pytest.raises(helm_python.HelmError):
        helm(["install", "almanac", "helm/almanac", "--set", "watch.namespace=finance"])


@pytest.mark.parametrize("block", [pytest.param(one, id=one.place) for one in blocks("python")])
def test_python_imports_what_there_is(block: Any) -> None:
    for node in ast.walk(ast.parse(block.text)):
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


def test_a_reader_of_the_site_finds_every_page() -> None:
    """Each page is in the navigation, and is led to by README.md or by the first page."""
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = set(_leaves(nav))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in PAGES if ROOT / "docs" in page.parents}
    for start, folder in ((ROOT / "README.md", "docs/"), (ROOT / "docs/index.md", "")):
        led = {link.partition("#")[0].removeprefix(folder) for link in LINK.findall(start.read_text())}
        assert not listed - led - {"index.md"}, start


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [leaf for one in (nav.values() if isinstance(nav, dict) else nav) for leaf in _leaves(one)]


def test_all_of_it_is_looked_at() -> None:
    places = {command.block.place.partition(":")[0] for command in COMMANDS}
    assert places >= {"README.md", "docs/laptop.md", "docs/install.md", "docs/reference/cluster.md"}
    assert len(list(blocks("python"))) > 3

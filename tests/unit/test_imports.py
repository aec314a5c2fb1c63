"""What importing the contract costs. Who may import whom is import-linter's to say."""

import re
import sys
import tomllib
from pathlib import Path

import grimp
import pytest


def test_the_contract_costs_pydantic_alone() -> None:
    graph = grimp.build_graph("almanac", include_external_packages=True, cache_dir=None)
    modules = {"almanac.api", *graph.find_descendants("almanac.api")}
    imported = {one.split(".")[0] for module in modules for one in graph.find_modules_directly_imported_by(module)}
    assert imported - {"almanac"} - sys.stdlib_module_names == {"pydantic", "pydantic_core"}
    assert not graph.find_modules_directly_imported_by("almanac")


@pytest.mark.parametrize("command", ["submit", "status", "results", "cancel", "list", "logs", "render"])
def test_the_extra_client_has_what_its_commands_import(command: str) -> None:
    graph = grimp.build_graph("almanac", include_external_packages=True, cache_dir=None)
    needed = {one.split(".")[0] for one in graph.find_upstream_modules(f"almanac.cli.{command}")}
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["client"]
    installed = {re.split(r"\W", one)[0] for one in wanted} | {"yaml", "pydantic_core", "yarl"}  # as pip names them not
    assert needed - {"almanac"} - sys.stdlib_module_names <= installed

"""What importing the contract costs. Who may import whom is import-linter's to say."""

import sys

import grimp


def test_the_contract_costs_pydantic_alone() -> None:
    graph = grimp.build_graph("almanac", include_external_packages=True, cache_dir=None)
    modules = {"almanac.api", *graph.find_descendants("almanac.api")}
    imported = {one.split(".")[0] for module in modules for one in graph.find_modules_directly_imported_by(module)}
    assert imported - {"almanac"} - sys.stdlib_module_names == {"pydantic", "pydantic_core"}
    assert not graph.find_modules_directly_imported_by("almanac")

"""Fixtures that several folders of tests use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a busy one is no failure
settings.load_profile("any machine")

if TYPE_CHECKING:
    from almanac.kubeconfig import Access
    from kube.cluster import Cluster
    from postgres import Server


REAL = bool(os.environ.get("KUBECONFIG") or os.environ.get("KUBEBUILDER_ASSETS"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--any-cluster", action="store_true", help="use the cluster of KUBECONFIG although it is another machine's"
    )
    parser.addoption("--matrix", type=Path, metavar="PAGE", help="write the fault matrix of what ran into this page")
    parser.addoption("--manifests", type=int, default=150, help="how many generated manifests the operator is tried on")


def pytest_configure(config: pytest.Config) -> None:
    import matrix

    config.addinivalue_line("markers", "cell(cell): a cell of the fault matrix that the test shows: see matrix.cell")
    if page := config.getoption("--matrix"):
        config.pluginmanager.register(matrix.Matrix(page))


def pytest_report_header() -> str:
    where = (
        "embedded, and a real one" if REAL else "embedded only; a real one too with KUBECONFIG or KUBEBUILDER_ASSETS"
    )
    return f"Kubernetes API: {where}"


@pytest.fixture(scope="session")
def real_api(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[tuple[Access, bool]]:
    """A real API server, and whether controllers run beside it: see `kube.real`."""
    from kube.real import found, tidy

    with found(tmp_path_factory.mktemp("control-plane"), request.config.getoption("--any-cluster")) as api:
        yield api
        tidy(api[0])


@pytest.fixture(params=["embedded", "real"] if REAL else ["embedded"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A Kubernetes API with the project's kinds and a fresh namespace: see `kube.cluster`.

    Each test runs on the embedded API, and once more on a real one where the environment names one.
    """
    from kube.cluster import embedded
    from kube.real import real

    with ExitStack() as stack:
        made: Any = embedded(tmp_path)
        if request.param == "real":
            made = real(*request.getfixturevalue("real_api"), tmp_path)
        yield stack.enter_context(made)


@pytest.fixture(autouse=True)
def laws(request: pytest.FixtureRequest) -> Iterator[None]:
    """What must hold after every cell of the fault matrix."""
    if not request.node.get_closest_marker("cell"):
        yield
        return
    import laws
    from kube.cluster import Cluster

    names = request.fixturenames
    api = request.getfixturevalue("cluster") if "cluster" in names else None
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in names else None
    yield
    if isinstance(api, Cluster):  # and not one of Spark or Dask
        laws.hold_in_cluster(api)
    if folder is not None:
        laws.hold_in(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL of the tests' own, which logs every statement: see `postgres`."""
    from postgres import server

    try:
        with server("log_statement=all") as found:
            yield found
    except FileNotFoundError as error:
        pytest.skip(str(error))

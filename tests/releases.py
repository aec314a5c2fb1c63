"""Releases of the project, from its history: the chart of each, and its operator as a program.

Each runs with the libraries of this checkout: what tells two releases apart is the project's own code.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import charts
import programs
import rights
from finance import ended
from kube.cluster import Cluster
from kube.real import free_port
from operators import Pages
from tools import chart
from tools.chart import Manifest

ROOT = Path(__file__).parents[1]
STAND_IN = "0759084f69d9e5a2770435502917450b7a73ad94"
"""What counts as the previous release as long as there is none: the first commit whose chart has everything that a
release's has, definitions, rights, network policies, alerts and dashboards.

It is older than the kind ExtractJob and `source.extract`, and than fields of the status that name the run's source and
the reason for its engine. So an upgrade from it brings a kind, fields and rights, and a rollback takes rights away.
"""
_PARTS = ("helm/almanac", "operator", "jobs")


class Program(Pages):
    """An operator in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        super().__init__(port)
        self._process, self._log = process, log

    def stop(self) -> None:
        """Ask it to stop, as a node asks a pod, and wait until it has."""
        self._process.terminate()
        assert self._process.wait(60) == 0, self.said

    @property
    def said(self) -> str:
        """Its log."""
        return self._log.read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Release:
    """A tree of the project's files, installed for one namespace of a cluster."""

    root: Path
    cluster: Cluster
    home: str
    """Namespace of the operator itself."""

    def define(self) -> None:
        """Apply its CustomResourceDefinitions, as its chart has them."""
        for one in self._rendered()["templates/crds.yaml"]:
            self.cluster.define(one)

    def grant(self) -> None:
        """Give its operator the rights that its chart gives it, and no more where another release gave more."""
        rights.grant(self.cluster, self._rendered()["templates/rbac.yaml"])

    @contextmanager
    def operator(self, identity: str) -> Iterator[Program]:
        """Its operator with the environment that its chart gives it, `identity` being the pod's name."""
        made = [one for documents in self._rendered().values() for one in documents]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ALMANAC_"))}
        port, log = free_port(), self.cluster.folder / f"{identity}.log"
        environment = {
            **kept,
            **charts.environment(made),
            "ALMANAC_NAMESPACE": self.home,
            "ALMANAC_IDENTITY": identity,
            "ALMANAC_METRICS_PORT": str(port),
            "KUBECONFIG": str(self.cluster.write_kubeconfig(rights.issued(self.cluster, self.home))),
            "PYTHONPATH": os.pathsep.join(str(self.root / one) for one in ("operator", "jobs")),
        }
        command = [sys.executable, "-c", "from almanac.cli import main; main()", "operator"]
        with ended(command, environment, log) as process:
            program = Program(process, port, log)
            self.cluster.wait(lambda: program.get("metrics"), f"{identity} to answer")
            yield program

    def _rendered(self) -> dict[str, list[Manifest]]:
        values = {"watch": {"namespaces": [self.cluster.namespace]}, "rbac": {"aggregate": False}}
        return chart.render(values, namespace=self.home, chart=self.root / "helm" / "almanac")


def previous(folder: Path) -> Path:
    """The release before this one, as files in a folder: the newest that is tagged, or what stands in for one.

    Skips the test where the project's history does not reach so far back.
    """
    release = _newest_tag() or STAND_IN
    packed = _git("archive", "--format=tar", release, *_PARTS)
    if packed is None:
        pytest.skip(
            f"{release[:12]}, the previous release, is not in this clone's history: git fetch --unshallow --tags"
        )
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _newest_tag() -> str:
    """The newest release that is older than what is checked out."""
    found = _git("describe", "--tags", "--abbrev=0", "--match=v[0-9]*", "HEAD^")
    return found.decode().strip() if found else ""


def _git(*arguments: str) -> bytes | None:
    """What git answers about this checkout; None where it has no answer."""
    done = subprocess.run([programs.found("git"), "-C", str(ROOT), *arguments], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None

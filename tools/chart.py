"""The Helm chart from Python: rendered without a cluster or a network, and with the chart that it depends on.

`python -m tools.chart` writes what the chart takes from elsewhere: the CustomResourceDefinitions of crds/, and the
chart of dask-kubernetes, which ships in its wheel.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "helm" / "almanac"
DEFINITIONS = CHART / "files" / "crds"
NOTES = "almanac/templates/NOTES.txt"

Manifest = dict[str, Any]


def render(
    values: dict[str, Any] | None = None, *, name: str = "almanac", namespace: str = "almanac", chart: Path = CHART
) -> dict[str, list[Manifest]]:
    """The manifests that these values give, by the template that made them; of another version of the chart, if named.

    Raises:
        helm_python.HelmValuesError: for values that the schema refuses.
        helm_python.HelmRenderError: for values that a template refuses.
    """
    rendered = _rendered(values, name, namespace, chart)
    made = {path: [one for one in yaml.safe_load_all(text) if one] for path, text in rendered.items() if path != NOTES}
    return {path.removeprefix("almanac/"): documents for path, documents in made.items() if documents}


def notes(values: dict[str, Any] | None = None) -> str:
    """What `helm install` prints at its end."""
    return _rendered(values, "almanac", "almanac", CHART)[NOTES]


def _rendered(values: dict[str, Any] | None, name: str, namespace: str, folder: Path) -> dict[str, str]:
    """Each template with these values. The chart is loaded anew: rendering drops dependencies that are not enabled."""
    with helm_python.Chart.load(folder) as chart:
        rendered = chart.render(name=name, namespace=namespace, values=values or {})
    return {path: text for path, text in rendered.items() if path == NOTES or path.endswith(".yaml")}


def taken() -> dict[Path, dict[str, bytes]]:
    """The files of the chart that are made, by folder and name."""
    definitions = {path.name: path.read_bytes() for path in sorted((ROOT / "crds").glob("*.yaml"))}
    return {
        DEFINITIONS: definitions | {"kustomization.yaml": _kustomization(definitions).encode()},
        CHART / "charts": dict([dependency()]),
    }


def _kustomization(definitions: Iterable[str]) -> str:
    about = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [*definitions]}
    return f"# For deploy/base. The chart leaves this file out.\n{yaml.safe_dump(about, sort_keys=False)}"


def dependency() -> tuple[str, bytes]:
    """The archive of the chart of dask-kubernetes: its name, and its bytes, which are the same whenever it is made.

    The wheel has the chart as it is before a release: with the version of the release it is the one that is published.
    """
    version = metadata.version("dask-kubernetes")
    name = "dask-kubernetes-operator"
    chart = resources.files("dask_kubernetes") / "operator" / "deployment" / "helm" / name
    folder = Path(str(chart))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    about = yaml.safe_load(files["Chart.yaml"]) | {"version": version, "appVersion": version}
    files["Chart.yaml"] = yaml.safe_dump(about, sort_keys=False).encode()
    files["LICENSE"] = _license().encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return f"{name}-{version}.tgz", gzip.compress(packed.getvalue(), mtime=0)


def _license() -> str:
    found = [one for one in metadata.files("dask-kubernetes") or () if one.name == "LICENSE"]
    return found[0].read_text()


def main() -> None:
    """Write what the chart takes from elsewhere."""
    for folder, files in taken().items():
        for old in folder.glob("*"):
            old.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()

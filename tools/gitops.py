"""How Argo CD and Flux judge the health of jobs, for each kind: `python -m tools.gitops` writes it.

The one rule of each is in deploy/argocd/health.lua and deploy/flux/health.yaml.
"""

from __future__ import annotations

from typing import Any

import yaml

from almanac.api import GROUP, KINDS, VERSION
from tools.chart import ROOT

ARGOCD = ROOT / "deploy" / "argocd"
FLUX = ROOT / "deploy" / "flux"
_HEADER = "# Made by `make chart` from {}.\n"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it is."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def rules() -> dict[str, str]:
    """Flux's expressions: failed and current."""
    read: dict[str, str] = yaml.safe_load((FLUX / "health.yaml").read_text(encoding="utf-8"))
    return read


def files() -> dict[str, str]:
    """The files by their path below deploy/."""
    script = (ARGOCD / "health.lua").read_text(encoding="utf-8")
    settings = {f"resource.customizations.health.{GROUP}_{kind}": script for kind in KINDS}
    checks = [{"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, **rules()} for kind in KINDS]
    labels = {"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-cm", "namespace": "argocd", "labels": labels},
        "data": settings,
    }
    patch = {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"name": "jobs"},
        "spec": {"wait": True, "healthCheckExprs": checks},
    }
    return {
        "argocd/argocd-cm.yaml": _written("health.lua", config_map),
        "argocd/values.yaml": _written("health.lua", {"configs": {"cm": settings}}),
        "flux/kustomization-patch.yaml": _written("health.yaml", patch),
    }


def _written(source: str, document: dict[str, Any]) -> str:
    return _HEADER.format(source) + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120)


def main() -> None:
    """Write them."""
    for path, text in files().items():
        (ROOT / "deploy" / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

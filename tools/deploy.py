"""What deploy/ takes from the Helm chart, for those who use kustomize: `python -m tools.deploy` writes it.

The chart is the one place where the operator's manifests and rights are written down.
"""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from tools import chart
from tools.chart import ROOT, Manifest

FOLDER = ROOT / "deploy"
NAMESPACE = "almanac"
_HEADER = "# Made from helm/almanac by `make chart`.\n"
_OF_HELM = ("helm.sh/chart", "app.kubernetes.io/managed-by")
"""Labels that say who applied an object, or from what."""


def files() -> dict[str, str]:
    """The files made from the chart, by their path below deploy/."""
    everywhere = chart.render({"crds": {"install": False}}, namespace=NAMESPACE)
    somewhere = chart.render({"crds": {"install": False}, "watch": {"namespaces": [NAMESPACE]}}, namespace=NAMESPACE)
    all_of = [one for documents in everywhere.values() for one in documents]
    users = [one for one in all_of if _aggregated(one)]
    rights = [one for one in all_of if _granted(one) and one not in users]
    operator = [one for one in all_of if one not in users and one not in rights and not _hook(one)]
    roles = [one for one in somewhere["templates/rbac.yaml"] if _granted(one) and not _aggregated(one)]
    return {
        "base/operator.yaml": _written(operator),
        "base/users.yaml": _written(users),
        "cluster/rbac.yaml": _written(rights),
        "namespaced/rbac.yaml": _written(roles),
        "tenant/rbac.yaml": _written(map(_placeless, roles)),
    }


def _aggregated(one: Manifest) -> bool:
    return any("/aggregate-to-" in name for name in one["metadata"].get("labels", ()))


def _granted(one: Manifest) -> bool:
    """Whether it is about the operator's rights over jobs."""
    return "Role" in one["kind"] and not one["metadata"]["name"].endswith("-lease")


def _hook(one: Manifest) -> bool:
    return any(name.startswith("helm.sh/hook") for name in one["metadata"].get("annotations", ()))


def _placeless(one: Manifest) -> Manifest:
    """An object whose namespace an overlay gives."""
    return one | {"metadata": {name: value for name, value in one["metadata"].items() if name != "namespace"}}


def _unlabelled(value: object) -> object:
    if isinstance(value, dict):
        return {name: _unlabelled(one) for name, one in value.items() if name not in _OF_HELM}
    return [_unlabelled(one) for one in value] if isinstance(value, list) else value


def _written(documents: Iterable[Manifest]) -> str:
    text = yaml.safe_dump_all(map(_unlabelled, documents), sort_keys=False, allow_unicode=True, width=120)
    return _HEADER + text


def main() -> None:
    """Write them."""
    for path, text in files().items():
        (FOLDER / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

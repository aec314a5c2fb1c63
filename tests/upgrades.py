"""What operators have written: jobs in every state, with status, drivers and pods, as an API would have them.

`PYTHONPATH=tests:. python tests/upgrades.py NAME` writes tests/data/upgrade/NAME.yaml with this version.
Files of older ones stay as they are: every later version has to go on from them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

import raw
from world import World

ROOT = Path(__file__).parent / "data" / "upgrade"
NAMES = sorted(path.stem for path in ROOT.glob("*.yaml"))
EVERYTHING: dict[str, Any] = {
    "horizon": 14,
    "model__family": "ets",
    "intervals": [50, 90],
    "evaluation__windows": 2,
    "storage__secretName": "keys",
    "podTemplate": {"metadata": {"labels": {"team": "finance"}}},
    "ttlSecondsAfterFinished": 7200,
}


def _begin(**spec: Any) -> World:
    world = World(**spec)
    world.settle()
    return world


def _run(**spec: Any) -> World:
    world = _begin(**spec)
    world.pod(**raw.running())
    world.reconcile()
    return world


def _succeed(**spec: Any) -> World:
    world = _run(**spec)
    world.wait(minutes=5)
    world.succeed()
    world.reconcile()
    return world


def _fail() -> World:
    world = _run(backoffLimit=0)
    world.exit(3)
    world.reconcile()
    return world


def _suspend() -> World:
    world = _run()
    world.edit(suspend=True)
    world.settle()
    return world


def _spark() -> World:
    world = _run(engine="spark")
    world.executor("exec-1", **raw.running())
    world.reconcile()
    return world


def _again() -> World:
    world = _succeed()
    world.wait(minutes=5)
    world.edit(restartNonce=1)
    world.settle()
    world.pod(**raw.running())
    world.reconcile()
    return world


STATES: dict[str, Callable[[], World]] = {
    "pending": _begin,
    "running": _run,
    "running, with everything set": lambda: _run(**EVERYTHING),
    "running on Spark": _spark,
    "running again": _again,
    "suspended": _suspend,
    "succeeded": _succeed,
    "succeeded, with a schedule": lambda: _succeed(schedule="@yearly"),
    "failed": _fail,
}


def written() -> dict[str, Any]:
    """All states, as this version has them."""
    return {name: _document(make()) for name, make in STATES.items()}


def _document(world: World) -> dict[str, Any]:
    pods = [*world.pods.values(), *world.workers.values()]
    return {"now": world.now.isoformat(), "job": world.job, "drivers": [*world.drivers.values()], "pods": pods}


def read(name: str) -> dict[str, World]:
    """The states that an operator has left."""
    found = yaml.safe_load((ROOT / f"{name}.yaml").read_text(encoding="utf-8"))
    return {state: _world(document) for state, document in found.items()}


def _world(document: dict[str, Any]) -> World:
    world = World(datetime.fromisoformat(document["now"]))
    world.job = document["job"]
    world.drivers = {one["metadata"]["name"]: one for one in document["drivers"]}
    world.created = [*world.drivers.values()]
    named = {one["metadata"]["name"]: one for one in document["pods"]}
    world.workers = {name: one for name, one in named.items() if "spark-role" in one["metadata"]["labels"]}
    world.pods = {name: one for name, one in named.items() if name not in world.workers}
    return world


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    (name,) = sys.argv[1:]
    ROOT.mkdir(parents=True, exist_ok=True)
    text = yaml.dump(written(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    (ROOT / f"{name}.yaml").write_text(text, encoding="utf-8")

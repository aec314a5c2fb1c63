"""Jobs at moments of their lives, as the API has them: what tools of GitOps judge. Prints them as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import raw
from almanac import crd
from almanac.observed import Progress
from world import World


def moments() -> dict[str, dict[str, Any]]:
    """A job at each moment that differs to those who wait for it."""
    unseen = World()
    schema = crd.definition("ForecastJob")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    unseen.job["status"] = schema["properties"]["status"]["default"]
    pending = World()
    pending.reconcile()
    unschedulable = World()
    unschedulable.reconcile()
    unschedulable.pod(**raw.unschedulable("no node has that much memory"))
    unschedulable.reconcile()
    running = World()
    run(running)
    running.progress = Progress("fit", 62, 100)
    running.reconcile()
    changed = done()
    changed.edit(horizon=7)
    again = done()
    again.edit(horizon=7)
    again.settle()
    suspended = World(suspend=True)
    suspended.reconcile()
    failed = World()
    run(failed)
    failed.exit(65)
    failed.reconcile()
    invalid = World(horizon=0)
    invalid.reconcile()
    deleted = World()
    run(deleted)
    deleted.job["metadata"]["deletionTimestamp"] = "2026-11-21T02:20:00Z"
    scheduled = done(schedule="0 3 * * *")
    return {
        "applied a moment ago": unseen.job,
        "submitted": pending.job,
        "unschedulable": unschedulable.job,
        "running": running.job,
        "succeeded": done().job,
        "scheduled, between runs": scheduled.job,
        "changed a moment ago": changed.job,
        "running again": again.job,
        "suspended": suspended.job,
        "failed": failed.job,
        "invalid": invalid.job,
        "being deleted": deleted.job,
    }


def run(world: World) -> None:
    world.reconcile()
    world.pod(**raw.running())
    world.reconcile()


def done(**spec: Any) -> World:
    world = World(**spec)
    run(world)
    world.wait(minutes=5)
    world.succeed()
    world.reconcile()
    return world


if __name__ == "__main__":
    json.dump(moments(), sys.stdout, indent=2)

"""An operator goes on from what an older one has written, and disturbs nothing: neither forward nor back."""

from __future__ import annotations

from copy import deepcopy

import pytest

import upgrades
from almanac.observed import Extract
from world import World

LEFT = [(name, state) for name in upgrades.NAMES for state in upgrades.STATES]
RUNNING = [one for one in LEFT if one[1].startswith("running")]
SUSPENDED = [one for one in LEFT if one[1] == "suspended"]


def test_there_is_a_file_of_the_first_operator() -> None:
    assert "first" in upgrades.NAMES


def named(left: tuple[str, str]) -> str:
    return ": ".join(left)


@pytest.fixture(params=LEFT, ids=named)
def world(request: pytest.FixtureRequest) -> World:
    """A job as another operator has left it."""
    name, state = request.param
    return upgrades.read(name)[state]


def test_nothing_changes_but_what_a_status_may_say(world: World) -> None:
    """No run begins or ends, no driver is created, deleted or suspended, and nothing is told."""
    phase, reason, run = *world.told, world.status.run
    drivers, pods = deepcopy(world.drivers), set(world.pods)
    created = len(world.created)
    world.settle()
    assert world.told == (phase, reason)
    assert world.status.run == run
    assert (world.drivers, set(world.pods)) == (drivers, pods)
    assert len(world.created) == created
    assert world.events == []


def test_it_looks_once(world: World) -> None:
    """Whatever the status says anew is said in one write."""
    world.settle()
    writes = world.writes
    assert writes <= 1
    world.settle()
    assert world.writes == writes


NEWER = {"dusk": {"workers": 4}, "source": {"tables": []}, "model": {"drift": ""}}
"""Fields that a later version may have, with defaults that an API gives to every job."""


def test_fields_of_a_later_version_disturb_nothing(world: World) -> None:
    """Its CustomResourceDefinitions are there before its operator, and after it, where it is rolled back."""
    before, run = world.told, world.status.run
    world.job["spec"] |= {name: {**world.job["spec"].get(name, {}), **more} for name, more in NEWER.items()}
    created, writes = len(world.created), world.writes
    world.settle()
    assert (world.told, world.status.run, len(world.created)) == (before, run, created)
    assert world.writes <= writes + 1
    assert world.events == []


def test_a_job_with_fields_of_a_later_version_runs() -> None:
    world = World(model__drift="", dusk={"workers": 4})
    world.settle()
    world.succeed()
    world.settle()
    assert world.told == ("Succeeded", "Completed")
    (driver,) = world.created
    (config_map,) = [one for (kind, _), one in world.companions.items() if kind == "ConfigMap"]
    assert driver["metadata"]["name"] == config_map["metadata"]["name"]
    assert not any("dusk" in text or "drift" in text for text in config_map["data"].values())


def test_a_source_that_an_older_operator_has_left_out_of_the_status() -> None:
    """It wrote the status anew while it was there. The driver says which run of the extract is read."""
    columns = {"entity": "account", "time": "date", "value": "amount"}
    world = World(source={"extract": {"name": "entries"}, "columns": columns})
    world.extract = Extract("Succeeded", "s3://ledger/extracts/runs/first")
    world.settle()
    del world.job["status"]["run"]["source"]
    world.extract = Extract("Succeeded", "s3://ledger/extracts/runs/second")
    world.settle()
    assert world.status.run is not None
    assert world.status.run.source == "s3://ledger/extracts/runs/first"


@pytest.mark.parametrize("world", RUNNING, ids=named, indirect=True)
def test_what_runs_comes_to_its_end(world: World) -> None:
    run = world.status.run
    world.succeed()
    world.settle()
    assert world.told == ("Succeeded", "Completed")
    assert run is not None
    assert world.status.run is not None
    assert world.status.run.id == run.id
    assert world.status.history[0].id == run.id


@pytest.mark.parametrize("world", SUSPENDED, ids=named, indirect=True)
def test_what_is_suspended_goes_on(world: World) -> None:
    run = world.status.run
    world.edit(suspend=False)
    world.settle()
    assert world.told[0] == "Pending"
    assert run is not None
    assert world.status.run is not None
    assert world.status.run.id == run.id

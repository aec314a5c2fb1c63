"""An operator goes on from what an older one has written, and disturbs nothing: neither forward nor back."""

from __future__ import annotations

from copy import deepcopy

import pytest

import upgrades
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

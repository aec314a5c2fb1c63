from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any

from almanac.cluster import ApiError
from almanac.leader import Election, Timing

FAST = Timing(duration=1, deadline=0.3, interval=0.02)


class Leases:
    """One Lease, as an API server keeps it; `down` is an outage."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False

    async def get(self, *_: object) -> dict[str, Any]:
        self._check()
        if self.lease is None:
            raise ApiError(404, "NotFound", "no such lease")
        return deepcopy(self.lease)

    async def post(self, resource: object, namespace: str, document: dict[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "there is one")
        self.lease = deepcopy(document) | {"metadata": document["metadata"] | {"resourceVersion": "1"}}
        return deepcopy(self.lease)

    async def replace(self, resource: object, namespace: str, name: str, document: dict[str, Any]) -> dict[str, Any]:
        self._check()
        assert self.lease is not None
        version = self.lease["metadata"]["resourceVersion"]
        if document["metadata"]["resourceVersion"] != version:
            raise ApiError(409, "Conflict", "it has changed")
        metadata = document["metadata"] | {"resourceVersion": str(int(version) + 1)}
        self.lease = deepcopy(document) | {"metadata": metadata}
        return deepcopy(self.lease)

    @property
    def version(self) -> int:
        return int(self.lease["metadata"]["resourceVersion"]) if self.lease else 0

    def _check(self) -> None:
        if self.down:
            raise ApiError(0, "Unreachable", "nobody is there")


class Candidate:
    def __init__(self, leases: Leases, name: str) -> None:
        self.election = Election(leases, "almanac", "lease", name, FAST)  # type: ignore[arg-type]
        self.leads = self.outdated = False
        self.task = asyncio.create_task(self.election.run(self.won, self.lost, self.older))

    def won(self) -> None:
        self.leads = True

    def lost(self) -> None:
        self.leads = False

    def older(self) -> None:
        self.outdated = True

    async def die(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def test_one_leads_and_another_takes_over_when_it_dies() -> None:
    async def main() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await eventually(lambda: first.leads)
        second = Candidate(leases, "second")
        await asyncio.sleep(0.1)
        assert not second.leads
        await first.die()
        await eventually(lambda: second.leads)
        assert leases.lease is not None
        assert leases.lease["spec"]["holderIdentity"] == "second"
        assert leases.lease["spec"]["leaseTransitions"] == 2
        await second.die()

    asyncio.run(main())


def test_a_leader_that_stops_lets_go_at_once() -> None:
    async def main() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await eventually(lambda: first.leads)
        await first.die()
        await first.election.release()
        assert leases.lease is not None
        assert leases.lease["spec"]["holderIdentity"] == ""
        await first.election.release()  # nothing is left to release

    asyncio.run(main())


def test_a_leader_that_cannot_renew_stops_to_act_and_leads_again_after_the_outage() -> None:
    async def main() -> None:
        leases = Leases()
        only = Candidate(leases, "only")
        await eventually(lambda: only.leads)
        leases.down = True
        await eventually(lambda: not only.leads)
        leases.down = False
        await eventually(lambda: only.leads)
        await only.die()

    asyncio.run(main())


def test_a_leader_whose_lease_another_took_stops_to_act() -> None:
    async def main() -> None:
        leases = Leases()
        only = Candidate(leases, "only")
        await eventually(lambda: only.leads)
        assert leases.lease is not None
        spec = leases.lease["spec"] | {"holderIdentity": "thief", "renewTime": "2026-01-01T00:00:00.000000Z"}
        leases.lease = {**leases.lease, "spec": spec, "metadata": {**leases.lease["metadata"], "resourceVersion": "99"}}
        await eventually(lambda: not only.leads)
        await only.die()

    asyncio.run(main())


def test_many_candidates_have_one_leader() -> None:
    async def main() -> None:
        leases = Leases()
        all_ = [Candidate(leases, f"candidate {number}") for number in range(8)]
        await eventually(lambda: any(one.leads for one in all_))
        await asyncio.sleep(0.2)
        assert sum(one.leads for one in all_) == 1
        for one in all_:
            await one.die()

    asyncio.run(main())


def test_whoever_takes_part_sees_that_the_lease_is_older_than_it_was() -> None:
    """Versions only rise, unless the whole cluster is put back to what it was."""

    async def main() -> None:
        leases = Leases()
        first = Candidate(leases, "first")
        await eventually(lambda: first.leads)
        backup = deepcopy(leases.lease)
        second = Candidate(leases, "second")
        assert backup is not None
        await eventually(lambda: leases.version > int(backup["metadata"]["resourceVersion"]) + 20)
        assert [first.outdated, second.outdated] == [False, False]
        leases.lease = backup
        await eventually(lambda: first.outdated and second.outdated)
        await asyncio.gather(first.die(), second.die())

    asyncio.run(main())

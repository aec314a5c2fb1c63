"""Whatever a job holds, the operator decides something about it and says so: the pure part, without an API."""

import json
from itertools import islice
from typing import Any

import jsonschema
import pytest

import goldens
from almanac import crd, nesting
from almanac.store import Key, Store
from hostile import manifests, wire
from world import World

Raw = dict[str, Any]

STATUS = crd.definition("ForecastJob")["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]


def as_read(manifest: Any) -> Raw:
    """A manifest as it is read from an API that checks nothing: what every object of the API has is right."""
    read = json.loads(nesting.cut(wire(manifest)))
    read = read if isinstance(read, dict) else {"spec": read}
    metadata = read.get("metadata") if isinstance(read.get("metadata"), dict) else {}
    ours = {"name": "ledger", "namespace": "default", "uid": goldens.UID, "generation": 1, "resourceVersion": "1"}
    kept = {name: one for name, one in metadata.items() if name not in ("deletionTimestamp", "finalizers")}
    return read | {"apiVersion": "almanac.dev/v1alpha1", "kind": "ForecastJob", "metadata": kept | ours}


@pytest.mark.parametrize("seed", range(2))
def test_every_manifest_gets_a_status(seed: int) -> None:
    for manifest in islice(manifests(seed, largest=200_000), 150):
        world, store = World(), Store()
        world.job = as_read(manifest)
        assert store.put(world.job) == Key("ForecastJob", "default", "ledger")
        world.settle()
        status = world.job["status"]
        assert len(status["conditions"]) == 6
        assert (world.status.phase, status["observedGeneration"]) == (status["phase"], 1)
        jsonschema.Draft4Validator(STATUS).validate(status)
        for one in (world.job, *world.created, *world.companions.values()):
            json.dumps(one)
        if not world.created:
            assert world.told[0] in ("Failed", "Suspended") or world.told[1] == "WaitingForExtract"
            assert world.condition("Ready").message

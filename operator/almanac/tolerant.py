"""Reading what another version may have written: what cannot be understood is left out, the rest counts.

Jobs are read strictly, but for fields of a newer version (`resource.read_job`). Statuses and reports are not: an
operator that was upgraded or rolled back, or a driver of another version, must not lose a result over a field that it
does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, TypeVar

from pydantic import ValidationError

from almanac.api.model import Model

Read = TypeVar("Read", bound=Model)

_PASSES = 100


def tolerant(model: type[Read], document: object) -> Read | None:
    """The model of what is right of a document; None where too little of it is."""
    if not isinstance(document, Mapping):
        return None
    kept: dict[str, Any] = deepcopy(dict(document))
    for _ in range(_PASSES):
        try:
            return model.parse(kept)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            location = first["loc"][:-1] if first["type"] == "missing" else first["loc"]
            if not drop(kept, location):
                return None
    return None


def drop(document: Any, location: tuple[str | int, ...]) -> bool:
    """Take the innermost part of a document that a location leads to out of it; False if there is none."""
    place, found = document, None
    for step in location:
        try:
            inside = place[step]
        except (KeyError, IndexError, TypeError):
            break
        place, found = inside, (place, step)
    if found is None:
        return False
    del found[0][found[1]]
    return True

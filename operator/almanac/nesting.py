"""JSON that is nested almost without end, cut to a depth that can be read.

An API server takes objects of ten thousand levels. Python's parser gives up after some thousands or hundreds, by its
version, and who cannot read one object of a list cannot read the list: one job would blind the operator to all. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

DEEPEST = 200
"""Levels of JSON that are read. What lies deeper is null."""
LEVELS = 100
"""Levels that a job may have. More, and it is refused, whether it was cut or not."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN = re.compile(_STRING.pattern + rb"|[][{}]", re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def cut(text: bytes) -> bytes:
    """JSON without what lies deeper than `DEEPEST` levels; itself, where nothing does."""
    return text if _is_shallow(text) else _cut(text)


def _is_shallow(text: bytes) -> bool:
    """Whether nothing lies too deep: each pass takes the innermost brackets away."""
    if text.count(b"{") + text.count(b"[") <= DEEPEST:
        return True
    brackets = _STRING.sub(b"", text).translate(None, _NO_BRACKETS)
    for _ in range(DEEPEST):
        if not brackets:
            return True
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    return not brackets


def _cut(text: bytes) -> bytes:
    kept: list[bytes] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth == DEEPEST + 1:
                kept += (text[start : token.start()], b"null")
        elif token[0] in (b"}", b"]"):
            if depth == DEEPEST + 1:
                start = token.end()
            depth -= 1
    return b"".join((*kept, text[start:]))


def too_deep(value: object, levels: int = LEVELS) -> tuple[str | int, ...] | None:
    """Where a value lies deeper than so many levels; None where nothing does."""
    if isinstance(value, Mapping):
        inside: Sequence[tuple[str | int, object]] = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    else:
        return None
    if levels == 0:
        return ()
    return next(((step, *further) for step, one in inside if (further := too_deep(one, levels - 1)) is not None), None)

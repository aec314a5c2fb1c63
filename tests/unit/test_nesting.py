"""JSON that is nested almost without end: cut to what can be read, and found."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from almanac.nesting import DEEPEST, cut, too_deep

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(alphabet='a"\\[{]}', max_size=3), inside),
    max_leaves=20,
)


def nested(levels: int, opening: str = '{"a":', closing: str = "}", inside: str = "1") -> bytes:
    return f"{opening * levels}{inside}{closing * levels}".encode()


@given(values, st.integers(0, DEEPEST - 10))
def test_what_can_be_read_is_left_as_it_is(value: Any, levels: int) -> None:
    text = nested(levels, "[", "]", json.dumps(value))
    assert cut(text) is text


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]"), ('{"]":', "}"), ('{"}\\"":[1,', ",{}]}")])
def test_what_lies_too_deep_is_null(opening: str, closing: str) -> None:
    text = b'{"before": [1], "deep": %s, "after": "x"}' % nested(5_000, opening, closing)
    read = json.loads(cut(text))
    assert (read["before"], read["after"]) == ([1], "x")
    depth = 0
    inside = read
    while inside is not None:
        depth += 1
        inside = (
            inside["deep"]
            if "deep" in inside
            else next((one for one in (inside.values() if isinstance(inside, dict) else inside) if one != 1), None)
        )
    assert depth == DEEPEST


def test_many_brackets_side_by_side_are_not_deep() -> None:
    text = json.dumps([{"a": ["}", "]]]", {"{": "\\"}]}] * 500).encode()
    assert cut(text) is text


def test_where_it_is_too_deep() -> None:
    deep = json.loads(nested(50))
    assert too_deep(deep, 50) is None
    assert too_deep(deep, 49) == ("a",) * 49
    assert too_deep({"x": 1, "y": [2, deep]}, 3) == ("y", 1, "a")

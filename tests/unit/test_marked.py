"""YAML with lines: values as Kubernetes reads them, the lines as PyYAML marks them, and what no manifest may hold."""

import json
from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from almanac import marked

# No lone surrogates, which no UTF-8 file holds; no control characters; nothing that ends a line in YAML alone.
CONTROL = "".join(map(chr, range(0x7F, 0xA0)))
LETTERS = st.characters(exclude_categories=["Cs", "Cn"], exclude_characters=CONTROL + "\u2028\u2029\ufeff")
TEXT = st.text(LETTERS, max_size=9)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(10**18), 10**18), TEXT)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


class QuotingDumper(yaml.SafeDumper):
    """Writes every string in quotes: PyYAML leaves `y` and `n` without, which Kubernetes takes for booleans."""


QuotingDumper.add_representer(
    str, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:str", value, style='"')
)


def only(text: str) -> marked.Node:
    (parsed,) = marked.read(text)
    assert parsed.node is not None
    assert not parsed.faults
    return parsed.node


def faults(text: str) -> list[tuple[int, str]]:
    return [(fault.line, fault.message) for parsed in marked.read(text) for fault in parsed.faults]


@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4))
def test_reads_what_others_write(value: dict[str, Any]) -> None:
    assert only(json.dumps(value, ensure_ascii=False)).value == value
    assert only(json.dumps(value, ensure_ascii=False, indent="\t")).value == value
    assert only(yaml.dump(value, Dumper=QuotingDumper)).value == value
    assert only(yaml.dump(value, Dumper=QuotingDumper, default_flow_style=True, allow_unicode=True)).value == value


@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4))
def test_lines_are_those_of_pyyaml(value: dict[str, Any]) -> None:
    text = yaml.dump(value, Dumper=QuotingDumper)
    root = yaml.compose(text, yaml.SafeLoader)
    found = only(text)
    assert isinstance(root, yaml.MappingNode)
    for key, child in root.value:
        line, node = found.find((key.value,))
        assert (line, node.line) == (key.start_mark.line + 1, child.start_mark.line + 1)
        if isinstance(child, yaml.SequenceNode):
            for index, item in enumerate(child.value):
                assert found.find((key.value, index))[1].line == item.start_mark.line + 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("on", True),
        ("y", True),
        ("N", False),
        ("off", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("none", "none"),
        ("012", 10),
        ("0o12", 10),
        ("0x1F", 31),
        ("0b11", 3),
        ("1_000", 1000),
        ("-7", -7),
        ("08", 8.0),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        (".inf", float("inf")),
        ("2024-01-31", "2024-01-31"),
        ("12:30:00", "12:30:00"),
        ("1.2.3", "1.2.3"),
        ("0x", "0x"),
        ("'yes'", "yes"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("|\n  yes", "yes"),
    ],
)
def test_scalars_are_what_kubernetes_takes_them_for(text: str, value: Any) -> None:
    found = only(f"a: {text}").value["a"]
    assert (found, type(found)) == (value, type(value))


def test_a_number_of_any_length_is_one() -> None:
    assert only("a: " + "9" * 9000).value == {"a": float("inf")}


def test_documents() -> None:
    assert [parsed.node.value for parsed in marked.read("a: 1\n---\n---\n# nothing\n---\n[1]\n") if parsed.node] == [
        {"a": 1},
        [1],
    ]
    assert marked.read("") == marked.read("# nothing\n") == ()
    first, second = marked.read("a: 1\n---\nb: [\n")
    assert first.node is not None
    assert not first.faults
    assert second.node is None
    assert len(second.faults) == 1


def test_a_byte_order_mark_is_nothing() -> None:
    assert only("\ufeffa: 1").value == {"a": 1}


def test_aliases_are_the_same_value_and_merges_fill_in() -> None:
    node = only("base: &base {p: 1, q: 2}\nsame: *base\nmore:\n  <<: *base\n  q: 3\nboth:\n  <<: [{p: 5}, *base]\n")
    assert node.value["same"] == {"p": 1, "q": 2}
    assert node.value["more"] == {"p": 1, "q": 3}
    assert node.value["both"] == {"p": 5, "q": 2}
    assert node.find(("same",))[0] == 2
    assert node.find(("more", "q"))[0] == 5
    assert node.find(("more", "p"))[0] == 1


def test_find_stops_at_what_is_there() -> None:
    node = only("a:\n  b:\n    - 1\n    - c: 2\n")
    assert node.find(("a", "b", 1, "c"))[0] == 4
    assert node.find(("a", "b", 7))[0] == 2
    assert node.find(("a", "x", "y"))[0] == 1
    assert node.find(())[1] is node


def test_an_alias_bomb_does_not_go_off() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, name in pairwise("abcdefghi"):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    assert faults(bomb) == [(5, "holds more than 100,000 values, with its aliases written out")]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, "is given twice, first on line 1"),
        ("on: 1", 1, "a name must be a string: YAML reads on as true, put the name into quotes"),
        ("a:\n  N: 1", 2, "YAML reads N as false"),
        ("a:\n  1: 1", 2, "YAML reads 1 as a number"),
        ("a:\n  ~: 1", 2, "YAML reads ~ as null"),
        ("[1, 2]: 1", 1, "is a list or a mapping"),
        ("a: !include x", 1, "has the tag !include"),
        ("a: !!binary x", 1, "has the tag !!binary"),
        ("a: &x [*x]", 1, "the alias *x stands for itself"),
        ("a: *x", 1, "the alias *x stands for nothing"),
        ("a: 1\nb:\n\tc: 1", 3, "a tab indents this line"),
        ("a: b: c", 1, "a colon where none can be"),
        ("a: [1, 2", 1, "is not valid YAML"),
        ("a: {{ .Values.x }}", 1, "a name must be a string"),
        ("a: 1\nb: \x00", 2, "control character"),
        ("a: <<\n<<: 3", 2, "<< must stand before a mapping"),
        ("[" * 5000, 1, "is nested more than 64 levels deep"),
        ("a: " + "{b: " * 5000, 1, "is nested more than 64 levels deep"),
    ],
)
def test_faults(text: str, line: int, words: str) -> None:
    found = faults(text)
    assert found[0][0] == line
    assert words in found[0][1]


@given(st.text(alphabet=" \n\t:-[]{}&*!|>'\"#%@,?ab1~<.", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parsed in marked.read(text):
        assert parsed.node is not None or parsed.faults

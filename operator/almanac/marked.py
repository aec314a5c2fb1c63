"""YAML (and JSON, which is YAML too) to plain values that remember their lines. Reads text; knows nothing of jobs.

Values are what Kubernetes makes of the same text (YAML 1.1 as Go's parser has it: `on` and `N` are booleans, dates are
strings). What a manifest must not hold is a fault with its line: a name given twice, a name that is no string, tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Step = str | int
Location = tuple[Step, ...]

MAX_VALUES = 100_000
"""Values that one document may hold, with every alias written out."""
MAX_DEPTH = 64

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"})
_FALSE = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*|0[0-7_]+|0o[0-7]+|0x[0-9a-fA-F]+|0b[01]+)")
_LONGEST_INTEGER = 64  # digits; a longer number is a float
_FLOAT = re.compile(r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in the text that no manifest may hold."""

    line: int
    location: Location
    message: str


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the line that it starts on. `plain` is its text where that, unquoted, is no string.

    `children` are the nodes inside, with the line of the key (or of the item).
    """

    value: Any
    line: int
    size: int = 1
    plain: str | None = None
    children: dict[Step, tuple[int, Node]] = field(default_factory=dict)

    def find(self, location: Location) -> tuple[int, Node]:
        """The line of the key and the node at `location`, or of the nearest one that leads to it."""
        line, node = self.line, self
        for step in location:
            if step not in node.children:
                break
            line, node = node.children[step]
        return line, node


@dataclass(frozen=True, slots=True)
class Parsed:
    """One document of a text, with its faults. `node` is None where it could not be read to its end."""

    node: Node | None
    faults: tuple[Fault, ...] = ()


class _UnreadableError(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def read(text: str) -> tuple[Parsed, ...]:
    """Every document of `text`. Documents that hold nothing are left out; one that cannot be read is the last."""
    builder = _Builder()
    parsed: list[Parsed] = []
    try:
        for node in builder.documents(text):
            parsed.append(Parsed(node, tuple(builder.faults)))  # noqa: PERF401 - what came before a fault counts
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # What is missing at the end of a text is missing on its last line.
        line = min(mark.line + 1 if mark else 1, max(1, len(text.splitlines())))
        fault = Fault(line, (), _syntax(error, text, line))
    except yaml.reader.ReaderError as error:
        fault = Fault(text.count("\n", 0, error.position) + 1, (), "is not text: it holds a control character")
    except _UnreadableError as error:
        fault = Fault(error.line, (), error.message)
    else:
        return tuple(parsed)
    return (*parsed, Parsed(None, (*builder.faults, fault)))


def scalar(text: str) -> Any:
    """What a plain (unquoted) scalar stands for."""
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) <= _LONGEST_INTEGER and _INTEGER.fullmatch(text):
        return _integer(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return float(text.replace(".", "", 1)) if _SPECIAL.fullmatch(text) else text


def _integer(text: str) -> int:
    sign, digits = (-1 if text.startswith("-") else 1), text.lstrip("+-")
    if re.fullmatch(r"0[0-7]+", digits):
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def _syntax(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    if line <= len(lines) and lines[line - 1].lstrip(" ").startswith("\t"):
        return "is not valid YAML: a tab indents this line, write blanks"
    problem = error.problem or error.context or ""
    return f"is not valid YAML: {_ADVICE.get(problem, problem)}"


_ADVICE = {
    "mapping values are not allowed in this context": "a colon where none can be: check the indentation, and put a "
    "value that holds a colon into quotes",
    "did not find expected node content": "something is missing before this place, a value or a closing bracket",
}


class _Builder:
    """Builds nodes from the parser's events, without expanding aliases: an alias is the same node once more."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        """Faults of the document that was built last."""
        self._events: Iterator[Any] = iter(())
        self._anchors: dict[str, Node | None] = {}

    def documents(self, text: str) -> Iterator[Node]:
        self._events = yaml.parse(text, Loader=_LOADER)
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.faults, self._anchors = [], {}
                node = self._node(next(self._events), ())
                if node.value is not None:
                    yield node

    def _node(self, event: Any, location: Location) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(str(event.anchor))
            if known is None:
                message = f"the alias *{event.anchor} stands for " + (
                    "itself" if event.anchor in self._anchors else "nothing"
                )
                raise _UnreadableError(line, message)
            return known
        if len(location) > MAX_DEPTH:
            raise _UnreadableError(line, f"is nested more than {MAX_DEPTH} levels deep")
        if event.anchor:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, line, location)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, line, location)
        else:
            node = self._mapping(event, line, location)
        if node.size > MAX_VALUES:
            raise _UnreadableError(line, f"holds more than {MAX_VALUES:,} values, with its aliases written out")
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _scalar(self, event: Any, line: int, location: Location) -> Node:
        tag = event.tag
        if tag == "tag:yaml.org,2002:str" or (tag in (None, "!") and not event.implicit[0]):
            return Node(event.value, line)
        if tag is not None:
            self._refuse_tag(event, line, location)
        value = scalar(event.value)
        return Node(value, line, plain=None if isinstance(value, str) else event.value)

    def _sequence(self, event: Any, line: int, location: Location) -> Node:
        self._refuse_tag(event, line, location)
        children: dict[Step, tuple[int, Node]] = {}
        size = 1
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            item = self._node(event, (*location, len(children)))
            children[len(children)] = (event.start_mark.line + 1, item)
            size = self._grown(size, item, event)
        return Node([node.value for _, node in children.values()], line, size, None, children)

    def _mapping(self, event: Any, line: int, location: Location) -> Node:
        self._refuse_tag(event, line, location)
        children: dict[Step, tuple[int, Node]] = {}
        merged: dict[Step, tuple[int, Node]] = {}
        size = 1
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            at = event.start_mark.line + 1
            merges = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
            key = self._key(event, location)
            event = next(self._events)
            value = self._node(event, location if key is None else (*location, key))
            size = self._grown(size, value, event)
            if key is None:
                continue
            if merges:
                merged = self._merged(value, at, location) | merged
            elif key in children:
                first = children[key][0]
                self.faults.append(Fault(at, (*location, key), f"is given twice, first on line {first}"))
            else:
                children[key] = (at, value)
        children = merged | children
        return Node({str(key): node.value for key, (_, node) in children.items()}, line, size, None, children)

    def _key(self, event: Any, location: Location) -> str | None:
        """The name of a field, or None if it is no name."""
        node = self._node(event, location)
        if isinstance(node.value, str):
            return node.value
        if node.plain is None:
            self.faults.append(Fault(node.line, location, "a name must be a string, this one is a list or a mapping"))
        else:
            message = f"a name must be a string: {explain(node)}, put the name into quotes"
            self.faults.append(Fault(node.line, location, message))
        return None

    def _merged(self, value: Node, line: int, location: Location) -> dict[Step, tuple[int, Node]]:
        """What `<<` brings in: a mapping's fields, or those of a list of mappings, where the first one wins."""
        sources = [node for _, node in value.children.values()] if isinstance(value.value, list) else [value]
        if not all(isinstance(source.value, dict) for source in sources):
            self.faults.append(Fault(line, location, "<< must stand before a mapping or a list of mappings"))
            return {}
        fields: dict[Step, tuple[int, Node]] = {}
        for source in sources:
            fields = source.children | fields
        return fields

    def _refuse_tag(self, event: Any, line: int, location: Location) -> None:
        if event.tag not in (None, "!"):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.faults.append(
                Fault(line, location, f"has the tag {tag}: a manifest has none, write the value plainly")
            )

    def _grown(self, size: int, child: Node, event: Any) -> int:
        if size + child.size > MAX_VALUES:
            line = event.start_mark.line + 1
            raise _UnreadableError(line, f"holds more than {MAX_VALUES:,} values, with its aliases written out")
        return size + child.size


def explain(node: Node) -> str:
    """How YAML came from a plain text to a value that is no string."""
    if node.value is None:
        return f"YAML reads {node.plain or 'nothing'} as null"
    value = str(node.value).lower() if isinstance(node.value, bool) else "a number"
    return f"YAML reads {node.plain} as {value}"

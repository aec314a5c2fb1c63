"""Job files: from paths to documents, from a document to a job, and every problem with the file and line it comes from.

Reads files and standard input; writes nothing and prints nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, get_origin

from pydantic import ValidationError

from almanac import marked, podtemplate
from almanac.api import GROUP, KINDS, Job, JobError, Problem, Reason, problems
from almanac.api.errors import Location
from almanac.api.model import Model, aliases, inner, nearest

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem and where it comes from: a file and line, or an override of the command line (`line` is None)."""

    source: str
    line: int | None
    problem: Problem

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place}: {self.problem}"


class DocumentError(JobError):
    """A document is no valid job: `findings` are all of its problems."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(Reason.INVALID_SPEC, "\n".join(map(str, findings)))
        self.findings = tuple(findings)


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file, or one item of a list in it. `named` tells whether the file was asked for by name."""

    file: str
    named: bool
    value: Any
    node: marked.Node | None
    faults: tuple[marked.Fault, ...] = ()
    overrides: Mapping[Location, str] = field(default_factory=dict)

    @property
    def line(self) -> int:
        """The line that the document starts on."""
        return self.node.line if self.node else self.faults[0].line

    @property
    def kind(self) -> str:
        """The document's kind, empty if it says none."""
        return _text(self.value, "kind")

    @property
    def name(self) -> str:
        """The document's `metadata.name`, empty if it says none."""
        return _text(self.value.get("metadata"), "name") if isinstance(self.value, dict) else ""

    @property
    def is_job(self) -> bool:
        """Whether the document means to be a job of Almanac's."""
        return self.kind in KINDS or _text(self.value, "apiVersion").split("/")[0] == GROUP

    @property
    def foreign(self) -> str | None:
        """Why the document is none of Almanac's business, if it is not."""
        if self.is_job or self.node is None:
            return None
        if self.kind and _text(self.value, "apiVersion"):
            return f"{self.kind} is no kind of Almanac's"
        return None if self.named else "no Kubernetes object"

    def parse(self) -> Job:
        """The job.

        Raises:
            DocumentError: with every problem of the document.
        """
        job, findings = self._check()
        if job is None:
            raise DocumentError(findings)
        return job

    def findings(self) -> tuple[Finding, ...]:
        """Every problem, by line. A foreign document has none."""
        return () if self.foreign else self._check()[1]

    def override(self, assignments: Sequence[str]) -> Document:
        """The document with fields set as by `--set`: `spec.horizon=14`, the value being YAML.

        Raises:
            JobError: InvalidSpec, if an assignment is not of that form or names no field of the kind.
        """
        document = self
        for assignment in assignments:
            document = document._override(assignment)
        return document

    def _override(self, assignment: str) -> Document:
        kind = KINDS.get(self.kind)
        if kind is None or not isinstance(self.value, dict):
            return self
        path, separator, text = assignment.partition("=")
        try:
            if not separator:
                raise ValueError("write path=value, e.g. spec.horizon=14")
            location = resolve(kind, path.strip())
            value = _assigned(self.value, location, _one_value(text))
        except ValueError as error:
            raise JobError(Reason.INVALID_SPEC, f"--set {assignment}: {error}") from None
        return replace(self, value=value, overrides={**self.overrides, location: assignment})

    def _check(self) -> tuple[Job | None, tuple[Finding, ...]]:
        findings = [Finding(self.file, fault.line, Problem(fault.location, fault.message)) for fault in self.faults]
        parsed = _parse(self.value) if self.node else ()
        if isinstance(parsed, Job):
            return (None if findings else parsed), tuple(findings)
        findings += map(self._placed, parsed)
        return None, tuple(sorted(findings, key=lambda finding: finding.line or 0))

    def _placed(self, problem: Problem) -> Finding:
        """The problem with its line, and with what YAML has to do with it."""
        for location, assignment in self.overrides.items():
            if problem.location[: len(location)] == location:
                return Finding(f"--set {assignment}", None, problem)
        assert self.node is not None  # noqa: S101 - only what was read can be checked
        line, node = self.node.find(problem.location)
        if problem.message == "must be a string" and node.plain is not None:
            problem = replace(problem, message=f"must be a string: {marked.explain(node)}, put it into quotes")
        if not (problem.at_key or node.children):
            line = max(line, node.line)  # a value may stand below its name; that of an alias stands above it
        return Finding(self.file, line, problem)


def load_documents(paths: Sequence[str], stdin: BinaryIO | None = None) -> list[Document]:
    """Every document of the files, of the folders' *.yaml, *.yml and *.json at any depth, and of standard input (`-`).

    Raises:
        JobError: SourceNotFound, if there is no such file, or none in the folder; AccessDenied, if it cannot be read.
    """
    documents: list[Document] = []
    for path in paths:
        for file in _files(path):
            documents += _documents(file, path == str(file), stdin)
    return documents


def resolve(kind: type[Model], path: str) -> Location:
    """The location that a dotted path names in a kind: `spec.model.order` -> ("spec", "model", "order").

    Raises:
        ValueError: if the kind has no such field, saying what it has.
    """
    model: type[Model] = kind
    steps = path.split(".")
    for depth, step in enumerate(steps):
        so_far, names = ".".join(steps[: depth + 1]), aliases(model)
        attribute = names.get(step)
        if attribute is None and model.model_config.get("extra") == "allow":
            return tuple(steps)
        if attribute is None or so_far == "status":
            raise ValueError(f"there is no field {so_far}{_hint(kind, model, steps, depth)}")
        rest = steps[depth + 1 :]
        within = inner(model, attribute)
        if within is None:
            return (*steps[: depth + 1], *_inside(so_far, model.model_fields[attribute].annotation, rest))
        model = within
    return tuple(steps)


def _inside(path: str, annotation: Any, rest: list[str]) -> tuple[str, ...]:
    """How names lead on into a field that is no model: one name of a map may hold dots."""
    if not rest or annotation == dict[str, Any]:
        return tuple(rest)
    if get_origin(annotation) is dict:
        return (".".join(rest),)
    raise ValueError(f"{path} holds no further fields: set it as a whole, {path}=...")


def _hint(kind: type[Model], model: type[Model], steps: list[str], depth: int) -> str:
    if depth == 0 and steps[0] in aliases(inner(kind, "spec") or kind):
        return f", did you mean spec.{'.'.join(steps)}?"
    close = nearest(steps[depth], aliases(model))
    if close:
        return f", did you mean {'.'.join([*steps[:depth], close])}?"
    return f": write one of {', '.join(sorted(set(aliases(model)) - {'status'}))}"


def _one_value(text: str) -> Any:
    parsed = marked.read(text)
    faults = [fault.message for one in parsed for fault in one.faults]
    if faults or len(parsed) > 1:
        raise ValueError(f"the value {faults[0]}" if faults else "the value must be one YAML document")
    return parsed[0].node.value if parsed and parsed[0].node else None


def _assigned(value: Any, location: Location, new: Any) -> dict[Any, Any]:
    """A copy of a mapping with one field set; None takes it away."""
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{location[0]} cannot be set inside something that is no mapping")
    first, rest = location[0], location[1:]
    copy = dict(value or {})
    if rest:
        copy[first] = _assigned(copy.get(first), rest, new)
    elif new is None:
        copy.pop(first, None)
    else:
        copy[first] = new
    return copy


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _parse(value: Any) -> Job | Sequence[Problem]:
    if not isinstance(value, dict):
        return [
            Problem(
                (), "is no Kubernetes object: a job is a mapping that has apiVersion, kind, metadata and spec", value
            )
        ]
    missing = [Problem((), f"`{name}` is missing") for name in ("apiVersion", "kind") if value.get(name) is None]
    kind = KINDS.get(_text(value, "kind"))
    if kind is None:
        return missing or [Problem(("kind",), f"must be {' or '.join(KINDS)}", value["kind"])]
    try:
        job = kind.parse(value)
    except ValidationError as error:
        return [*missing, *problems(error)]
    return missing or podtemplate.problems(job.spec.pod_template) or job


def _files(path: str) -> Iterator[Path | str]:
    if path == STDIN:
        yield STDIN
        return
    place = Path(path)
    if not place.is_dir():
        yield path
        return
    found = sorted(
        file
        for file in place.rglob("*")
        if file.suffix in SUFFIXES and not any(part.startswith(".") for part in file.relative_to(place).parts)
    )
    if not found:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{path}: the folder holds no {', '.join(sorted(SUFFIXES))} file")
    yield from found


def _documents(file: Path | str, named: bool, stdin: BinaryIO | None) -> list[Document]:
    label = "<stdin>" if file == STDIN else str(file)
    try:
        content = (stdin or sys.stdin.buffer).read() if file == STDIN else Path(file).read_bytes()
    except FileNotFoundError:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{label}: there is no such file") from None
    except PermissionError:
        raise JobError(Reason.ACCESS_DENIED, f"{label}: the file may not be read") from None
    except OSError as error:
        raise JobError(Reason.SOURCE_NOT_FOUND, f"{label}: {error.strerror or error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [Document(label, named, None, None, (marked.Fault(line, (), "is not UTF-8 text"),))]
    return [document for parsed in marked.read(text) for document in _items(label, named, parsed)]


def _items(file: str, named: bool, parsed: marked.Parsed) -> Iterator[Document]:
    """The document, or the items of the list that it is, as `kubectl get -o yaml` writes them."""
    node = parsed.node
    value = node.value if node else None
    items = node.children.get("items") if node else None
    if not (items and _text(value, "kind").endswith("List") and isinstance(items[1].value, list)):
        yield Document(file, named, value, node, parsed.faults)
        return
    faults: dict[Any, list[marked.Fault]] = {index: [] for index in (None, *items[1].children)}
    for fault in parsed.faults:
        inside = len(fault.location) > 1 and fault.location[0] == "items"
        moved = replace(fault, location=fault.location[2:]) if inside else fault
        faults[fault.location[1] if inside else None].append(moved)
    if faults[None]:
        yield Document(file, named, None, None, tuple(faults[None]))
    for index, (_, item) in items[1].children.items():
        yield from _items(file, named, marked.Parsed(item, tuple(faults[index])))

"""A job as a cluster has it: who it is, what was asked for, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from almanac.api import GROUP, VERSION, AlmanacError, Condition, ExitCode, JobStatus, Phase, Reason, Result
from almanac.crd import RESOURCES
from almanac.resource import read_status

UNSAID = "ForecastJob"
"""The kind that is meant where none is said."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Which job of a namespace is meant."""

    name: str
    kind: str = UNSAID

    @classmethod
    def parse(cls, text: str) -> Reference:
        """`ledger`, or with its kind as kubectl writes it: `fj/ledger`, `forecastjob.almanac.dev/ledger`.

        Raises:
            ValueError: if there is no such kind.
        """
        kind, separator, name = text.rpartition("/")
        if not separator:
            return cls(name)
        plain = kind.lower().removesuffix(f".{GROUP}")
        for known, resource in RESOURCES.items():
            if plain in (known.lower(), resource.plural, resource.short):
                return cls(name, known)
        choice = ", ".join(f"{one.short}/{name}" for one in RESOURCES.values())
        raise ValueError(f"{text}: there is no kind {kind}: write {choice}")

    def __str__(self) -> str:
        return f"{self.kind.lower()}.{GROUP}/{self.name}"

    @property
    def typed(self) -> str:
        """What people type: `ledger`, `aj/journal`."""
        return self.name if self.kind == UNSAID else f"{RESOURCES[self.kind].short}/{self.name}"


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job at one moment. `document` is the object as the API has it, `status` what was understood of its status."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    created: datetime | None
    status: JobStatus
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any], kind: str) -> JobRecord:
        """The record of an object of the API. Items of a list do not name their kind."""
        metadata = document.get("metadata") or {}
        created = metadata.get("creationTimestamp")
        named = {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind}
        return cls(
            kind=kind,
            namespace=metadata.get("namespace", ""),
            name=metadata.get("name", ""),
            uid=metadata.get("uid", ""),
            generation=metadata.get("generation", 0),
            created=datetime.fromisoformat(created) if created else None,
            status=read_status(document),
            document={**named, **document},
        )

    @property
    def reference(self) -> Reference:
        """What names it within its namespace."""
        return Reference(self.name, self.kind)

    @property
    def phase(self) -> Phase | None:
        """Where it stands, in one word; None as long as no operator has looked at it."""
        return self.status.phase

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was asked for."""
        spec: Mapping[str, Any] = self.document.get("spec") or {}
        return spec

    @property
    def result(self) -> Result | None:
        """What the last complete run has written."""
        return self.status.result

    @property
    def suspended(self) -> bool:
        """It is held until somebody lets it go on."""
        return bool(self.spec.get("suspend"))

    @property
    def scheduled(self) -> bool:
        """It runs again by itself."""
        return bool(self.spec.get("schedule"))

    @property
    def current(self) -> bool:
        """Its status speaks of the spec that it has now."""
        return (self.status.observed_generation or 0) >= self.generation

    @property
    def finished(self) -> bool:
        """The run of the spec that it has now is over."""
        return self.current and self.status.phase in (Phase.SUCCEEDED, Phase.FAILED)

    @property
    def succeeded(self) -> bool:
        """The run of the spec that it has now is over, and well."""
        return self.current and self.status.phase is Phase.SUCCEEDED

    @property
    def failed(self) -> bool:
        """The run of the spec that it has now is over, and has no result."""
        return self.current and self.status.phase is Phase.FAILED

    @property
    def settled(self) -> bool:
        """Nothing more happens to it by itself, as far as its present run goes: that is over, or held."""
        return self.finished or (self.suspended and self.current and self.status.phase is Phase.SUSPENDED)

    @property
    def ready(self) -> Condition | None:
        """The condition that says where it stands, and why."""
        return next((one for one in self.status.conditions if one.type == "Ready"), None)

    @property
    def reason(self) -> str:
        """Why it stands where it stands, in one CamelCase word; empty as long as nobody has looked at it."""
        return self.ready.reason if self.ready else ""

    @property
    def message(self) -> str:
        """The same in a sentence."""
        return self.ready.message if self.ready else ""

    @property
    def exit_code(self) -> ExitCode:
        """How a command ends that waited for it: as `almanac run` would have."""
        if self.failed:
            return Reason(self.reason).exit_code if self.reason in set(Reason) else ExitCode.FAILED
        return ExitCode.DONE if self.succeeded else ExitCode.UNAVAILABLE

    def raise_for_failure(self) -> None:
        """Nothing, unless its run has failed.

        Raises:
            RunFailedError: with the reason and the message of its status.
        """
        if self.failed:
            raise RunFailedError(self)


class RunFailedError(AlmanacError):
    """The run of a job has failed: `record` says everything."""

    def __init__(self, record: JobRecord) -> None:
        super().__init__(f"{record.reference} failed, {record.reason}: {record.message}")
        self.record = record

    @property
    def exit_code(self) -> ExitCode:
        return self.record.exit_code

"""Events are one thing under two names: kept as core/v1, served as events.k8s.io/v1 too."""

from __future__ import annotations

from collections.abc import Iterator

from kube.refusals import Problem
from kube.resources import Document

_CORE_TO_EVENTS = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_EVENTS_TO_CORE = {theirs: ours for ours, theirs in _CORE_TO_EVENTS.items()}


def to_core(event: Document) -> Document:
    return {_EVENTS_TO_CORE.get(name, name): value for name, value in event.items()}


def to_events(event: Document) -> Document:
    return {_CORE_TO_EVENTS.get(name, name): value for name, value in event.items()}


def problems(event: Document, group: str) -> Iterator[Problem]:
    """What the API server checks of a new event, given as core/v1. Those of events.k8s.io are held to more."""
    about, within = (event.get("involvedObject") or {}).get("namespace", ""), event["metadata"].get("namespace", "")
    if event.get("eventTime"):  # such an event may be about an object elsewhere
        wrong = not about and within not in ("default", "kube-system")
    else:
        wrong = about != within if about else within != "default"
    if wrong:
        yield Problem("involvedObject.namespace", f'Invalid value: "{about}": does not match event.namespace')
    if not group and not event.get("eventTime"):
        return
    for name in ("reportingComponent", "reportingInstance", "action", "reason", "eventTime"):
        shown = to_events({name: None}).popitem()[0] if group else name
        if not event.get(name):
            yield Problem(shown, "Required value", "FieldValueRequired")
    for name, most in (("reportingInstance", 128), ("action", 128), ("reason", 128), ("message", 1024)):
        if len((event.get(name) or "").encode()) > most:
            shown = to_events({name: None}).popitem()[0] if group else name
            yield Problem(shown, f"Invalid value: can have at most {most} characters")
    if event.get("type") not in ("Normal", "Warning"):
        yield Problem("type", f"Invalid value: {event.get('type')!r}")
    for name in ("count", "firstTimestamp", "lastTimestamp", "source") if group else ():
        if event.get(name):
            yield Problem(to_events({name: None}).popitem()[0], "Forbidden: needs to be unset", "FieldValueForbidden")


def changed(old: Document, new: Document) -> Iterator[Problem]:
    """What may not change through events.k8s.io: all but the series."""
    for name in old.keys() | new.keys():
        if name not in ("series", "metadata", "apiVersion", "kind") and old.get(name) != new.get(name):
            yield Problem(to_events({name: None}).popitem()[0], "Invalid value: field is immutable")

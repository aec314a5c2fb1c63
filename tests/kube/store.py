"""What is stored: objects by place and name, one version for all of them, and the changes that watches are told."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from kube.resources import Document, Store

Key = tuple[str, str]
"""Namespace, empty for what lies in none, and name."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step of one object. `before` is what it was, None for a new one."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    store: Store
    key: Key
    object: Document
    before: Document | None


class Objects:
    """Every object, and the last changes. An object that was handed out is never changed in place."""

    def __init__(self, remembered: int = 10_000) -> None:
        self.version = 1
        self.oldest = 0
        """A watch can start from this version on, and from no older one."""
        self.listeners: list[Callable[[Change], None]] = []
        self._objects: defaultdict[Store, dict[Key, Document]] = defaultdict(dict)
        self._dependents: defaultdict[str, set[tuple[Store, Key]]] = defaultdict(set)
        self._changes: deque[Change] = deque(maxlen=remembered)

    def find(self, store: Store, key: Key) -> Document | None:
        return self._objects[store].get(key)

    def all(self, store: Store, namespace: str = "") -> list[Document]:
        """Ordered by namespace and name. Without a namespace, those of all."""
        found = self._objects[store]
        return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    def inside(self, namespace: str) -> Iterator[tuple[Store, Key]]:
        for store, found in list(self._objects.items()):
            for key in list(found):
                if key[0] == namespace:
                    yield store, key

    def dependents(self, uid: str) -> list[tuple[Store, Key]]:
        """Where the objects are that name `uid` as an owner."""
        return sorted(self._dependents.get(uid, ()))

    def has_uid(self, store: Store, key: Key, uid: str) -> bool:
        found = self.find(store, key)
        return found is not None and found["metadata"]["uid"] == uid

    def put(self, store: Store, key: Key, item: Document) -> Document:
        """Store an object, with a version of its own."""
        before = self.find(store, key)
        return self._commit("MODIFIED" if before else "ADDED", store, key, item, before)

    def remove(self, store: Store, key: Key, item: Document) -> Document:
        """Forget an object; `item` is what it was last."""
        return self._commit("DELETED", store, key, item, self.find(store, key))

    def _commit(
        self,
        kind: Literal["ADDED", "MODIFIED", "DELETED"],
        store: Store,
        key: Key,
        item: Document,
        before: Document | None,
    ) -> Document:
        self.version += 1
        item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
        for uid in _owners(before):
            self._dependents[uid].discard((store, key))
            if not self._dependents[uid]:
                del self._dependents[uid]
        if kind == "DELETED":
            del self._objects[store][key]
        else:
            self._objects[store][key] = item
            for uid in _owners(item):
                self._dependents[uid].add((store, key))
        if len(self._changes) == self._changes.maxlen:
            self.oldest = self._changes[0].version
        change = Change(self.version, kind, store, key, item, before)
        self._changes.append(change)
        for listener in list(self.listeners):
            listener(change)
        return item

    def since(self, version: int) -> list[Change]:
        """The changes after a version that is not too old."""
        return [change for change in self._changes if change.version > version]

    def compact(self) -> None:
        """Forget the past: a watch from any version so far gets 410, as after a compaction of etcd."""
        self.version += 1
        self.oldest = self.version
        self._changes.clear()

    def back_up(self) -> Callable[[bool], None]:
        """Take note of everything; gives what makes it so again, and whether versions then go on beyond the last one.

        Those who listen are not told.
        """
        version, oldest, changes = self.version, self.oldest, list(self._changes)
        objects = {store: dict(found) for store, found in self._objects.items()}
        dependents = {uid: set(places) for uid, places in self._dependents.items()}

        def restore(ahead: bool) -> None:
            last, self.version, self.oldest = self.version, version, oldest
            self._objects = defaultdict(dict, {store: dict(found) for store, found in objects.items()})
            self._dependents = defaultdict(set, {uid: set(places) for uid, places in dependents.items()})
            self._changes = deque(changes, maxlen=self._changes.maxlen)
            if ahead:
                self.version = last
                self.compact()

        return restore


def _owners(item: Document | None) -> list[str]:
    return [one["uid"] for one in (item or {"metadata": {}})["metadata"].get("ownerReferences") or ()]

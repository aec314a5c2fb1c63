"""The controllers beside the API: Jobs, garbage, pods that nothing will end, namespaces. They run on the event loop."""

from __future__ import annotations

import asyncio

from kube.api import FOREGROUND, ORPHAN, Api, key_of
from kube.jobs import TRACKING, JobController, release
from kube.refusals import Refusal
from kube.resources import JOBS, NAMESPACES, PODS, Document, Store
from kube.store import Change, Key

Place = tuple[Store, Key]


class Controllers:
    """Look at what has changed, soon after it has. Paused, they catch up later."""

    def __init__(self, api: Api, loop: asyncio.AbstractEventLoop) -> None:
        self.api, self.loop = api, loop
        self.jobs = JobController(api, self._again)
        self._jobs: dict[Key, None] = {}
        self._others: dict[Place, None] = {}
        self._paused = self._scheduled = False
        self._timers: set[asyncio.TimerHandle] = set()
        self.crashes: list[Exception] = []
        """Defects of the controllers themselves: a test that ends with one has failed."""
        api.objects.listeners.append(self._changed)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._wake()

    def begin_anew(self) -> None:
        """Look at everything, as controllers do that were just started."""
        objects = self.api.objects
        for one in self.api.served.values():
            for key in map(key_of, objects.all(one.store)):
                self._others[one.store, key] = None
                if one.store == JOBS:
                    self._jobs[key] = None
        self._wake()

    def stop(self) -> None:
        self._paused = True
        for timer in self._timers:
            timer.cancel()

    def _changed(self, change: Change) -> None:
        if change.store == JOBS:
            self._jobs[change.key] = None
        if change.store == PODS:
            self._others[change.store, change.key] = None
            for owner in change.object["metadata"].get("ownerReferences", ()):
                self._jobs[change.key[0], owner["name"]] = None
        metadata = change.object["metadata"]
        if change.type == "DELETED":
            for place in self.api.objects.dependents(metadata["uid"]):
                self._others[place] = None
            self._others[NAMESPACES, ("", change.key[0])] = None
            for owner in metadata.get("ownerReferences", ()):
                self._owner_changed(change.key[0], owner)
        elif change.type == "ADDED" or "deletionTimestamp" in metadata:
            self._others[change.store, change.key] = None
        self._wake()

    def _owner_changed(self, namespace: str, owner: Document) -> None:
        """An owner that waits for its dependents may be done now."""
        group = owner["apiVersion"].rpartition("/")[0]
        for one in self.api.served.values():
            if (one.group, one.kind) == (group, owner["kind"]):
                self._others[one.store, (namespace, owner["name"])] = None

    def _again(self, key: Key, seconds: float) -> None:
        def look() -> None:
            self._timers.discard(timer)
            self._jobs[key] = None
            self._wake()

        timer = self.loop.call_later(max(0.0, seconds) + 0.01, look)
        self._timers.add(timer)

    def _wake(self) -> None:
        if not self._scheduled and not self._paused and (self._jobs or self._others):
            self._scheduled = True
            self.loop.call_soon(self._work)

    def _work(self) -> None:
        """One round; what it changes is for the next, so that requests are answered in between."""
        self._scheduled = False
        if self._paused:
            return
        jobs, others = list(self._jobs), list(self._others)
        self._jobs.clear()
        self._others.clear()
        try:
            for place in others:
                self._collect(*place)
            for key in jobs:
                self.jobs.sync(key)
        except Exception as crash:
            self.crashes.append(crash)
        self._wake()

    # Garbage

    def _collect(self, store: Store, key: Key) -> None:
        item = self.api.objects.find(store, key)
        if item is None:
            return
        if store == NAMESPACES:
            self._namespace(item)
            return
        metadata = item["metadata"]
        if store == PODS and self._uncounted(item):
            release(self.api, item)
        elif "deletionTimestamp" in metadata:
            self._going(store, item)
        elif metadata.get("ownerReferences"):
            self._owned(store, item)

    def _owned(self, store: Store, item: Document) -> None:
        """Delete what has lost its last owner."""
        owners = item["metadata"]["ownerReferences"]
        if not any(self._lives(item, one) for one in owners):
            self._delete(store, key_of(item), {"propagationPolicy": "Background"})
        elif len(owners) > 1 and (kept := [one for one in owners if self._lives(item, one)]) != owners:
            self._edit(store, item, "ownerReferences", kept)

    def _lives(self, item: Document, owner: Document) -> bool:
        group = owner["apiVersion"].rpartition("/")[0]
        namespace = item["metadata"].get("namespace", "")
        for one in self.api.served.values():
            if (one.group, one.kind) == (group, owner["kind"]):
                place = (namespace if one.namespaced else "", owner["name"])
                return self.api.objects.has_uid(one.store, place, owner["uid"])
        return True  # a kind that is not served: nobody can tell

    def _going(self, store: Store, item: Document) -> None:
        metadata = item["metadata"]
        finalizers = metadata.get("finalizers", ())
        if store == PODS and self._ends_at_once(item):
            return
        if ORPHAN in finalizers:
            for place in self.api.objects.dependents(metadata["uid"]):
                found = self.api.objects.find(*place)
                if found is not None:
                    kept = [one for one in found["metadata"]["ownerReferences"] if one["uid"] != metadata["uid"]]
                    self._edit(place[0], found, "ownerReferences", kept)
            self._edit(store, item, "finalizers", [one for one in finalizers if one != ORPHAN])
        elif FOREGROUND in finalizers:
            blocking = False
            for place in self.api.objects.dependents(metadata["uid"]):
                found = self.api.objects.find(*place)
                if found is not None:
                    mine = [one for one in found["metadata"]["ownerReferences"] if one["uid"] == metadata["uid"]]
                    blocking = blocking or bool(mine[0].get("blockOwnerDeletion"))
                    if "deletionTimestamp" not in found["metadata"]:
                        self._delete(*place, {"propagationPolicy": "Foreground"})
            if not blocking or not self.api.objects.dependents(metadata["uid"]):
                self._edit(store, item, "finalizers", [one for one in finalizers if one != FOREGROUND])

    def _uncounted(self, pod: Document) -> bool:
        """Whether a pod waits to be counted by a Job that is no more."""
        metadata = pod["metadata"]
        if TRACKING not in metadata.get("finalizers", ()):
            return False
        owner = next((one for one in metadata.get("ownerReferences", ()) if one.get("controller")), None)
        return owner is None or not self.api.objects.has_uid(JOBS, (metadata["namespace"], owner["name"]), owner["uid"])

    def _ends_at_once(self, pod: Document) -> bool:
        """Fail a pod that no node will ever end. It is looked at again then."""
        if pod["spec"].get("nodeName") or pod["status"].get("phase") in ("Succeeded", "Failed"):
            return False
        self.api.objects.put(PODS, key_of(pod), {**pod, "status": {**pod["status"], "phase": "Failed"}})
        return True

    def _namespace(self, namespace: Document) -> None:
        name = namespace["metadata"]["name"]
        if "deletionTimestamp" not in namespace["metadata"]:
            return
        left = list(self.api.objects.inside(name))
        for store, key in left:
            found = self.api.objects.find(store, key)
            if found is not None and "deletionTimestamp" not in found["metadata"]:
                self._delete(store, key, {"propagationPolicy": "Background", "gracePeriodSeconds": 0})
        if not list(self.api.objects.inside(name)):
            self.api.finish_namespace(name)

    def _delete(self, store: Store, key: Key, options: Document) -> None:
        self.api.delete(self.api.of(store), *key, options)

    def _edit(self, store: Store, item: Document, field: str, value: list[object]) -> None:
        def edited(old: Document) -> Document:
            return {**old, "metadata": {**old["metadata"], field: value}}

        try:
            self.api.patch(self.api.of(store), *key_of(item), edited)
        except Refusal as refusal:
            if refusal.code != 404:
                raise

"""Points in time as state: what is due is found without looking at everything, and dropped at no cost."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import takewhile
from typing import Generic, TypeVar

from spreadq_core.ids import Nanos

K = TypeVar("K", bound=Hashable)

TIMEOUT_GRAIN: Nanos = 1 << 24
"""Timeouts are kept in buckets of this width, so they come up to 17 ms late."""


def due(since: dict[K, Nanos], until: Nanos) -> list[K]:
    """Keys whose time is not after `until`; the dictionary has earlier times first."""
    return [key for key, _ in takewhile(lambda item: item[1] <= until, since.items())]


class Alarms(Generic[K]):
    """At most one alarm for each key; whoever is woken looks what is due, and arms it anew.

    `K` must be ordered, so that alarms for the same time ring in the same order everywhere.

    Args:
        at: when each key's alarm rings; kept up to date here, and all that must be remembered.
    """

    def __init__(self, at: dict[K, Nanos]) -> None:
        self._armed = at
        self._heap = [(time, key) for key, time in at.items()]
        heapify(self._heap)

    @property
    def deadline(self) -> Nanos | None:
        """When the first alarm rings."""
        heap, armed = self._heap, self._armed
        while heap and armed.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def arm(self, key: K, at: Nanos) -> None:
        """Ring for `key` at `at`, unless it rings earlier anyway."""
        armed = self._armed.get(key)
        if armed is None or at < armed:
            self._armed[key] = at
            heappush(self._heap, (at, key))

    def disarm(self, key: K) -> None:
        """Do not ring for `key`."""
        self._armed.pop(key, None)

    def ring(self, now: Nanos) -> list[K]:
        """Take the keys whose time has come; they are not armed any more."""
        rung = []
        while (at := self.deadline) is not None and at <= now:
            key = heappop(self._heap)[1]
            del self._armed[key]
            rung.append(key)
        return rung


class Timeouts(Generic[K]):
    """Many points in time, most of which are taken back before they come: a bucketed calendar.

    Args:
        at: the time of each key; kept up to date here, and all that must be remembered.
    """

    def __init__(self, at: dict[K, Nanos]) -> None:
        self._at = at
        self._buckets: dict[int, dict[K, None]] = {}
        self._order: list[int] = []
        for key in at:
            self._put(key)

    @property
    def deadline(self) -> Nanos | None:
        """When `due` next has something to give."""
        order, buckets = self._order, self._buckets
        while order and not buckets[order[0]]:
            del buckets[heappop(order)]
        return (order[0] + 1) * TIMEOUT_GRAIN if order else None

    def add(self, key: K, at: Nanos) -> None:
        """`key` becomes due at `at`, and not when it did so far."""
        if key in self._at:
            self.discard(key)
        self._at[key] = at
        self._put(key)

    def discard(self, key: K) -> None:
        """Forget `key`, if it is here."""
        at = self._at.pop(key, None)
        if at is not None:
            del self._buckets[at // TIMEOUT_GRAIN][key]

    def due(self, now: Nanos) -> list[K]:
        """Take the keys whose time has come."""
        keys: list[K] = []
        while (deadline := self.deadline) is not None and deadline <= now:
            keys += self._buckets.pop(heappop(self._order))
        for key in keys:
            del self._at[key]
        return keys

    def _put(self, key: K) -> None:
        number = self._at[key] // TIMEOUT_GRAIN
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
            heappush(self._order, number)
        bucket[key] = None

"""How old tasks are, without a time in each: when the first one after some moments was accepted."""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from spreadq_core.ids import MILLISECOND, Nanos

MARK_INTERVAL: Nanos = 100 * MILLISECOND
"""The age of a task is known to this, while no task is old."""

MARKS_LIMIT = 1024
"""When there are more marks, every second one goes, and new ones are made less often: ages are known to
about a hundredth of the greatest."""


class Ages(msgspec.Struct, gc=False):
    """Marks in time."""

    upto: int = 0  # place of the task accepted last
    # by place of a task, when it was accepted; oldest first. Those that follow it, up to the next mark, were
    # accepted soon after it.
    marked_at: dict[int, Nanos] = {}
    last_at: Nanos | None = None  # when the newest mark was made

    def accepted(self, upto: int, now: Nanos) -> None:
        """All tasks up to this place are accepted by now; those that were not before, right now."""
        if upto > self.upto:
            first_at = next(iter(self.marked_at.values()), now)
            interval = max(MARK_INTERVAL, 2 * (now - first_at) // MARKS_LIMIT)
            if self.last_at is None or now >= self.last_at + interval:
                self.marked_at[self.upto + 1] = self.last_at = now
                if len(self.marked_at) > MARKS_LIMIT:
                    for place in list(self.marked_at)[1::2]:
                        del self.marked_at[place]
            self.upto = upto

    def age(self, place: int | None, now: Nanos) -> Nanos:
        """How long ago the task with this place was accepted; 0 for None. Forgets older marks."""
        if place is None:
            self.marked_at.clear()
            self.last_at = None
            return 0
        marks = list(self.marked_at)
        older = max(0, bisect_right(marks, place) - 1)
        for mark in marks[:older]:
            del self.marked_at[mark]
        return now - self.marked_at[marks[older]] if marks else 0

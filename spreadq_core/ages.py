"""How old tasks are, without a time in each: which acceptance was the last one at some times."""

from __future__ import annotations

import msgspec

from spreadq_core.ids import MILLISECOND, Nanos

MARK_INTERVAL: Nanos = 100 * MILLISECOND
"""The age of a task is known to this, while there are few marks."""

MARKS_LIMIT = 1024
"""When there are more marks, every second one goes: great ages are known less precisely."""


class Ages(msgspec.Struct, gc=False):
    """Marks in time.

    Args:
        marked_at: by place of the task accepted last, when; oldest first.
        last_at: when the newest mark was made.
    """

    marked_at: dict[int, Nanos] = {}
    last_at: Nanos | None = None

    def accepted(self, upto: int, now: Nanos) -> None:
        """All tasks up to this place were accepted by now."""
        if self.last_at is None or now >= self.last_at + MARK_INTERVAL:
            self.last_at = now
            self.marked_at[upto] = now
            if len(self.marked_at) > MARKS_LIMIT:
                for place in list(self.marked_at)[::2]:
                    del self.marked_at[place]

    def age(self, place: int | None, now: Nanos) -> Nanos:
        """How long ago the task with this place was accepted; 0 for None. Forgets older marks."""
        for marked in list(self.marked_at):
            if place is not None and marked >= place:
                return now - self.marked_at[marked]
            del self.marked_at[marked]
        return 0

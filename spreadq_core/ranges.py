"""Sets of counters, kept as the few ranges that they nearly always are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import msgspec


class Ranges(msgspec.Struct, gc=False):
    """A set of positive integers: all from 1 to `upto`, and some ranges beyond."""

    upto: int = 0  # 1..upto are members, upto + 1 is not; 0 when 1 is not
    firsts: list[int] = []  # first member of each further range, sorted; ranges neither overlap nor touch
    lasts: list[int] = []  # last member of each, inclusive

    def __contains__(self, member: int) -> bool:
        if member <= self.upto:  # what is not positive cannot be added, so it counts as a member
            return True
        index = bisect_right(self.firsts, member) - 1
        return index >= 0 and member <= self.lasts[index]

    def __len__(self) -> int:
        """The number of ranges beyond `upto`, not of members."""
        return len(self.firsts)

    def add(self, first: int, last: int) -> None:
        """Make `first`..`last`, both included, members."""
        firsts, lasts = self.firsts, self.lasts
        if first <= self.upto + 1:
            self.upto = max(self.upto, last)
            while firsts and firsts[0] <= self.upto + 1:
                self.upto = max(self.upto, lasts[0])
                del firsts[0], lasts[0]
            return
        low = bisect_left(lasts, first - 1)
        high = bisect_right(firsts, last + 1)
        if low < high:
            first = min(first, firsts[low])
            last = max(last, lasts[high - 1])
        firsts[low:high] = [first]
        lasts[low:high] = [last]

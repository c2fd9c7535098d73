"""Sets of counters as ranges, against plain sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spreadq_core.ranges import Ranges

LAST = 40
ADDED = st.lists(st.tuples(st.integers(1, LAST), st.integers(0, 6)).map(lambda t: (t[0], t[0] + t[1])))


@given(ADDED)
def test_ranges_are_a_set(added):
    ranges, model = Ranges(), set()
    for first, last in added:
        ranges.add(first, last)
        model.update(range(first, last + 1))
        assert [n for n in range(1, LAST + 8) if n in ranges] == sorted(model)


@given(ADDED)
def test_ranges_are_as_few_as_possible(added):
    ranges = Ranges()
    for first, last in added:
        ranges.add(first, last)
        bounds = [0, ranges.upto]
        for low, high in zip(ranges.firsts, ranges.lasts, strict=True):
            bounds += [low, high]
        assert bounds == sorted(bounds)
        assert all(low > high + 1 for high, low in zip(bounds[1::2], bounds[2::2], strict=False))
        assert len(ranges) == len(ranges.firsts)


def test_what_cannot_be_added_counts_as_a_member():
    assert 0 in Ranges()
    assert -1 in Ranges()
    assert 1 not in Ranges()


def test_gaps_that_close_are_forgotten():
    ranges = Ranges()
    for counter in (5, 3, 1):
        ranges.add(counter, counter)
    assert (ranges.upto, len(ranges)) == (1, 2)
    ranges.add(2, 4)
    assert (ranges.upto, len(ranges)) == (5, 0)

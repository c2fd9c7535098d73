"""How old tasks are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spreadq_core.ages import MARK_INTERVAL, MARKS_LIMIT, Ages
from spreadq_core.ids import MILLISECOND, SECOND


def test_nothing_waits_for_no_time():
    assert Ages().age(None, 5) == 0
    assert Ages().age(3, 5) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(0, 10**9))
def test_an_age_is_known_to_the_interval_of_the_marks(steps, later):
    """Two tasks come after each pause, in units of 10 ms; ages are asked for at the end."""
    now, accepted_at = 0, []
    ages = Ages()
    for pause in steps:
        now += pause * 10 * MILLISECOND
        accepted_at += [now, now]
        ages.accepted(len(accepted_at), now)
    now += later
    for place, at in enumerate(accepted_at, 1):
        age = ages.age(place, now)
        assert now - at <= age <= now - at + MARK_INTERVAL


def test_marks_of_tasks_that_are_gone_are_forgotten():
    ages = Ages()
    for place in range(1, 100):
        ages.accepted(place, place * SECOND)
    assert ages.age(98, 100 * SECOND) == 2 * SECOND
    assert list(ages.marked_at) == [98, 99]
    assert ages.age(5, 100 * SECOND) == 2 * SECOND, "it came back; it is at least as old as that"
    assert ages.age(None, 100 * SECOND) == 0
    assert ages.marked_at == {}
    ages.accepted(100, 99 * SECOND + 1)
    assert ages.age(100, 100 * SECOND) == SECOND - 1


def test_only_new_tasks_make_marks():
    ages = Ages()
    ages.accepted(1, 0)
    ages.accepted(1, SECOND)
    assert list(ages.marked_at) == [1]


def test_there_are_never_many_marks_and_great_ages_are_known_less_precisely():
    ages = Ages()
    for place in range(1, 20_001):
        ages.accepted(place, place * SECOND)
        assert len(ages.marked_at) <= MARKS_LIMIT
    for place in range(1, 20_001, 100):
        error = ages.age(place, 20_001 * SECOND) - (20_001 - place) * SECOND
        assert 0 <= error < 200 * SECOND

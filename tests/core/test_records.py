"""What a queue remembers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spreadq_core.messages import Outcome, Refusal, Rejected, Response, Status
from spreadq_core.records import KEPT_COST, Counts, SenderRecord, kept_size, place_of, rank_of


@given(st.integers(0, 9), st.integers(1, 2**50), st.integers(0, 9), st.integers(1, 2**50))
def test_ranks_order_by_priority_and_then_by_place(priority, place, other_priority, other_place):
    lower = rank_of(priority, place) < rank_of(other_priority, other_place)
    assert lower == ((-priority, place) < (-other_priority, other_place))
    assert place_of(rank_of(priority, place)) == place


def outcome(counter, payload):
    return Outcome(1, counter, 1, 2, Status.DONE, 0, payload)


def test_what_is_dropped_is_counted_with_all_that_was_kept_of_it():
    record = SenderRecord(
        outcomes={1: outcome(1, b"abc")},
        responses={1: {0: Response(1, 1, 1, 2, 0, b"ab", "raw")}, 2: {}},
        rejected={3: Rejected(3, Refusal.QUEUE_FULL, "")},
    )
    assert record.drop(1) == 5 + 2 * KEPT_COST
    assert record.drop(1) == record.drop(3) == record.drop(4) == 0
    assert record == SenderRecord(responses={2: {}})


def test_an_outcome_is_counted_with_more_than_its_payload():
    assert kept_size(outcome(1, b"")) == KEPT_COST


@given(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)), st.integers(1, 30), st.integers(0, 30))
def test_what_is_here_of_a_range_is_found_at_the_cost_of_the_smaller(tasks, outcomes, first, width):
    record = SenderRecord(tasks=dict.fromkeys(tasks), outcomes=dict.fromkeys(outcomes), rejected={31: None})
    inside = range(first, first + width + 1)
    assert record.here(first, first + width) == [n for n in inside if n in tasks | outcomes | {31}]


def test_every_status_that_travels_has_a_count():
    counts = Counts()
    for status in Status:
        if Status.DONE < status <= Status.CANCELLED:
            counts.ended(status)
    assert counts == Counts(failed=1, buried=1, expired=1, cancelled=1)

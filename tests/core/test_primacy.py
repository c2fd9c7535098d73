"""Who manages the queue, step by step; whole conversations are in `test_conversations_managers`."""

from __future__ import annotations

import pytest

from spreadq_core.codec import decode
from spreadq_core.effects import Exit, KeepEpoch, Note
from spreadq_core.events import Cause, ViewChanged
from spreadq_core.ids import SECOND, QueueGroups
from spreadq_core.link import Speaker
from spreadq_core.messages import About, TookOver, Who
from spreadq_core.policy import DEFAULT, EPOCH_LIMIT
from spreadq_core.primacy import UNHEARD_STEP, Primacy, PrimacyState, Stage

ME = About("me", "h", 1)
OTHER = About("other", "h2", 2)


class Meeting(Primacy):
    """What a manager does about its standing, with short names."""

    def __init__(self, heard=0):
        speaker = Speaker("q", 5, heard)
        super().__init__(QueueGroups.of("q"), speaker, ME, DEFAULT, PrimacyState(heard=heard))

    def sees(self, group, *members, cause=Cause.JOIN, now=0):
        return self.view(ViewChanged(group, members, cause, members), now)

    def enter(self):
        effects = []
        for group in self._to_enter:
            effects += self.sees(group, "me")
        return effects

    def said(self):
        sends = [(send.groups, decode(send.kind, send.body, "q").messages) for send in self.take_said()]
        return [(groups, type(message)) for groups, (message,) in sends]


@pytest.fixture
def primacy():
    primacy = Meeting()
    primacy.connected("me")
    return primacy


@pytest.fixture
def primary(primacy):
    primacy.sees("XQ_q", "me")
    primacy.enter()
    primacy.said()
    return primacy


def test_who_is_alone_takes_over(primacy):
    assert len(primacy.sees("XQ_q", "me")) == 5
    assert primacy.stage is Stage.ENTERING
    keep, note = primacy.enter()
    assert keep == KeepEpoch(1)
    assert note.fields == {"epoch": 1}
    assert primacy.manages
    assert primacy.said() == [(("PQ_q", "SQ_q", "XQ_q"), TookOver)]


def test_who_is_not_alone_asks_once_and_waits_2_s(primacy):
    assert primacy.sees("XQ_q", "me", "other", now=7) == []
    assert primacy.sees("XQ_q", "me", "other", "third", now=8) == []
    assert primacy.said() == [(("XQ_q",), Who)]
    assert primacy.deadline == 7 + DEFAULT.who_wait
    assert primacy.tick(primacy.deadline - 1) == []
    assert len(primacy.tick(primacy.deadline)) == 5
    assert primacy.deadline is None
    assert primacy.tick(10**12) == []


def test_who_becomes_alone_while_it_waits_takes_over(primacy):
    primacy.sees("XQ_q", "me", "other")
    assert len(primacy.sees("XQ_q", "me")) == 5


def test_a_primary_that_was_away_keeps_its_epoch_when_nobody_answers(primary):
    primary.connected("me")
    primary.sees("XQ_q", "me", "silent")
    primary.tick(primary.deadline)
    (note,) = primary.enter()
    assert note.fields == {"epoch": 1}


def test_views_without_us_are_not_ours(primacy):
    assert primacy.sees("XQ_q") == primacy.sees("XQ_q", "other") == []
    assert primacy.stage is Stage.MEETING


def test_a_group_counts_once(primacy):
    primacy.sees("XQ_q", "me")
    for _ in range(9):
        assert primacy.sees("MQ_q", "me") == []
    assert primacy.stage is Stage.ENTERING


def test_only_the_primary_answers(primacy):
    primacy.asked("other")
    assert primacy.said() == []
    primacy.sees("XQ_q", "me")
    primacy.enter()
    primacy.said()
    primacy.asked("other")
    assert primacy.said() == [(("other",), TookOver)]


def test_a_newcomer_gives_way_to_any_primary(primacy):
    primacy.sees("XQ_q", "me", "other")
    (end,) = primacy.other_took_over((1, 3), "other", OTHER)
    assert end == Exit(4, "queue q is managed by other (process 2 on h2) already; stop that one first")
    assert primacy.stage is Stage.STOPPED
    assert primacy.deadline is None


@pytest.mark.parametrize(
    ("other", "stays"), [((0, 9), True), ((1, 4), True), ((1, 6), False), ((2, 1), False)]
)
def test_of_two_primaries_the_higher_stays(primary, other, stays):
    effects = primary.other_took_over(other, "other", OTHER)
    assert primary.manages == stays
    if stays:
        assert effects == []
        assert primary.said() == [(("other",), TookOver)], "which tells it"
    else:
        assert isinstance(effects[0], Note)
        assert effects[1] == Exit(75, "other (process 2 on h2) has taken queue q over")


def test_who_takes_over_from_one_that_is_silent_leaves_its_epoch_behind(primacy):
    primacy.sees("XQ_q", "me", "frozen")
    primacy.tick(primacy.deadline)
    assert primacy.enter()[0] == KeepEpoch(UNHEARD_STEP + 1)


def test_a_higher_epoch_is_outbid_by_who_is_alone(primary):
    assert primary.heard(7, 0)[0] == KeepEpoch(8)
    assert primary.said() == [(("PQ_q", "SQ_q", "XQ_q"), TookOver)]


def test_a_higher_epoch_is_remembered_by_who_is_not_alone(primary):
    primary.sees("XQ_q", "me", "other")
    assert primary.heard(7, 0) == []
    assert primary.state.heard == 7
    assert primary.said() == [(("XQ_q",), TookOver)], "is it you?"
    primary.sees("XQ_q", "me", cause=Cause.LEAVE)
    assert primary.heard(7, 0)[0] == KeepEpoch(8)


def test_a_higher_epoch_is_outbid_when_nobody_says_that_it_is_his(primary):
    primary.sees("XQ_q", "me", "frozen")
    primary.heard(7, 0)
    primary.heard(8, 1)
    assert primary.deadline == 2 * SECOND
    assert primary.tick(primary.deadline)[0] == KeepEpoch(9)
    assert primary.deadline is None


def test_there_is_no_epoch_above_the_highest(primary):
    assert primary.heard(EPOCH_LIMIT, 0)[0] == KeepEpoch(EPOCH_LIMIT)


def test_after_a_reconnect_the_epoch_stays_unless_a_higher_one_was_heard(primary):
    primary.disconnected()
    assert primary.stage is Stage.OFFLINE
    primary.connected("me")
    primary.sees("XQ_q", "me")
    (note,) = primary.enter()
    assert note.fields == {"epoch": 1}
    primary.sees("XQ_q", "me", "other")
    primary.heard(3, 0)
    primary.connected("me")
    primary.sees("XQ_q", "me")
    assert primary.enter()[0] == KeepEpoch(4)


def test_when_a_partition_is_over_primaries_tell_each_other(primary):
    primary.sees("XQ_q", "me", "other", cause=Cause.NETWORK)
    assert primary.said() == [(("XQ_q",), TookOver)]


def test_when_a_peer_obeys_another_primaries_tell_each_other(primary):
    primary.contest()
    assert primary.said() == [], "that one is gone"
    primary.sees("XQ_q", "me", "other")
    primary.contest()
    assert primary.said() == [(("XQ_q",), TookOver)]


def test_a_newcomer_in_a_partition_asks_as_ever(primacy):
    primacy.sees("XQ_q", "me", "other", cause=Cause.NETWORK)
    assert primacy.said() == [(("XQ_q",), Who)]

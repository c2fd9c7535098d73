"""Links: every message arrives once and in order, whatever is lost, repeated or reordered."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from spreadq_core.codec import decode
from spreadq_core.effects import Service
from spreadq_core.ids import MILLISECOND
from spreadq_core.link import CHUNK_LIMIT, FIRST_CHUNK, Link, Speaker
from spreadq_core.messages import Accepted, Frame, Submit, Unserved
from spreadq_core.policy import Policy
from tests.core.invariants import check_link

POLICY = Policy()


class End:
    """One side of a link, with what it sent and what it got."""

    def __init__(self, instance, peer, policy=POLICY, window=10, grant=10):
        self.speaker = Speaker("q", instance, 0)
        self.link = Link(1, (f"home of {peer}",), Service.FIFO, peer, grant=grant, window=window)
        self.policy = policy
        self.got = []

    def say(self, *numbers, casts=()):
        messages = [Unserved(number) for number in numbers]
        if casts:
            self.link.casts.setdefault(casts, []).extend(messages)
        else:
            self.link.mail += messages

    def flush(self, now):
        out = []
        self.link.flush(self.speaker, now, self.policy, out)
        check_link(self.link)
        return out

    def frames(self, now):
        return [decode(send.kind, send.body, "q") for send in self.flush(now)]

    def hear(self, frame, now, ahead=10):
        receipted = self.link.receipted(frame.receipt, now)
        self.got += [message.counter for message in self.link.receive(frame, now, ahead)]
        check_link(self.link)
        return receipted


def pair(**options):
    return End(1, 2, **options), End(2, 1, **options)


def carried(frame):
    return [message.counter for message in frame.messages]


# --- what a frame says ----------------------------------------------------------------------------


def test_all_that_waits_for_a_destination_is_one_frame():
    a, _ = pair()
    a.say(1, 2)
    a.say(3)
    (frame,) = a.frames(5)
    assert frame == Frame("q", 1, 2, 1, 1, 0, 0, 10, [Unserved(n) for n in (1, 2, 3)])
    assert a.frames(6) == []


def test_what_goes_to_others_too_is_a_frame_of_its_own():
    a, _ = pair()
    a.say(1)
    a.say(2, casts=("x", "y"))
    sends = a.flush(5)
    assert [send.groups for send in sends] == [("home of 2",), ("x", "y")]
    assert [decode(send.kind, send.body, "q").number for send in sends] == [1, 2]


def test_a_frame_of_no_link_is_not_numbered():
    send = Speaker("q", 1, 4).alone(("x",), [Accepted(1)])
    assert decode(send.kind, send.body, "q") == Frame("q", 1, 0, 0, 0, 0, 4, 0, [Accepted(1)])
    assert send.service is Service.AGREED


# --- receipts -------------------------------------------------------------------------------------


def test_receipts_ride_on_frames_that_go_anyway():
    a, b = pair()
    a.say(1)
    (frame,) = a.frames(0)
    b.hear(frame, 1)
    b.say(7)
    (answer,) = b.frames(2)
    assert (answer.receipt, carried(answer)) == (1, [7])
    assert [sent.number for sent in a.hear(answer, 3)] == [1]
    assert b.link.owed == 0


def test_a_receipt_goes_alone_after_50_ms_of_silence():
    a, b = pair()
    a.say(1)
    (frame,) = a.frames(0)
    b.hear(frame, 1)
    assert b.link.deadline(POLICY) == 1 + 50 * MILLISECOND
    assert b.frames(50 * MILLISECOND) == []
    (receipt,) = b.frames(1 + 50 * MILLISECOND)
    assert (receipt.number, receipt.receipt, receipt.messages) == (0, 1, [])
    assert b.link.deadline(POLICY) is None


def test_a_receipt_goes_at_once_at_half_a_window():
    a, b = pair(window=4, grant=4)
    for number in (1, 2):
        a.say(number)
        (frame,) = a.frames(0)
        b.hear(frame, 1)
        assert len(b.frames(1)) == (number == 2)


def test_a_receipt_is_not_receipted_itself():
    a, b = pair()
    a.say(1)
    (frame,) = a.frames(0)
    b.hear(frame, 0)
    (receipt,) = b.frames(50 * MILLISECOND)
    a.hear(receipt, 50 * MILLISECOND)
    assert a.link.deadline(POLICY) is None


def test_receipting_again_or_less_changes_nothing():
    a, _ = pair()
    for number in (1, 2, 3):
        a.say(number)
        a.flush(0)
    assert len(a.link.receipted(2, 5)) == 2
    assert a.link.receipted(2, 5) == a.link.receipted(1, 5) == []
    assert [sent.number for sent in a.link.unreceipted] == [3]
    assert len(a.link.receipted(10**9, 5)) == 1


# --- repetition -----------------------------------------------------------------------------------


def test_a_frame_is_sent_again_after_200_ms_then_later_and_later_up_to_a_second():
    a, _ = pair()
    a.say(1)
    a.flush(0)
    at = [0]
    for _ in range(5):
        at.append(a.link.deadline(POLICY))
        assert a.frames(at[-1] - 1) == []
        (frame,) = a.frames(at[-1])
        assert (frame.number, carried(frame)) == (1, [1])
    waits = [(after - before) // MILLISECOND for before, after in pairwise(at)]
    assert waits == [200, 400, 800, 1000, 1000]


def test_a_frame_is_sent_again_to_where_it_went():
    a, _ = pair()
    a.say(1, casts=("x", "y"))
    (send,) = a.flush(0)
    (again,) = a.flush(200 * MILLISECOND)
    assert again.groups == send.groups == ("x", "y")


def test_on_a_slow_path_a_frame_has_four_round_trips():
    a, b = pair()
    now = 0
    for number in range(1, 100):
        a.say(number)
        (frame,) = a.frames(now)
        b.hear(frame, now)
        now += 100 * MILLISECOND
        (receipt,) = b.frames(now)
        a.hear(receipt, now)
    assert 99 * MILLISECOND < a.link.round_trip <= 100 * MILLISECOND
    a.say(100)
    a.flush(now)
    assert a.link.deadline(POLICY) == now + 4 * a.link.round_trip


def test_the_round_trip_of_a_repeated_frame_is_not_known():
    a, _ = pair()
    a.say(1)
    a.flush(0)
    a.flush(200 * MILLISECOND)
    a.link.receipted(1, 201 * MILLISECOND)
    assert a.link.round_trip == 0


def test_the_round_trip_of_a_frame_that_had_to_wait_for_a_lost_one_is_not_known():
    a, b = pair()
    frames = []
    for number in (1, 2, 3):
        a.say(number)
        frames += a.frames(0)
    for frame in frames[1:]:
        b.hear(frame, 0)
    a.flush(200 * MILLISECOND)
    b.hear(frames[0], 5_000 * MILLISECOND)
    a.link.receipted(b.link.received, 5_000 * MILLISECOND)
    assert a.link.round_trip == 0
    assert a.link.unreceipted == []


def test_however_long_nobody_answers_the_deadline_is_soon():
    a, _ = pair()
    a.say(1)
    a.flush(0)
    now = 0
    for _ in range(1_000):
        now = a.link.deadline(POLICY)
        a.flush(now)
    assert a.link.deadline(POLICY) - now == POLICY.resend_limit


def test_a_lost_frame_holds_back_those_that_follow():
    a, b = pair()
    frames = []
    for number in (1, 2, 3):
        a.say(number)
        frames += a.frames(0)
    b.hear(frames[1], 1)
    b.hear(frames[2], 1)
    assert b.got == []
    assert b.link.received == 0
    b.hear(frames[0], 2)
    assert b.got == [1, 2, 3]
    assert b.link.received == 3


def test_a_frame_too_far_ahead_is_not_kept_but_comes_again():
    a, b = pair()
    frames = []
    for number in (1, 2, 3):
        a.say(number)
        frames += a.frames(0)
    b.hear(frames[2], 1, ahead=2)
    assert b.link.ahead == {}
    b.hear(frames[1], 1, ahead=2)
    assert list(b.link.ahead) == [2]
    b.hear(frames[0], 1, ahead=2)
    assert b.got == [1, 2]
    b.hear(frames[2], 1, ahead=2)
    assert b.got == [1, 2, 3]


# --- windows --------------------------------------------------------------------------------------


def test_more_than_the_window_waits():
    a, b = pair(window=2)
    for number in (1, 2, 3):
        a.say(number)
        assert len(a.frames(0)) == (number < 3)
    a.say(4, casts=("x",))
    a.say(5, casts=("y",))
    assert a.frames(0) == []
    b.say(9)
    (answer,) = b.frames(0)
    a.hear(replace(answer, receipt=2), 0)
    assert [carried(frame) for frame in a.frames(0)] == [[3], [4], [5]]


def test_the_other_side_tells_the_window():
    a, b = pair(window=1, grant=3)
    b.say(9)
    (frame,) = b.frames(0)
    a.hear(frame, 0)
    assert a.link.window == 3
    a.hear(replace(frame, number=0, window=0), 0)
    assert a.link.window == 3, "0: not said"


# --- frame sizes ----------------------------------------------------------------------------------


def say_sized(end, sizes):
    end.link.mail += [Submit(n, b"", b"x" * size) for n, size in enumerate(sizes, 1)]


@given(st.lists(st.integers(0, 3_000), max_size=200))
def test_a_frame_keeps_its_limit_unless_one_message_alone_is_larger(sizes):
    policy = Policy(frame_limit=2_000)
    end = End(1, 2, policy, window=10**6)
    say_sized(end, sizes)
    sends = end.flush(0)
    frames = [decode(send.kind, send.body, "q") for send in sends]
    for send, frame in zip(sends, frames, strict=True):
        assert len(send.body) <= 2_000 or len(frame.messages) == 1
    assert [message.counter for frame in frames for message in frame.messages] == list(
        range(1, len(sizes) + 1)
    )


def test_small_messages_make_frames_longer():
    a, _ = pair(window=10**6)
    a.say(*range(1, 10_000))
    lengths = [len(frame.messages) for frame in a.frames(0)]
    assert lengths[0] == FIRST_CHUNK
    assert max(lengths) == CHUNK_LIMIT
    assert a.link.chunk == CHUNK_LIMIT


def test_large_messages_make_frames_shorter():
    end = End(1, 2, window=10**6)
    say_sized(end, [5_000] * 100)
    frames = end.frames(0)
    assert {len(frame.messages) for frame in frames} <= {8, 4}
    assert end.link.chunk == 8


# --- all of it ------------------------------------------------------------------------------------


@given(st.data())
def test_whatever_is_lost_repeated_or_reordered_each_message_arrives_once_and_in_order(data):
    """Two ends talk over a path that does anything; then it heals."""
    policy = Policy(frame_limit=data.draw(st.sampled_from([40, 64 * 1024])))
    windows = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    a = End(1, 2, policy, window=1, grant=windows[0])
    b = End(2, 1, policy, window=1, grant=windows[1])
    ends, now, said, path = (a, b), 0, ([], []), []
    for _ in range(data.draw(st.integers(1, 30))):
        what = data.draw(st.sampled_from(["say", "cast", "flush", "flush", "deliver", "deliver", "lose"]))
        who = data.draw(st.integers(0, 1))
        if what in ("say", "cast"):
            said[who].append((what, len(said[who]) + 1))
            ends[who].say(said[who][-1][1], casts=("x",) if what == "cast" else ())
        elif what == "flush":
            now += data.draw(st.integers(0, 400)) * MILLISECOND
            path += [(1 - who, send) for send in ends[who].flush(now)]
        elif path:
            index = data.draw(st.integers(0, len(path) - 1))
            receiver, send = path[index]
            if what == "lose" or data.draw(st.booleans()):
                del path[index]  # else it may come once more
            if what == "deliver":
                ends[receiver].hear(decode(send.kind, send.body, "q"), now, ahead=4)
        for end in ends:
            assert len(end.link.unreceipted) <= 4
    for _ in range(200):
        for who, end in enumerate(ends):
            for send in end.flush(now):
                path.append((1 - who, send))
        while path:
            receiver, send = path.pop(0)
            ends[receiver].hear(decode(send.kind, send.body, "q"), now, ahead=4)
        now += 100 * MILLISECOND
    for speaker, listener in ((0, b), (1, a)):
        assert sorted(listener.got) == [number for _, number in said[speaker]]
        for what in ("say", "cast"):  # each destination has its own order
            numbers = [number for how, number in said[speaker] if how == what]
            assert [number for number in listener.got if number in numbers] == numbers
    for end in ends:
        assert end.link.deadline(policy) is None
        assert not end.link.unreceipted
        assert not end.link.ahead

"""What the roles say to each other, as values."""

from __future__ import annotations

import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spreadq_core import messages as m
from tests.core.strategies import MESSAGE_TYPES, of


def tag(kind):
    return kind.__struct_config__.tag


def test_every_message_has_its_own_tag_and_is_in_the_union():
    subclasses = set(m.Message.__subclasses__())
    assert subclasses == set(MESSAGE_TYPES)
    assert sorted(map(tag, subclasses)) == list(range(1, len(subclasses) + 1))


@pytest.mark.parametrize("kind", MESSAGE_TYPES)
def test_tags_are_part_of_the_wire_format(kind):
    assert tag(kind) == {
        "SenderHello": 1, "Submit": 2, "Closed": 3, "Confirm": 4, "Accepted": 5, "Rejected": 6,
        "Unserved": 7, "Assign": 8, "Cancel": 9, "WorkerHello": 10, "Claim": 11, "Ready": 12,
        "Draining": 13, "JobOver": 14, "HandBack": 15, "Outcome": 16, "Response": 17, "TookOver": 18,
        "Welcome": 19, "Who": 20, "StatusRequest": 21, "StatusReport": 22,
    }[kind.__name__]  # fmt: skip


@pytest.mark.parametrize("kind", MESSAGE_TYPES)
@given(data=st.data())
def test_every_message_is_read_as_it_was_written(kind, data):
    message = data.draw(of(kind))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=m.AnyMessage) == message


@pytest.mark.parametrize("kind", MESSAGE_TYPES)
@given(data=st.data())
def test_messages_grow_by_added_fields(kind, data):
    message = data.draw(of(kind))
    grown = [*msgspec.msgpack.decode(msgspec.msgpack.encode(message)), "a later version's", 1]
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(grown), type=m.AnyMessage) == message


@pytest.mark.parametrize(
    "message",
    [
        m.Submit(0, b"", b""),
        m.Submit(-1, b"", b""),
        m.Submit(2**62 + 1, b"", b""),
        m.Cancel(-1, 1, 1),
        m.Cancel(1, 1, -1),
        m.Closed(((-1, 2),)),
        m.Welcome(0),
        m.Assign(1, 1, 0, -1, "", m.Submit(1, b"", b"")),
        m.Response(1, 1, 1, 1, -1, b"", ""),
        m.Outcome(1, 1, 1, 1, 8),
        m.Outcome(1, 1, 1, 1, m.Status.DONE, 0, b"", "c" * 256),
    ],
)
def test_what_is_out_of_range_is_malformed(message):
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=m.AnyMessage)


def test_messages_hold_no_references_in_cycles():
    kinds = [*MESSAGE_TYPES, m.Frame, m.About]
    assert not any(kind.__struct_config__.gc for kind in kinds)
    assert all(kind.__struct_config__.array_like for kind in kinds)


def test_what_never_travels_is_above_what_does():
    travels = [m.Status.DONE, m.Status.FAILED, m.Status.BURIED, m.Status.EXPIRED, m.Status.CANCELLED]
    assert sorted(m.Status)[: len(travels)] == travels
    assert set(typing.get_args(m.FromSender)) <= set(MESSAGE_TYPES)

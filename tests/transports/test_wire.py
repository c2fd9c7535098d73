"""Single messages: round trips in both byte orders, and what is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spreadq_core.events import Cause
from tests.transports import strategies
from transports.base import IllegalGroupError, ProtocolError
from transports.spread.messages import (
    AGREED,
    FIFO,
    JOIN,
    Data,
    GroupId,
    Join,
    Kill,
    Membership,
    TransitionSignal,
)
from transports.spread.wire import (
    DAEMON_GROUPS_LIMIT,
    ENDIAN_MARK,
    HEADER_SIZE,
    LARGE_MESSAGE_LIMIT,
    NAME_SIZE,
    ByteOrder,
    decode_from_client,
    decode_from_daemon,
    decode_name,
    encode,
    encode_name,
    locate,
)


def reread(frame: bytes, decode=decode_from_daemon):
    header, body_at, end = locate(frame, 0)
    assert end == len(frame)
    return decode(frame, header, HEADER_SIZE, body_at, end)


def header(
    type_word: int = AGREED | ENDIAN_MARK,
    name: bytes = b"#alice#localhost",
    num_groups: int = 0,
    hint: int = ENDIAN_MARK,
    data_len: int = 0,
) -> bytes:
    return struct.pack("<I32siIi", type_word, name, num_groups, hint, data_len)


@given(strategies.daemon_messages, strategies.byte_orders)
def test_a_daemons_messages_survive(message, order: ByteOrder) -> None:
    assert reread(encode(message, order)) == message


@given(strategies.client_messages, strategies.byte_orders)
def test_a_clients_messages_survive(message, order: ByteOrder) -> None:
    assert reread(encode(message, order), decode_from_client) == message


@given(st.binary(min_size=NAME_SIZE, max_size=NAME_SIZE))
def test_names_are_cut_at_the_first_nul_and_nothing_else_is_lost(field: bytes) -> None:
    name = decode_name(field)
    assert encode_name(name) == field.split(b"\0")[0].ljust(NAME_SIZE, b"\0")


@pytest.mark.parametrize("name", ["x" * (NAME_SIZE + 1), "日本"])
def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(IllegalGroupError, match="no name of at most 32 bytes"):
        encode(Join("#alice#localhost", name))


def test_what_the_c_library_writes() -> None:
    frame = encode(Data("#alice#localhost", ("room",), 7, b"hello", AGREED))
    assert frame.startswith(bytes.fromhex("90000080") + b"#alice#localhost\0")
    assert frame[36:HEADER_SIZE] == bytes.fromhex("01000000 80070080 05000000")
    assert frame[HEADER_SIZE:] == b"room".ljust(NAME_SIZE, b"\0") + b"hello"


@pytest.mark.parametrize(
    ("number", "hint"), [(0, 0), (1, 0x100), (0x7FFF, 0x7FFF00), (-1, 0xFFFF00), (-0x8000, 0x800000)]
)
def test_mess_type_is_signed_and_in_bits_8_to_23(number: int, hint: int) -> None:
    frame = encode(Data("#a#d", (), number, b"", FIFO))
    assert frame[40:44] == struct.pack("<I", hint | ENDIAN_MARK)
    assert reread(frame).mess_type == number


def test_the_hint_is_read_by_its_own_mark() -> None:
    big_hint_in_little_header = header(hint=0x00341200)
    message = reread(big_hint_in_little_header)
    assert (message.mess_type, message.endian_mismatch) == (0x1234, True)


@pytest.mark.parametrize(
    ("bits", "kind"),
    [
        (0x3F | 0x400000 | 0x3F00, "Data"),
        (0x400000 | 0x3F00, "Reject"),
        (0x1000 | 0x2000 | 0x200, "Membership"),
        (0x2000 | 0x200, "TransitionSignal"),
        (0x200, "SelfLeave"),
    ],
)
def test_bits_are_looked_at_in_the_protocols_order(bits: int, kind: str) -> None:
    extra = b"\0\0\0\0" if kind == "Reject" else b""
    body = struct.pack("<iiiIII32s", 1, 2, 3, 1, 0, 1, b"#a#d")
    frame = header(bits | ENDIAN_MARK, data_len=len(body)) + extra + body
    assert type(reread(frame)).__name__ == kind


@pytest.mark.parametrize("bits", [0, 0x100, 0x400, 0x800, 0x40, 0x10000, 0x80000])
def test_an_unknown_type_is_refused(bits: int) -> None:
    with pytest.raises(ProtocolError, match="unknown type"):
        reread(header(bits | ENDIAN_MARK))


@pytest.mark.parametrize(
    ("num_groups", "data_len"),
    [
        (-1, 0),
        (0, -1),
        (0, LARGE_MESSAGE_LIMIT + 1),
        (1, LARGE_MESSAGE_LIMIT + 1 - NAME_SIZE),
        (2**31 - 1, 0),
        (0, 2**31 - 1),
    ],
)
def test_absurd_lengths_are_refused(num_groups: int, data_len: int) -> None:
    with pytest.raises(ProtocolError, match="check the address"):
        locate(header(num_groups=num_groups, data_len=data_len), 0)


@pytest.mark.parametrize("num_groups", [0, 1, 3000])
def test_the_largest_message_of_any_build_is_taken(num_groups: int) -> None:
    data_len = LARGE_MESSAGE_LIMIT - NAME_SIZE * num_groups
    _, body_at, end = locate(header(num_groups=num_groups, data_len=data_len), 0)
    assert (body_at, end) == (HEADER_SIZE + NAME_SIZE * num_groups, HEADER_SIZE + LARGE_MESSAGE_LIMIT)


def test_a_view_of_3000_members_survives() -> None:
    members = tuple(f"#member{index:04}#localhost" for index in range(3000))
    view = Membership("room", members, Cause.NETWORK, GroupId(1, 2, 3), (members[:10], members[10:]), 1)
    assert reread(encode(view)) == view


MEMBER = b"#a#d".ljust(NAME_SIZE, b"\0")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        struct.pack("<iii", 1, 2, 3),
        struct.pack("<iiiII", 1, 2, 3, 0, 0),
        struct.pack("<iiiIII", 1, 2, 3, 1, 0, 0),
        struct.pack("<iiiIII", 1, 2, 3, 1, 0, 1) + MEMBER[:-1],
        struct.pack("<iiiIII", 1, 2, 3, 1, 0, 0xFFFFFFFF) + MEMBER,
        struct.pack("<iiiIII", 1, 2, 3, 2, 0, 1) + MEMBER,
        struct.pack("<iiiIII", 1, 2, 3, 1, 4, 1) + MEMBER,
        struct.pack("<iiiIII", 1, 2, 3, 0xFFFFFFFF, 0, 1) + MEMBER,
        struct.pack("<iiiIII", 1, 2, 3, 1, 0xFFFFFFFF, 1) + MEMBER,
    ],
    ids=[
        "empty",
        "id only",
        "no set",
        "empty set",
        "cut in a name",
        "absurd count of names",
        "a set is missing",
        "offset is no set's",
        "absurd count of sets",
        "absurd offset",
    ],
)
def test_a_membership_that_contradicts_itself_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="membership"):
        reread(header(0x1100 | ENDIAN_MARK, b"room", data_len=len(body)) + body)


def test_a_membership_without_a_cause_is_refused() -> None:
    body = struct.pack("<iiiIII", 1, 2, 3, 1, 0, 1) + MEMBER
    with pytest.raises(ProtocolError, match="membership"):
        reread(header(0x1000 | ENDIAN_MARK, b"room", data_len=len(body)) + body)


def test_a_transition_without_an_id_is_refused() -> None:
    frame = encode(TransitionSignal("room", GroupId(1, 2, 3)))
    with pytest.raises(ProtocolError, match="group id"):
        reread(frame[:44] + struct.pack("<i", 11) + frame[HEADER_SIZE:-1])


# --- what a daemon refuses (PROTOCOL 3.7) ---------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (header(0x14 | ENDIAN_MARK), "not one service or one request"),
        (header(0x00 | ENDIAN_MARK), "not one service or one request"),
        (header(0x10004 | ENDIAN_MARK), "not one service or one request"),
        (header(num_groups=DAEMON_GROUPS_LIMIT + 1) + MEMBER * 101, "101 groups"),
        (header(hint=ENDIAN_MARK | 1), "hint"),
        (header(hint=ENDIAN_MARK | 0x01000000), "hint"),
        (header(JOIN | ENDIAN_MARK), "names no group"),
    ],
)
def test_a_daemon_refuses(frame: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        reread(frame, decode_from_client)


def test_100_destinations_are_read() -> None:
    frame = header(num_groups=DAEMON_GROUPS_LIMIT) + MEMBER * DAEMON_GROUPS_LIMIT
    assert len(reread(frame, decode_from_client).groups) == DAEMON_GROUPS_LIMIT


def test_a_request_may_have_more_than_it_needs() -> None:
    frame = header(0x40000 | ENDIAN_MARK, num_groups=2, data_len=3) + MEMBER * 2 + b"abc"
    assert reread(frame, decode_from_client) == Kill("#alice#localhost", "#a#d")

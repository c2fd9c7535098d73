"""The stream of messages: any bytes, cut anywhere."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transports import strategies
from tests.transports.vectors import VECTORS
from transports.base import ProtocolError
from transports.spread.messages import AGREED, Data
from transports.spread.reader import Reader
from transports.spread.wire import HEADER_SIZE, LARGE_MESSAGE_LIMIT, encode


def read(chunks: list[bytes]) -> list | None:
    """All messages, or None if the stream is refused."""
    reader = Reader()
    messages = []
    try:
        for chunk in chunks:
            messages += reader.feed(chunk)
    except ProtocolError:
        return None
    return messages


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


sizes = st.lists(st.integers(0, 120), max_size=30)
headers = st.builds(
    struct.Struct("<I32siIi").pack,
    st.integers(0, 2**32 - 1),
    st.binary(max_size=32),
    st.integers(-1, 3) | st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(-1, 200) | st.integers(-(2**31), 2**31 - 1),
)
frames = st.builds(encode, strategies.daemon_messages, strategies.byte_orders)


@st.composite
def damaged_frames(draw: st.DrawFn) -> bytes:
    frame = bytearray(draw(frames))
    for _ in range(draw(st.integers(1, 3))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    return bytes(frame)


streams = st.lists(frames | damaged_frames() | headers | st.binary(max_size=100), max_size=6).map(b"".join)


@given(streams, sizes)
def test_any_bytes_give_messages_or_a_protocol_error_however_they_are_cut(
    data: bytes, sizes: list[int]
) -> None:
    assert read(cut(data, sizes)) == read([data])


@given(st.lists(strategies.daemon_messages, max_size=6), strategies.byte_orders, sizes)
def test_messages_survive_however_they_are_cut(messages: list, order: str, sizes: list[int]) -> None:
    data = b"".join(encode(message, order) for message in messages)
    assert read(cut(data, sizes)) == messages


@pytest.mark.parametrize("size", [1, 47, 48, 49, 1000])
@pytest.mark.parametrize("name", ["two_daemons_partition_merge", "three_daemons_partition_heal", "groups_43"])
def test_captures_survive_however_they_are_cut(name: str, size: int) -> None:
    for connection in VECTORS[name].connections:
        data = VECTORS[name].messages_to(connection)
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert read(chunks) == read([data])


def test_the_largest_message_arrives_in_small_reads() -> None:
    message = Data("#alice#d", ("room",), 0, bytes(LARGE_MESSAGE_LIMIT - 32), AGREED)
    frame = encode(message)
    assert read([frame[at : at + 65536] for at in range(0, len(frame), 65536)]) == [message]


def test_nothing_is_allocated_for_what_a_header_only_promises() -> None:
    reader = Reader()
    header = encode(Data("#alice#d", (), 0, bytes(LARGE_MESSAGE_LIMIT), AGREED))[:HEADER_SIZE]
    assert reader.feed(header) == []
    assert len(reader._incomplete) == HEADER_SIZE


def test_a_length_over_the_limit_is_refused_with_the_header() -> None:
    header = encode(Data("#alice#d", (), 0, bytes(LARGE_MESSAGE_LIMIT + 1), AGREED))[:HEADER_SIZE]
    with pytest.raises(ProtocolError):
        Reader().feed(header)

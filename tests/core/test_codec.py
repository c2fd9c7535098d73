"""Frames as bytes and back."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spreadq_core import messages as m
from spreadq_core.codec import FAMILY, KIND, VERSION, decode, encode
from spreadq_core.errors import PeerError
from spreadq_core.policy import BODY_LIMIT, EPOCH_LIMIT
from tests.core.strategies import ANY_MESSAGE, FRAMES, KINDS, bodies, builtins, of


def frame(*messages, **header):
    fields = {"queue": "q", "source": 1, "target": 0, "link": 1, "number": 1, "receipt": 0, "epoch": 0}
    return m.Frame(**{**fields, "window": 1, **header}, messages=list(messages))


@given(of(m.Frame, queue=st.just("q"), messages=st.lists(ANY_MESSAGE, max_size=4)))
def test_a_frame_is_read_as_it_was_written(frame):
    assert decode(KIND, encode(frame), "q") == frame


@given(KINDS, bodies())
def test_whatever_else_comes_is_a_peers_error(kind, body):
    try:
        frame = decode(kind, body, "q")
    except PeerError:
        return
    assert kind == KIND
    assert frame.queue == "q"
    assert decode(KIND, encode(frame), "q") == frame


def test_a_kind_has_a_family_and_a_version():
    assert KIND == FAMILY | VERSION == 0x5101


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (0, "message type 0 is none of ours"),
        (-1, "message type -1 is none of ours"),
        (KIND + 1, "protocol version 2, this is version 1"),
    ],
)
def test_another_kind_is_told_apart(kind, reason):
    with pytest.raises(PeerError, match=reason):
        decode(kind, encode(frame()), "q")


def test_another_queues_frame_is_refused():
    with pytest.raises(PeerError, match="frame for queue 'q'"):
        decode(KIND, encode(frame()), "p")


def test_a_body_of_the_limit_is_read_and_one_more_byte_is_not():
    body = encode(frame(m.Submit(1, b"", b"")))
    full = encode(frame(m.Submit(1, b"", b"x" * (BODY_LIMIT - len(body) - 3))))
    assert BODY_LIMIT - 2 <= len(full) <= BODY_LIMIT
    assert decode(KIND, full, "q")
    with pytest.raises(PeerError, match=f"frame of {BODY_LIMIT + 1} bytes"):
        decode(KIND, b"x" * (BODY_LIMIT + 1), "q")


@pytest.mark.parametrize(
    "header",
    [
        {"source": -1},
        {"target": -1},
        {"link": -1},
        {"number": -1},
        {"receipt": -1},
        {"window": -1},
        {"epoch": -1},
        {"epoch": EPOCH_LIMIT + 1},
        {"number": 2**63},
    ],
)
def test_a_header_out_of_range_is_malformed(header):
    with pytest.raises(PeerError, match="malformed frame"):
        decode(KIND, encode(frame(**header)), "q")


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x90", b"\xc7", b"\x91" * 100_000, b"\x99\xa1\xff"])
def test_what_is_no_frame_is_malformed(body):
    with pytest.raises(PeerError, match="malformed frame"):
        decode(KIND, body, "q")


@given(FRAMES)
def test_one_message_that_is_malformed_makes_its_frame_so(frame):
    plain = builtins(frame)
    plain[-1].append([99, 1])
    with pytest.raises(PeerError):
        decode(KIND, msgspec.msgpack.encode(plain), frame.queue)

"""The client without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spreadq_core.effects import Service
from spreadq_core.events import Cause, Connected, Received, Transition, ViewChanged
from tests.transports import strategies
from transports.base import (
    IllegalGroupError,
    IllegalKindError,
    MessageTooLongError,
    ProtocolError,
    TransportError,
    body_limit,
)
from transports.spread.handshake import Accept, encode_accept, encode_auth_list
from transports.spread.messages import (
    AGREED,
    FIFO,
    Data,
    GroupId,
    Join,
    Kill,
    Leave,
    Membership,
    Reject,
    SelfLeave,
    TransitionSignal,
)
from transports.spread.session import Session, unconnected
from transports.spread.wire import encode

ME = "#alice#d1"
ID = GroupId(1, 2, 3)
OFFER = encode_auth_list(("NULL",))
ACCEPT = encode_accept(Accept(ME))


def connected() -> Session:
    session = Session("alice", membership=True)
    session.take_output()
    session.receive(OFFER)
    session.take_output()
    assert session.receive(ACCEPT) == [Connected(ME)]
    return session


def test_output_and_input_of_a_handshake() -> None:
    session = Session("alice", membership=False)
    assert session.take_output() == b"\4\4\0\0\5alice"
    assert session.receive(OFFER[:3]) == []
    assert session.take_output() == b""
    assert session.receive(OFFER[3:]) == []
    assert session.take_output() == b"NULL" + bytes(86)
    assert session.name == ""
    first = encode(Data("#bob#d1", ("room",), 1, b"x"))
    assert session.receive(ACCEPT + first) == [Connected(ME), Received("#bob#d1", ("room",), 1, b"x")]
    assert session.name == ME
    assert session.take_output() == b""


def test_a_handshake_that_ends_in_nonsense_gives_no_session() -> None:
    session = Session("alice", membership=True)
    session.receive(OFFER)
    with pytest.raises(ProtocolError):
        session.receive(ACCEPT + bytes(48))
    assert session.name == ""


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (Data("#b#d2", ("g", "h"), -3, b"body", AGREED), Received("#b#d2", ("g", "h"), -3, b"body")),
        (
            Membership("g", ("#a#d1", "#b#d2"), Cause.JOIN, ID, (("#b#d2",),)),
            ViewChanged("g", ("#a#d1", "#b#d2"), Cause.JOIN, ("#b#d2",)),
        ),
        (
            Membership("g", (ME, "#b#d2"), Cause.NETWORK, ID, (("#b#d2",), (ME,)), 1),
            ViewChanged("g", (ME, "#b#d2"), Cause.NETWORK, (ME,)),
        ),
        (SelfLeave("g"), ViewChanged("g", (), Cause.LEAVE, (ME,))),
        (TransitionSignal("g", ID), Transition("g")),
    ],
)
def test_messages_become_events(message, event) -> None:
    assert connected().receive(encode(message)) == [event]


def test_a_reject_is_no_event() -> None:
    assert connected().receive(encode(Reject(ME, ("g", ME), 0, b"", 0x80000090))) == []


def test_requests_go_out_in_one_piece_and_in_order() -> None:
    session = connected()
    session.join("g")
    session.send(("g", "#b#d2"), Service.AGREED, -1, b"one")
    session.send(("g",), Service.FIFO, 7, b"")
    session.leave("g")
    session.kill()
    assert session.take_output() == b"".join(
        encode(message)
        for message in (
            Join(ME, "g"),
            Data(ME, ("g", "#b#d2"), -1, b"one", AGREED),
            Data(ME, ("g",), 7, b"", FIFO),
            Leave(ME, "g"),
            Kill(ME, ME),
        )
    )
    assert session.take_output() == b""


@pytest.mark.parametrize("session", [unconnected(), Session("alice", membership=True)])
def test_before_the_connection_requests_are_checked_and_dropped(session: Session) -> None:
    session.take_output()
    session.join("g")
    session.send(("g",), Service.AGREED, 0, b"x")
    session.kill()
    assert session.take_output() == b""
    with pytest.raises(IllegalGroupError):
        session.leave("")
    with pytest.raises(IllegalKindError):
        session.send(("g",), Service.AGREED, 1 << 15, b"x")


def test_after_the_connection_requests_are_dropped_as_well() -> None:
    session = connected()
    session.join("g")
    session.end()
    session.join("g")
    assert (session.name, session.take_output()) == ("", b"")


def test_what_is_refused_leaves_nothing_behind() -> None:
    session = connected()
    with pytest.raises(MessageTooLongError):
        session.send(("g",), Service.AGREED, 0, bytes(body_limit(1) + 1))
    assert session.take_output() == b""


@given(st.lists(st.binary(max_size=60) | st.sampled_from([OFFER, ACCEPT]), max_size=8))
def test_any_bytes_give_events_or_a_transport_error(chunks: list[bytes]) -> None:
    session = Session("alice", membership=True)
    try:
        for chunk in chunks:
            session.receive(chunk)
    except TransportError:
        pass


@given(st.lists(strategies.daemon_messages, max_size=5), st.lists(st.integers(1, 40), max_size=20))
def test_events_do_not_depend_on_how_the_stream_is_cut(messages: list, sizes: list[int]) -> None:
    data = OFFER + ACCEPT + b"".join(map(encode, messages))
    whole = Session("alice", membership=True).receive(data)
    session = Session("alice", membership=True)
    events = []
    for size in sizes:
        events += session.receive(data[:size])
        data = data[size:]
    assert events + session.receive(data) == whole

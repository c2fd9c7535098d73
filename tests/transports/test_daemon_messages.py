"""What the embedded daemon does with a stream of messages, well-formed or not."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from spreadq_core.events import Cause
from tests.transports.raw_peer import Peer, eventually
from transports.base import body_limit
from transports.daemon import connection
from transports.daemon.connection import Connection
from transports.daemon.limits import Limits
from transports.daemon.server import Daemon
from transports.spread.messages import (
    FIFO,
    SELF_DISCARD,
    Data,
    Join,
    Kill,
    Leave,
    Membership,
    SelfLeave,
)
from transports.spread.wire import DAEMON_GROUPS_LIMIT, HEADER_SIZE, encode, encode_data_header

TYPE_AT, NUM_GROUPS_AT = 0, 36


def with_word(message: bytes, at: int, word: int) -> bytes:
    return message[:at] + word.to_bytes(4, "little") + message[at + 4 :]


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    await daemon.start(port=0)
    yield daemon
    await daemon.stop()


@pytest.fixture
async def alice(daemon: Daemon) -> AsyncIterator[Peer]:
    """Watches the group `room`."""
    alice = await Peer.connect(daemon, "alice")
    alice.say(Join(alice.name, "room"))
    await alice.message()
    yield alice
    await alice.close()


@pytest.fixture
async def bob(daemon: Daemon, alice: Peer) -> AsyncIterator[Peer]:
    """Is in `room` as well."""
    bob = await Peer.connect(daemon, "bob")
    bob.say(Join(bob.name, "room"))
    assert await bob.message() == await alice.message()
    yield bob
    await bob.close()


def client_of(peer: Peer, daemon: Daemon) -> Connection:
    return next(member for member in daemon.space.members if member.name == peer.name)


async def assert_cut_off(bob: Peer, alice: Peer) -> None:
    """Bob, and only he, is gone."""
    assert await bob.read_to_end() == b""
    view = await alice.message()
    assert isinstance(view, Membership)
    assert (view.cause, view.members, view.sets) == (Cause.DISCONNECT, (alice.name,), ((bob.name,),))
    assert await alice.unread() == b""


# --- what ends a connection -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bit", [bit for bit in (1 << n for n in range(32)) if not bit & (connection.PERMITTED_BITS | 0x80000080)]
)
async def test_bits_that_are_not_a_clients_to_set(alice: Peer, bob: Peer, bit: int) -> None:
    bob.send(with_word(encode(bob.data("room")), TYPE_AT, 0x80000080 | FIFO | bit))
    await assert_cut_off(bob, alice)


@pytest.mark.parametrize("request_type", [Join, Leave, Kill])
async def test_requests_without_a_group(alice: Peer, bob: Peer, request_type: type) -> None:
    request = encode(request_type(bob.name, "room"))[:HEADER_SIZE]
    bob.send(with_word(request, NUM_GROUPS_AT, 0))
    await assert_cut_off(bob, alice)


@pytest.mark.parametrize("make", [Join, Leave, lambda name, group: Data(name, ("room", group), 0, b"")])
async def test_names_without_nul(alice: Peer, bob: Peer, make: type) -> None:
    bob.say(make(bob.name, "x" * 32))
    await assert_cut_off(bob, alice)


@pytest.mark.parametrize("groups", [1, 2, 43, DAEMON_GROUPS_LIMIT])
async def test_bodies_that_a_real_daemon_would_not_survive(alice: Peer, bob: Peer, groups: int) -> None:
    # The header is enough: nothing is held in memory of a message that is too long.
    header = encode_data_header(bob.name, ("room",) * groups, 0, body_limit(groups) + 1, FIFO)
    bob.send(header[:HEADER_SIZE])
    await assert_cut_off(bob, alice)


async def test_a_body_too_long_behind_a_header_known_from_before(
    alice: Peer, bob: Peer, daemon: Daemon
) -> None:
    short = encode(bob.data("#nobody#localhost"))
    long = encode(bob.data("#nobody#localhost", body=bytes(body_limit(1) + 1)))
    # Past the socket, which might not give it in one piece.
    client_of(bob, daemon).data_received(short + long)
    await assert_cut_off(bob, alice)


async def test_more_groups_than_one_client_may_be_in(alice: Peer, bob: Peer, daemon: Daemon) -> None:
    daemon.limits = Limits(groups=3)
    bob.say(Join(bob.name, "second"), Leave(bob.name, "second"), Join(bob.name, "second"))
    bob.say(Join(bob.name, "third"))
    views = [await bob.message() for _ in range(4)]
    assert [view.group for view in views] == ["second", "second", "second", "third"]
    bob.say(Join(bob.name, "fourth"))
    await assert_cut_off(bob, alice)


async def test_what_came_before_is_delivered_and_what_comes_after_is_not(alice: Peer, bob: Peer) -> None:
    before, after = bob.data("room", body=b"before"), bob.data("room", body=b"after")
    bob.say(before, Kill(bob.name, bob.name), after)
    assert await alice.message() == before
    assert await bob.read_to_end() in (encode(before), b"")
    view = await alice.message()
    assert (view.cause, view.members) == (Cause.DISCONNECT, (alice.name,))
    assert await alice.unread() == b""


# --- what does not ----------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [44, DAEMON_GROUPS_LIMIT])
async def test_more_groups_than_a_real_daemon_delivers_to(alice: Peer, groups: int) -> None:
    message = alice.data(*(f"g{number}" for number in range(groups - 1)), "room", body=b"all")
    alice.say(message)
    assert await alice.message() == message


@pytest.mark.parametrize("groups", [1, 2, 43, DAEMON_GROUPS_LIMIT])
async def test_the_longest_body(alice: Peer, bob: Peer, groups: int) -> None:
    message = bob.data(*("room",) * groups, body=random.Random(1).randbytes(body_limit(groups)))
    bob.say(message, message)
    for receiver in (alice, bob):
        assert await receiver.message() == message
        assert await receiver.message() == message


@pytest.mark.parametrize("order", ["little", "big"])
async def test_messages_may_be_cut_anywhere(alice: Peer, bob: Peer, order: str) -> None:
    expected = [bob.data("room", body=bytes(size)) for size in (0, 1, 100)]
    stream = b"".join(encode(message, order) for message in expected)
    for byte in stream:
        bob.send(bytes((byte,)))
        if byte % 5 == 0:
            await bob._writer.drain()
    for message in expected:
        received = await alice.message()
        assert (received.sender, received.groups, received.body) == (bob.name, ("room",), message.body)
        assert received.endian_mismatch == (order == "big")


@pytest.mark.parametrize("order", ["little", "big"])
async def test_padding_is_forwarded_as_it_came(alice: Peer, bob: Peer, order: str) -> None:
    name = bob.name.encode() + b"\0"
    for field in (name, b"room\0"):
        padded = field.ljust(32, b"\0"), field.ljust(32, b"?")
        bob.send(encode(bob.data("room", body=b"x"), order).replace(*padded))
        assert padded[1] in await alice.read(HEADER_SIZE + 32 + 1)


async def test_requests_and_messages_in_one_write_keep_their_order(alice: Peer, daemon: Daemon) -> None:
    carol = await Peer.connect(daemon, "carol")
    first, last = carol.data("room", body=b"first"), carol.data("room", body=b"last")
    carol.say(last, Join(carol.name, "room"), first, first, Leave(carol.name, "room"), last)
    view, *rest = [await carol.message() for _ in range(4)]
    assert view.members == (alice.name, carol.name)
    assert rest == [first, first, SelfLeave("room")]
    assert await carol.unread() == b""
    heard = [await alice.message() for _ in range(6)]
    assert [message.cause for message in heard if isinstance(message, Membership)] == [
        Cause.JOIN,
        Cause.LEAVE,
    ]
    assert [message for message in heard if isinstance(message, Data)] == [last, first, first, last]
    await carol.close()


async def test_messages_that_begin_alike_or_not_arrive_as_they_were_sent(alice: Peer, bob: Peer) -> None:
    choice = random.Random(1)
    messages = [
        Data(
            bob.name,
            choice.choice([("room",), ("room", "other"), ("other",), (alice.name,), ("room", bob.name)]),
            choice.choice([0, 1, -1]),
            choice.randbytes(choice.randrange(300)),
            choice.choice([FIFO, FIFO | SELF_DISCARD]),
        )
        for _ in range(2000)
    ]
    bob.say(*messages)
    for message in messages:
        if message.groups != ("other",):
            assert await alice.message() == message
        if {"room", bob.name} & set(message.groups) and not message.type_bits & SELF_DISCARD:
            assert await bob.message() == message
    assert await alice.unread() == b""
    assert await bob.unread() == b""


async def test_routes_are_remembered_up_to_a_limit(
    daemon: Daemon, alice: Peer, bob: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ROUTES_LIMIT", 10)
    client = client_of(bob, daemon)
    messages = [bob.data("room", f"g{number % 25}") for number in range(100)]
    messages += [bob.data("room", *("g",) * number) for number in range(10)]
    bob.say(*messages)
    for message in messages:
        assert await alice.message() == message
    assert 1 <= len(client._routes) <= 10


async def test_a_client_that_sends_a_long_message_slowly_holds_no_more_than_that(
    daemon: Daemon, alice: Peer, bob: Peer
) -> None:
    client = client_of(bob, daemon)
    message = encode(bob.data(alice.name, body=bytes(body_limit(1))))
    bob.send(message[:-1])
    await eventually(lambda: len(client._incomplete) == len(message) - 1)
    bob.send(message[-1:])
    assert await alice.read(len(message)) == message
    assert await bob.unread() == b""
    assert len(client._incomplete) == 0


async def test_all_members_see_one_order(daemon: Daemon) -> None:
    members = [await Peer.connect(daemon, name, membership=False) for name in ("a", "b", "c")]
    for member in members:
        member.say(Join(member.name, "room"))
        await member.unread()
    for number in range(100):
        for member in members:
            member.say(member.data("room", body=b"%d" % number))
            await member._writer.drain()
    heard = [[await member.message() for _ in range(300)] for member in members]
    assert heard[0] == heard[1] == heard[2]
    for member in members:
        own = [int(message.body) for message in heard[0] if message.sender == member.name]
        assert own == list(range(100))
    for member in members:
        await member.close()

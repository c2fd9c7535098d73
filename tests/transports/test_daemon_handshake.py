"""Where the embedded daemon is more patient with a client than Spread, and where it is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.transports.raw_peer import CHOICE, Peer, connect_request, eventually
from transports.daemon.limits import Limits
from transports.daemon.server import Daemon
from transports.spread.handshake import (
    AuthenticationError,
    IllegalNameError,
    NotUniqueError,
    QuotaError,
    encode_reject,
)
from transports.spread.messages import Join, Membership
from transports.spread.wire import encode

AUTH_LIST = b"\5NULL "


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    await daemon.start(port=0)
    yield daemon
    await daemon.stop()


async def test_it_may_come_byte_by_byte(daemon: Daemon) -> None:
    peer = await Peer.open(daemon)
    for byte in connect_request("alice"):
        peer.send(bytes((byte,)))
        await asyncio.sleep(0)
    assert await peer.read(len(AUTH_LIST)) == AUTH_LIST
    for byte in CHOICE:
        peer.send(bytes((byte,)))
        await asyncio.sleep(0)
    await peer.accepted()
    assert peer.name == "#alice#localhost"
    await peer.close()


async def test_all_may_come_at_once(daemon: Daemon) -> None:
    peer = await Peer.open(daemon)
    peer.send(connect_request("alice") + CHOICE + encode(Join("#alice#localhost", "room")))
    assert await peer.read(len(AUTH_LIST)) == AUTH_LIST
    await peer.accepted()
    view = await peer.message()
    assert isinstance(view, Membership)
    assert view.members == ("#alice#localhost",)
    await peer.close()


async def test_who_says_nothing_is_closed_and_holds_up_nobody() -> None:
    daemon = Daemon(limits=Limits(handshake_timeout=0.2))
    await daemon.start(port=0)
    silent = await Peer.open(daemon)
    half = await Peer.open(daemon)
    half.send(connect_request("alice"))
    bob = await Peer.connect(daemon, "bob")
    assert await silent.read_to_end() == b""
    assert await half.read_to_end() == AUTH_LIST
    assert await bob.unread() == b""
    alice = await Peer.connect(daemon, "alice")
    for peer in (silent, half, bob, alice):
        await peer.close()
    await daemon.stop()


@pytest.mark.parametrize(
    ("request_bytes", "error"),
    [
        (b"\4\4\0\1\3a b", IllegalNameError),
        (b"\4\4\0\1\x0b", IllegalNameError),
        (connect_request("bob"), NotUniqueError),
        (connect_request("alice") + bytes(90), AuthenticationError),
    ],
)
async def test_who_is_refused_learns_why(daemon: Daemon, request_bytes: bytes, error: type) -> None:
    bob = await Peer.connect(daemon, "bob")
    peer = await Peer.open(daemon)
    peer.send(request_bytes)
    assert (await peer.read_to_end()).removeprefix(AUTH_LIST) == encode_reject(error)
    assert await bob.unread() == b""
    await peer.close()
    await bob.close()


@pytest.mark.parametrize("ending", ["refused", "closed"])
async def test_a_name_is_free_again_when_its_handshake_fails(daemon: Daemon, ending: str) -> None:
    peer = await Peer.open(daemon)
    peer.send(connect_request("alice"))
    await peer.read(len(AUTH_LIST))
    if ending == "refused":
        peer.send(bytes(90))
        await peer.read_to_end()
    await peer.close()
    await eventually(lambda: not daemon._taken)
    await (await Peer.connect(daemon, "alice")).close()


async def test_a_name_is_free_again_as_soon_as_its_connection_ends(daemon: Daemon) -> None:
    for _ in range(20):
        peer = await Peer.connect(daemon, "alice")
        await peer.close()


async def test_made_up_names_differ(daemon: Daemon) -> None:
    peers = [await Peer.connect(daemon, "") for _ in range(3)]
    assert len({peer.name for peer in peers}) == 3
    for peer in peers:
        await peer.close()


async def test_one_client_too_many_is_refused_until_another_leaves() -> None:
    daemon = Daemon(limits=Limits(connections=2))
    await daemon.start(port=0)
    alice, bob = await Peer.connect(daemon, "alice"), await Peer.open(daemon)
    carol = await Peer.open(daemon)
    assert await carol.read_to_end() == encode_reject(QuotaError)
    await bob.close()
    await eventually(lambda: len(daemon._clients) < 2)
    dave = await Peer.connect(daemon, "dave")
    for peer in (alice, carol, dave):
        await peer.close()
    await daemon.stop()

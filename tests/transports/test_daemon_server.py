"""Life with an embedded daemon: start, stop, crowds, deaths, and clients that are too slow."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from spreadq_core.errors import UsageError
from spreadq_core.events import Cause
from tests.transports.raw_peer import CHOICE, TIMEOUT, Peer, connect_request, eventually
from tests.transports.vectors import VECTORS
from transports.daemon import connection
from transports.daemon.limits import Limits
from transports.daemon.listeners import AddressInUseError
from transports.daemon.server import DAEMON_NAME_LIMIT, Daemon
from transports.spread.messages import AGREED, Data, Join, Membership
from transports.spread.wire import encode


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    await daemon.start(port=0)
    yield daemon
    await daemon.stop()


class TestStartAndStop:
    also_on_uvloop = True

    async def test_it_listens_where_it_says(self, tmp_path: Path) -> None:
        path = str(tmp_path / "s")
        daemon = Daemon("here")
        await daemon.start(port=0, unix_path=path)
        alice = await Peer.connect(daemon, "alice")
        bob = await Peer.connect(daemon, "bob", unix_path=path)
        bob.say(bob.data(alice.name, body=b"hello"))
        assert await alice.message() == Data("#bob#here", ("#alice#here",), 0, b"hello", bob.data().type_bits)
        await alice.close()
        await bob.close()
        await daemon.stop()
        assert not os.path.exists(path)  # noqa: ASYNC240

    async def test_it_may_have_a_unix_socket_only(self, tmp_path: Path) -> None:
        path = str(tmp_path / "s")
        daemon = Daemon()
        await daemon.start(port=None, unix_path=path)
        assert daemon.address == f"unix:{path}"
        await daemon.stop()

    async def test_after_a_failed_start_it_can_be_started_elsewhere(
        self, daemon: Daemon, tmp_path: Path
    ) -> None:
        port = int(daemon.address.split("@")[0])
        other = Daemon()
        with pytest.raises(AddressInUseError, match="is in use"):
            await other.start(port=port)
        with pytest.raises(UsageError, match="several machines"):
            await other.start(host="0.0.0.0", port=0)
        (tmp_path / "s").touch()
        with pytest.raises(AddressInUseError):
            await other.start(port=0, unix_path=str(tmp_path / "s"))
        await other.start(port=0)
        with pytest.raises(UsageError, match="started once"):
            await other.start(port=0)
        await other.stop()

    async def test_it_has_an_address_while_it_listens(self) -> None:
        daemon = Daemon()
        with pytest.raises(UsageError, match="does not listen"):
            _ = daemon.address
        await daemon.start(port=0)
        assert daemon.address.endswith("@127.0.0.1")
        await daemon.stop()
        with pytest.raises(UsageError, match="does not listen"):
            _ = daemon.address

    async def test_when_it_stops_clients_see_the_end_and_nothing_else(self) -> None:
        daemon = Daemon()
        await daemon.start(port=0)
        members = [await Peer.connect(daemon, name) for name in ("alice", "bob")]
        for count, member in enumerate(members, 1):
            member.say(Join(member.name, "room"))
            for told in members[:count]:
                await told.message()
        shaking_hands = await Peer.open(daemon)
        shaking_hands.send(connect_request("carol"))
        await shaking_hands.read(1)
        await daemon.stop()
        for member in members:
            assert await member.read_to_end() == b""
        await shaking_hands.read_to_end()
        for peer in (*members, shaking_hands):
            await peer.close()
        await daemon.stop()

    @pytest.mark.parametrize("name", ["", "x" * (DAEMON_NAME_LIMIT + 1), "a b", "a#b", "ä"])
    async def test_daemon_names_have_limits(self, name: str) -> None:
        with pytest.raises(UsageError, match="use 1 to 19"):
            Daemon(name)


@pytest.mark.parametrize("limit", [field.name for field in attrs.fields(Limits)])
def test_limits_are_above_0(limit: str) -> None:
    with pytest.raises(UsageError, match=f"{limit} is 0"):
        Limits(**{limit: 0})


# --- deaths ---------------------------------------------------------------------------------------

MEMBER = """
import socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for request in sys.argv[2:]:
    client.sendall(bytes.fromhex(request))
    client.recv(1000)
sys.stdin.read()
"""
"""Joins a group with ready-made bytes, and does nothing more."""


async def test_a_killed_process_is_seen_to_disconnect(daemon: Daemon) -> None:
    watcher = await Peer.connect(daemon, "watcher")
    watcher.say(Join(watcher.name, "room"))
    await watcher.message()
    requests = (connect_request("victim"), CHOICE, encode(Join("#victim#localhost", "room")))
    port = daemon.address.split("@")[0]
    victim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-IS", "-c", MEMBER, port, *(request.hex() for request in requests)),
        stdin=subprocess.PIPE,
    )
    assert len((await watcher.message()).members) == 2
    victim.kill()
    killed = time.monotonic()
    view = await watcher.message()
    assert time.monotonic() - killed < 1
    await victim.wait()
    assert isinstance(view, Membership)
    assert (view.cause, view.sets) == (Cause.DISCONNECT, (("#victim#localhost",),))
    await watcher.close()


# --- crowds ---------------------------------------------------------------------------------------


async def test_500_clients_join(daemon: Daemon) -> None:
    watcher = await Peer.connect(daemon, "watcher")
    watcher.say(Join(watcher.name, "room"))
    peers = await asyncio.gather(
        *(Peer.connect(daemon, f"p{number}", membership=False) for number in range(500))
    )
    for peer in peers:
        peer.say(Join(peer.name, "room"))
    for count in range(1, 502):
        view = await watcher.message()
        assert len(view.members) == count
    assert list(view.members) == sorted([watcher.name, *(peer.name for peer in peers)])
    message = watcher.data("room", body=b"to all")
    watcher.say(message)
    assert [await peer.message() for peer in peers] == [message] * 500
    await asyncio.gather(*(peer.close() for peer in (watcher, *peers)))


# --- clients that are too slow ---------------------------------------------------------------------


class TestSlowClients:
    also_on_uvloop = True

    async def start(self, tmp_path: Path, limits: Limits) -> tuple[Daemon, str]:
        """Start on a unix socket, whose buffers are small and the same everywhere."""
        daemon = Daemon(limits=limits)
        path = str(tmp_path / "s")
        await daemon.start(port=None, unix_path=path)
        return daemon, path

    async def stalled(self, daemon: Daemon, path: str, *groups: str) -> socket.socket:
        """Connect a member, without membership messages, that then reads nothing."""
        loop = asyncio.get_running_loop()
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        await loop.sock_connect(client, path)
        await loop.sock_sendall(client, connect_request("slow", membership=False) + CHOICE)
        for group in groups:
            await loop.sock_sendall(client, encode(Join("#slow#localhost", group)))
        return client

    async def test_as_in_the_capture_of_a_real_daemon(self, tmp_path: Path) -> None:
        daemon, path = await self.start(tmp_path, Limits(waiting_messages=5, patience=0.01))
        alice = await Peer.connect(daemon, "alice", unix_path=path)
        carol = await Peer.connect(daemon, "carol", unix_path=path)
        alice.say(Join(alice.name, "watch"))
        await alice.message()
        slow = await self.stalled(daemon, path, "watch", "room")
        await alice.message()
        messages = [
            step.data
            for step in VECTORS["slow_consumer"].steps
            if (step.direction, step.connection) == ("c2s", "C")
        ][2:]
        carol.send(b"".join(messages))
        view = await alice.message()
        assert (view.cause, view.sets) == (Cause.DISCONNECT, (("#slow#localhost",),))
        received = await self.drain(slow)
        complete, rest = divmod(len(received), len(messages[0]))
        assert complete < len(messages) - 5
        assert received == messages[0] * complete + messages[0][:rest]
        await self.end(daemon, alice, carol)

    async def test_bytes_are_limited_too(self, tmp_path: Path) -> None:
        daemon, path = await self.start(tmp_path, Limits(waiting_bytes=1_000_000, patience=TIMEOUT))
        alice = await Peer.connect(daemon, "alice", unix_path=path)
        alice.say(Join(alice.name, "room"))
        await alice.message()
        slow = await self.stalled(daemon, path, "room")
        await alice.message()
        body = bytes(100_000)
        sent = 0
        while "#slow#localhost" in daemon._taken:
            alice.say(alice.data("room", body=body))
            await alice.read(len(encode(alice.data("room", body=body))))
            sent += len(body)
        assert 1_000_000 < sent < 2_000_000
        assert (await alice.message()).cause is Cause.DISCONNECT
        slow.close()
        await self.end(daemon, alice)

    async def test_a_burst_is_forgiven_when_it_is_read_in_time(self, tmp_path: Path) -> None:
        daemon, path = await self.start(tmp_path, Limits(waiting_messages=5, patience=TIMEOUT))
        alice = await Peer.connect(daemon, "alice", unix_path=path)
        slow = await self.stalled(daemon, path, "room")
        loop = asyncio.get_running_loop()
        await loop.sock_recv(slow, 1000)
        message = encode(alice.data("room", body=bytes(10_000), type_bits=AGREED))
        alice.send(message * 200)
        await alice.unread()
        received = 0
        while received < 200 * len(message):
            received += len(await asyncio.wait_for(loop.sock_recv(slow, 65536), TIMEOUT))
        assert "#slow#localhost" in daemon._taken
        slow.close()
        await self.end(daemon, alice)

    async def test_who_outruns_its_receivers_is_slowed_down_but_not_stopped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connection, "THROTTLE", 0.02)
        daemon, path = await self.start(tmp_path, Limits(waiting_messages=30, patience=TIMEOUT))
        alice = await Peer.connect(daemon, "alice", unix_path=path)
        slow = await self.stalled(daemon, path, "room")
        client = next(member for member in daemon.space.members if member.name == alice.name)
        throttled = 0
        for _ in range(40):
            alice.say(alice.data("room", body=bytes(20_000)))
            await alice.unread()
            throttled += client._throttled is not None
        assert throttled >= 1
        slow.close()
        await self.end(daemon, alice)

    async def test_a_client_that_leaves_while_it_is_slowed_down(self, tmp_path: Path) -> None:
        daemon, path = await self.start(tmp_path, Limits())
        alice = await Peer.connect(daemon, "alice", unix_path=path)
        client = daemon.space.members[0]
        client.throttle()
        client.disconnect("leaves")
        await eventually(lambda: client._throttled is None)
        await self.end(daemon, alice)

    async def drain(self, client: socket.socket) -> bytes:
        """Read all that comes after the handshake, to the end."""
        loop = asyncio.get_running_loop()
        received = b""
        while more := await asyncio.wait_for(loop.sock_recv(client, 65536), TIMEOUT):
            received += more
        client.close()
        return received.partition(b"#slow#localhost")[2]

    async def end(self, daemon: Daemon, *peers: Peer) -> None:
        for peer in peers:
            await peer.close()
        await daemon.stop()

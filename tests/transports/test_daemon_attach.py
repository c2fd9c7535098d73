"""Members inside the daemon's process: the contract of all transports, beside clients with sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from spreadq_core.effects import Service
from spreadq_core.errors import UsageError
from spreadq_core.events import Cause, Connected, Disconnected, Received, TransportEvent, ViewChanged
from tests.transports.contract import TIMEOUT, Member, Network, TransportContract
from tests.transports.raw_peer import Peer
from transports.base import random_name
from transports.daemon.server import Daemon
from transports.memory import MemoryTransport
from transports.spread.handshake import NotUniqueError
from transports.spread.messages import Data, Join, Membership
from transports.spread.wire import encode


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    await daemon.start(port=0)
    yield daemon
    await daemon.stop()


class AttachedMember(Member):
    transport: MemoryTransport

    def __init__(self, daemon: Daemon, *, membership: bool) -> None:
        super().__init__()
        self._arrived = asyncio.Event()
        self._lost = False
        self.lists: list[list[TransportEvent]] = []
        self.transport = daemon.attach(self._deliver, membership=membership)

    def _deliver(self, events: list[TransportEvent]) -> None:
        self.lists.append(events)
        self._arrived.set()

    async def more(self) -> list[TransportEvent]:
        if self._lost:
            self.transport.connect(random_name())
        async with asyncio.timeout(TIMEOUT):
            await self._arrived.wait()
        self._arrived.clear()
        events = [event for events in self.lists for event in events]
        self.lists.clear()
        self._lost = any(isinstance(event, Disconnected) for event in events)
        return events


class AttachedNetwork(Network):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def connect(self, *, membership: bool = True) -> AttachedMember:
        member = AttachedMember(self._daemon, membership=membership)
        await member.connected()
        return member

    async def interrupt(self, member: Member) -> None:
        assert isinstance(member, AttachedMember)
        member.transport.disconnect("interrupted by the test")


class TestAttachedMembers(TransportContract):
    also_on_uvloop = True

    @pytest.fixture
    async def network(self, daemon: Daemon) -> AttachedNetwork:
        return AttachedNetwork(daemon)


class TestBesideClients:
    also_on_uvloop = True

    async def test_each_kind_sees_the_other(self, daemon: Daemon) -> None:
        inside = AttachedMember(daemon, membership=True)
        await inside.connected()
        outside = await Peer.connect(daemon, "outside")
        await inside.join("room")
        outside.say(Join(outside.name, "room"))
        members = tuple(sorted((inside.session, outside.name)))
        view = await outside.message()
        assert isinstance(view, Membership)
        assert view.members == members
        assert await inside.view("room") == ViewChanged("room", members, Cause.JOIN, (outside.name,))
        inside.say("room", outside.name, body=b"from inside", kind=-5)
        message = await outside.message()
        assert isinstance(message, Data)
        assert (message.sender, message.groups, message.mess_type, message.body) == (
            inside.session,
            ("room", outside.name),
            -5,
            b"from inside",
        )
        inside.transport.close()
        assert (await outside.message()).cause is Cause.DISCONNECT
        await outside.close()

    async def test_many_messages_in_one_write_are_as_many_events(self, daemon: Daemon) -> None:
        inside = AttachedMember(daemon, membership=False)
        await inside.connected()
        outside = await Peer.connect(daemon, "outside")
        messages = [
            Data(outside.name, (inside.session,), kind, bytes(size))
            for kind in (0, 7, -1)
            for size in (0, 100, 5, 0, 300)
        ]
        outside.say(*messages)
        outside.send(b"".join(encode(message, "big") for message in messages))
        heard: list[TransportEvent] = []
        while len(heard) < 30:
            heard += await inside.more()
        expected = [Received(m.sender, m.groups, m.mess_type, m.body) for m in messages]
        assert heard == expected + expected
        await outside.close()

    async def test_all_see_one_order(self, daemon: Daemon) -> None:
        inside = AttachedMember(daemon, membership=False)
        await inside.connected()
        inside.transport.join("room")
        inside.transport.flush()
        outside = await Peer.connect(daemon, "outside", membership=False)
        outside.say(Join(outside.name, "room"))
        await outside.unread()
        for number in range(100):
            outside.say(outside.data("room", body=b"%d" % number))
            inside.say("room", body=b"%d" % number)
            await asyncio.sleep(0)
        heard_outside = [await outside.message() for _ in range(200)]
        heard_inside = [await inside.next(Received) for _ in range(200)]
        assert [(event.sender, event.body) for event in heard_inside] == [
            (message.sender, message.body) for message in heard_outside
        ]
        await outside.close()

    async def test_an_answer_from_within_deliver_goes_out_in_the_same_turn(self, daemon: Daemon) -> None:
        turns: list[int] = []
        turn = 0
        outside = await Peer.connect(daemon, "outside", membership=False)

        def answer(events: list[TransportEvent]) -> None:
            nonlocal turn
            turn += 1
            for event in events:
                if isinstance(event, Received) and event.sender == outside.name:
                    for _ in range(3):
                        inside.send((outside.name, inside.session), Service.FIFO, 0, b"answer")
                    inside.flush()
                    assert daemon._filled
                    asyncio.get_running_loop().call_soon(lambda: turns.append(len(daemon._filled)))

        inside = daemon.attach(answer, membership=False)
        outside.say(outside.data(inside.session))
        for _ in range(3):
            assert (await outside.message()).body == b"answer"
        assert turns == [0]
        await outside.close()

    async def test_an_error_in_deliver_is_reported_and_harms_nobody_else(self, daemon: Daemon) -> None:
        loop = asyncio.get_running_loop()
        reported = []
        loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))

        def fail(events: list[TransportEvent]) -> None:
            raise ZeroDivisionError

        faulty = daemon.attach(fail, membership=False)
        sound = AttachedMember(daemon, membership=False)
        await sound.connected()
        outside = await Peer.connect(daemon, "outside", membership=False)
        message = outside.data(faulty.session, sound.session, outside.name)
        outside.say(message)
        assert await outside.message() == message
        await sound.next(Received)
        assert [type(error) for error in reported] == [ZeroDivisionError] * 2
        await outside.close()


async def test_when_the_daemon_stops_members_hear_of_it() -> None:
    daemon = Daemon()
    with pytest.raises(UsageError, match="between its start and its stop"):
        daemon.attach(lambda events: None, membership=True)
    await daemon.start(port=None)
    members = [AttachedMember(daemon, membership=True) for _ in range(2)]
    for member in members:
        member.transport.join("room")
        member.transport.flush()
        await member.view("room")
    await members[0].view("room")
    await daemon.stop()
    for member in members:
        assert member.lists == [[Disconnected("the daemon stopped")]]
        member.transport.join("room")
        member.transport.flush()
        member.transport.close()
    with pytest.raises(UsageError, match="between its start and its stop"):
        daemon.attach(lambda events: None, membership=True)


async def test_names_are_those_of_clients_too(daemon: Daemon) -> None:
    outside = await Peer.connect(daemon, "alice")
    with pytest.raises(NotUniqueError):
        daemon.attach(lambda events: None, membership=True, names=lambda: "alice")
    heard: list[TransportEvent] = []
    inside = daemon.attach(heard.extend, membership=True, names=lambda: "bob")
    assert inside.session == "#bob#localhost"
    await outside.unread()
    assert heard == [Connected("#bob#localhost")]
    await outside.close()

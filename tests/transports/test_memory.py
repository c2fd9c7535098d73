"""The in-process bus: the contract of all transports, and what tests need beyond it."""

from __future__ import annotations

import asyncio

import pytest

from spreadq_core.effects import Service
from spreadq_core.errors import UsageError
from spreadq_core.events import Cause, Connected, Disconnected, Received, TransportEvent, ViewChanged
from tests.transports.contract import TIMEOUT, Member, Network, TransportContract
from transports import memory
from transports.base import ClosedError
from transports.memory import MemoryBus, MemoryTransport, NotQuietError
from transports.spread.handshake import NotUniqueError

# --- the contract ---------------------------------------------------------------------------------


class BusMember(Member):
    transport: MemoryTransport

    def __init__(self, bus: MemoryBus, *, membership: bool) -> None:
        super().__init__()
        self._bus = bus
        self._arrived: list[TransportEvent] = []
        self.transport = bus.attach(self._arrived.extend, membership=membership)

    async def more(self) -> list[TransportEvent]:
        self._bus.run()
        if not self._arrived and not self.transport.session:
            self._bus.reconnect(self.transport)
            self._bus.run()
        if not self._arrived:
            raise TimeoutError
        events = list(self._arrived)
        self._arrived.clear()
        return events


class BusNetwork(Network):
    def __init__(self) -> None:
        self._bus = MemoryBus()

    async def connect(self, *, membership: bool = True) -> BusMember:
        member = BusMember(self._bus, membership=membership)
        await member.connected()
        return member

    async def interrupt(self, member: Member) -> None:
        assert isinstance(member, BusMember)
        self._bus.disconnect(member.transport)


class TestMemoryTransport(TransportContract):
    @pytest.fixture
    def network(self) -> BusNetwork:
        return BusNetwork()


# --- the bus --------------------------------------------------------------------------------------


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


def say(transport: MemoryTransport, *groups: str, body: bytes = b"") -> None:
    transport.send(groups, Service.AGREED, 0, body)
    transport.flush()


def bodies(lists: list[list[TransportEvent]]) -> list[bytes]:
    return [event.body for events in lists for event in events if isinstance(event, Received)]


def test_it_needs_no_event_loop(bus: MemoryBus) -> None:
    lists: list[list[TransportEvent]] = []
    alice = bus.attach(lists.append, membership=True)
    alice.join("room")
    say(alice, "room", body=b"hello")
    assert lists == []
    bus.run()
    assert lists == [
        [
            Connected("#m1#memory"),
            ViewChanged("room", ("#m1#memory",), Cause.JOIN, ("#m1#memory",)),
            Received("#m1#memory", ("room",), 0, b"hello"),
        ]
    ]


def test_names_are_given_in_order_and_never_twice(bus: MemoryBus) -> None:
    alice, bob = (bus.attach(lambda events: None, membership=False) for _ in range(2))
    assert (alice.session, bob.session) == ("#m1#memory", "#m2#memory")
    bus.disconnect(alice)
    assert alice.session == ""
    bus.reconnect(alice)
    assert alice.session == "#m3#memory"


def test_a_name_source_must_not_repeat_itself() -> None:
    bus = MemoryBus(names=lambda: "alice")
    assert bus.attach(lambda events: None, membership=False).session == "#alice#memory"
    with pytest.raises(NotUniqueError):
        bus.attach(lambda events: None, membership=False)


def test_nothing_is_sent_before_flush(bus: MemoryBus) -> None:
    lists: list[list[TransportEvent]] = []
    alice = bus.attach(lists.append, membership=False)
    alice.send((alice.session,), Service.AGREED, 0, b"later")
    bus.run()
    assert bodies(lists) == []
    alice.flush()
    bus.run()
    assert bodies(lists) == [b"later"]


def test_what_is_sent_from_within_deliver_comes_later_and_to_all_in_one_order(bus: MemoryBus) -> None:
    heard: dict[str, list[bytes]] = {"alice": [], "bob": []}
    delivering = False

    def deliver_to(name: str, answer: bytes) -> None:
        def deliver(events: list[TransportEvent]) -> None:
            nonlocal delivering
            assert not delivering
            delivering = True
            for event in events:
                if isinstance(event, Received):
                    heard[name].append(event.body)
                    if event.body == b"question":
                        say(members[name], "room", body=answer)
                        bus.run()
            delivering = False

        members[name] = bus.attach(deliver, membership=False)
        members[name].join("room")
        members[name].flush()

    members: dict[str, MemoryTransport] = {}
    deliver_to("alice", b"one")
    deliver_to("bob", b"two")
    say(members["bob"], "room", body=b"question")
    bus.run()
    assert heard == {name: [b"question", b"one", b"two"] for name in heard}


def test_a_disconnected_member_hears_of_it_and_the_others_too(bus: MemoryBus) -> None:
    heard: list[TransportEvent] = []
    seen: list[TransportEvent] = []
    alice = bus.attach(heard.extend, membership=True)
    bob = bus.attach(seen.extend, membership=True)
    for member in (bob, alice):
        member.join("room")
        member.flush()
    bus.run()
    heard.clear()
    seen.clear()
    alice.send(("room",), Service.AGREED, 0, b"never flushed")
    bus.disconnect(alice, "a cable was cut")
    bus.disconnect(alice)
    alice.flush()
    bus.reconnect(alice)
    bus.run()
    assert heard == [Disconnected("a cable was cut"), Connected("#m3#memory")]
    assert seen == [ViewChanged("room", (bob.session,), Cause.DISCONNECT, ("#m1#memory",))]


def test_who_is_connected_cannot_reconnect(bus: MemoryBus) -> None:
    alice = bus.attach(lambda events: None, membership=False)
    with pytest.raises(UsageError, match="#m1#memory is connected; disconnect it first"):
        bus.reconnect(alice)


def test_a_closed_transport_stays_closed(bus: MemoryBus) -> None:
    alice = bus.attach(lambda events: None, membership=False)
    alice.close()
    with pytest.raises(ClosedError, match="make a new one"):
        bus.reconnect(alice)


def test_an_error_in_deliver_comes_out_of_run_and_harms_nobody_else(bus: MemoryBus) -> None:
    def fail(events: list[TransportEvent]) -> None:
        raise ZeroDivisionError

    lists: list[list[TransportEvent]] = []
    bus.attach(fail, membership=False)
    bus.attach(lists.append, membership=False)
    with pytest.raises(ZeroDivisionError):
        bus.run()
    bus.run()
    assert lists == [[Connected("#m2#memory")]]


def test_members_that_never_stop_are_stopped(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROUNDS_LIMIT", 10)
    alice = bus.attach(lambda events: say(alice, alice.session), membership=False)
    with pytest.raises(NotQuietError, match="10 rounds"):
        bus.run()


def test_a_scheduled_bus_makes_one_round_at_a_time() -> None:
    scheduled = []
    bus = MemoryBus(schedule=scheduled.append)
    lists: list[list[TransportEvent]] = []

    def answer(events: list[TransportEvent]) -> None:
        lists.append(events)
        if isinstance(events[0], Connected):
            say(alice, alice.session, body=b"to myself")

    alice = bus.attach(answer, membership=False)
    bus.attach(lambda events: None, membership=False)
    assert len(scheduled) == 1
    scheduled.pop()()
    assert len(lists) == 1
    assert len(scheduled) == 1
    scheduled.pop()()
    assert bodies(lists) == [b"to myself"]
    assert scheduled == []


async def test_an_event_loop_can_drive_it() -> None:
    bus = MemoryBus(schedule=asyncio.get_running_loop().call_soon)
    heard: asyncio.Queue[TransportEvent] = asyncio.Queue()
    alice = bus.attach(lambda events: [heard.put_nowait(event) for event in events], membership=False)
    say(alice, alice.session, body=b"hello")
    async with asyncio.timeout(TIMEOUT):
        assert await heard.get() == Connected(alice.session)
        assert await heard.get() == Received(alice.session, (alice.session,), 0, b"hello")

"""What only the blocking client has."""

from __future__ import annotations

import select
import time

import pytest

from spreadq_core.effects import Service
from spreadq_core.events import Connected, Disconnected, Received, TransportEvent
from tests.transports.contract import TIMEOUT
from tests.transports.fake_daemon import Client, FakeDaemon, accept_and_wait, message
from tests.transports.spread_members import BlockingMember, ClientTests, Make
from transports.base import Backoff, ClosedError
from transports.spread import sockets
from transports.spread.blocking_client import BlockingSpread


class TestBlockingSpread(ClientTests):
    member = BlockingMember

    async def test_an_outer_loop_can_drive_it(self, make: Make) -> None:
        def talk(client: Client) -> None:
            client.accept()
            client.take(1)
            client.say(message(b"answer"))

        clock = [1000.0]
        backoff = Backoff(initial=8.0, factor=1.0, limit=8.0, jitter=lambda: 1.0)
        with FakeDaemon(talk, accept_and_wait) as daemon:
            client = make(daemon.address, backoff=backoff, clock=lambda: clock[0]).transport
            assert (client.fileno(), client.deadline, client.wants_write) == (-1, 0.0, False)
            assert client.receive(0) == []
            assert client.deadline == clock[0] + sockets.CONNECT_TIMEOUT
            events = drive(client, until=Connected)
            assert client.deadline is None
            client.send(("room",), Service.AGREED, 0, b"x")
            client.flush()
            events += drive(client, until=Disconnected)
            assert [type(event) for event in events] == [Connected, Received, Disconnected]
            assert (client.fileno(), client.deadline) == (-1, clock[0] + 8.0)
            assert client.receive(0) == []
            clock[0] += 8.0
            assert drive(client, until=Connected)
            client.close()

    async def test_events_that_wait_are_a_reason_to_call(self, make: Make) -> None:
        with FakeDaemon(accept_and_wait) as daemon:
            client = make(daemon.address, clock=lambda: 5.0).transport
            client.connect()
            assert client.deadline == 5.0
            assert isinstance(client.receive(0)[0], Connected)
            assert client.deadline is None
            assert client.receive(0) == []
            client.close()
            with pytest.raises(ClosedError, match="make a new one"):
                client.receive(0)

    async def test_receive_returns_when_time_is_up(self, make: Make) -> None:
        with FakeDaemon(accept_and_wait) as daemon:
            member = make(daemon.address)
            await member.start()
            await member.connected()
            began = time.monotonic()
            assert member.transport.receive(0.03) == []
            assert time.monotonic() - began >= 0.03
            await member.end()


def drive(client: BlockingSpread, until: type[TransportEvent]) -> list[TransportEvent]:
    """What an event loop of another kind does: watch the descriptor, and call without waiting."""
    events: list[TransportEvent] = []
    while not any(isinstance(event, until) for event in events):
        if client.fileno() >= 0:
            writers = [client] if client.wants_write else []
            ready = select.select([client], writers, [], TIMEOUT)
            assert ready[0] or ready[1]
        events += client.receive(0)
    return events

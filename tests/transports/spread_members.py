"""Drives both Spread clients in the same way, for the contract and for tests of their own."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from spreadq_core.events import TransportEvent
from tests.transports.contract import TIMEOUT, Member, Network
from transports.base import Backoff
from transports.spread.asyncio_client import AsyncioSpread
from transports.spread.blocking_client import BlockingSpread

Make = Callable[..., "SpreadMember"]

QUICK = Backoff(initial=0.02, factor=1.0, limit=0.02, jitter=lambda: 1.0)


class SpreadMember(Member):
    """A Spread client that knows how to start and to end."""

    transport: AsyncioSpread | BlockingSpread

    async def start(self) -> None:
        """Make the first connection."""
        raise NotImplementedError

    async def end(self) -> None:
        """Close, and wait until nothing is left."""
        raise NotImplementedError

    def fileno(self) -> int:
        """Descriptor of the socket underneath, to be broken."""
        raise NotImplementedError


class AsyncioMember(SpreadMember):
    def __init__(self, address: str, **options: Any) -> None:
        super().__init__()
        self.lists: list[list[TransportEvent]] = []
        self._arrived = asyncio.Event()
        options = {"membership": True, "backoff": QUICK} | options
        self.transport = AsyncioSpread(address, self._deliver, **options)

    def _deliver(self, events: list[TransportEvent]) -> None:
        self.lists.append(events)
        self._arrived.set()

    async def start(self) -> None:
        await self.transport.start()

    async def more(self) -> list[TransportEvent]:
        async with asyncio.timeout(TIMEOUT):
            await self._arrived.wait()
        self._arrived.clear()
        events = [event for events in self.lists for event in events]
        self.lists.clear()
        return events

    async def end(self) -> None:
        self.transport.close()
        await self.transport.wait_closed()

    def fileno(self) -> int:
        return self.transport._connection._transport.get_extra_info("socket").fileno()


class BlockingMember(SpreadMember):
    """Blocks the event loop, too: the daemon has to live in another thread or process."""

    def __init__(self, address: str, **options: Any) -> None:
        super().__init__()
        options = {"membership": True, "backoff": QUICK} | options
        self.transport = BlockingSpread(address, **options)

    async def start(self) -> None:
        self.transport.connect()

    async def more(self) -> list[TransportEvent]:
        events = self.transport.receive(TIMEOUT)
        if not events:
            raise TimeoutError
        return events

    async def end(self) -> None:
        self.transport.close()

    def fileno(self) -> int:
        return self.transport.fileno()


class SpreadNetwork(Network):
    """Members of one kind at one daemon; to be ended after the test."""

    def __init__(self, kind: type[SpreadMember], address: str) -> None:
        self._kind = kind
        self._address = address
        self._members: list[SpreadMember] = []

    async def connect(self, *, membership: bool = True) -> SpreadMember:
        member = self._kind(self._address, membership=membership)
        self._members.append(member)
        await member.start()
        await member.connected()
        return member

    async def interrupt(self, member: Member) -> None:
        assert isinstance(member, SpreadMember)
        with socket.socket(fileno=os.dup(member.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)

    async def end(self) -> None:
        for member in self._members:
            await member.end()


class ClientTests:
    """Base of tests that make clients of one kind themselves."""

    member: type[SpreadMember]

    @pytest.fixture
    async def make(self) -> AsyncIterator[Make]:
        """Make a client; it is ended after the test."""
        members: list[SpreadMember] = []

        def make(address: str, **options: Any) -> SpreadMember:
            members.append(self.member(address, **options))
            return members[-1]

        yield make
        for member in members:
            await member.end()

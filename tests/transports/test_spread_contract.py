"""Both Spread clients keep the contract, at every daemon that there is."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.transports.contract import TransportContract
from tests.transports.spread_members import AsyncioMember, BlockingMember, SpreadNetwork


class TestAsyncioSpread(TransportContract):
    also_on_uvloop = True

    @pytest.fixture
    async def network(self, daemon_address: str) -> AsyncIterator[SpreadNetwork]:
        network = SpreadNetwork(AsyncioMember, daemon_address)
        yield network
        await network.end()


class TestBlockingSpread(TransportContract):
    @pytest.fixture
    async def network(self, daemon_address: str) -> AsyncIterator[SpreadNetwork]:
        network = SpreadNetwork(BlockingMember, daemon_address)
        yield network
        await network.end()

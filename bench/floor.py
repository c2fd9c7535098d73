"""The raw floor: sender to manager to worker to sender, with the same client and no logic at all.

`python -m bench.floor manager|worker ADDRESS` are its two other processes.
"""

from __future__ import annotations

import asyncio
import sys
import time

from spreadq.programs.runtime import run
from spreadq_core.effects import Service
from spreadq_core.events import Received, TransportEvent
from transports.spread.asyncio_client import AsyncioSpread

GROUP = "FLOOR_MQ"
WORKER_GROUP = "FLOOR_WQ"
SENDER_GROUP = "FLOOR_SQ"

BODY = bytes(150)
"""About what a frame with one small task has."""


async def relay(role: str, address: str) -> None:
    """Send each body on to the next one."""
    joined, following = {
        "manager": (GROUP, WORKER_GROUP),
        "worker": (WORKER_GROUP, SENDER_GROUP),
    }[role]

    def deliver(events: list[TransportEvent]) -> None:
        for event in events:
            if type(event) is Received:
                client.send((following,), Service.AGREED, 1, event.body)
        client.flush()

    client = AsyncioSpread(address, deliver, membership=False)
    await client.start()
    client.join(joined)
    client.flush()
    await asyncio.Event().wait()


class Floor:
    """The sender of the floor, in the measuring process."""

    def __init__(self, address: str) -> None:
        self._answered: asyncio.Future[None] | None = None
        self._client = AsyncioSpread(address, self._deliver, membership=False)

    async def start(self) -> None:
        """Connect, and wait until all three are there."""
        await self._client.start()
        self._client.join(SENDER_GROUP)
        self._client.flush()
        while True:
            try:
                async with asyncio.timeout(0.2):
                    await self.round_trip()
                    return
            except TimeoutError:
                continue

    async def round_trip(self) -> float:
        """One ping-pong; how long it took, in seconds."""
        start = time.perf_counter()
        self._answered = asyncio.get_running_loop().create_future()
        self._client.send((GROUP,), Service.AGREED, 1, BODY)
        self._client.flush()
        await self._answered
        return time.perf_counter() - start

    async def close(self) -> None:
        """Disconnect."""
        self._client.close()
        await self._client.wait_closed()

    def _deliver(self, events: list[TransportEvent]) -> None:
        received = any(type(event) is Received for event in events)
        if received and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)


if __name__ == "__main__":
    run(relay(sys.argv[1], sys.argv[2]))

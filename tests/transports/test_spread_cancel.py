"""The asyncio client: who gives up connecting need not wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
import uvloop

from transports.spread.asyncio_client import AsyncioSpread

TURNS = 8
"""Of the loop, in which an attempt comes as far as it can without an answer."""

CONNECT_TIMEOUT = 2.0
"""Seconds."""


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_cancelled_attempt_ends_at_once(loop_factory: type[asyncio.AbstractEventLoop]) -> None:
    async def attempts() -> None:
        address = f"{server.getsockname()[1]}@127.0.0.1"
        for turns in range(TURNS):
            client = AsyncioSpread(address, lambda _: None, membership=False, connect_timeout=CONNECT_TIMEOUT)
            attempt = asyncio.ensure_future(client.start())
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled_at = time.monotonic()
            attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await attempt
            assert time.monotonic() - cancelled_at < CONNECT_TIMEOUT / 2, f"cancelled in turn {turns}"

    server = socket.create_server(("127.0.0.1", 0))  # which does not answer
    with server, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(attempts())

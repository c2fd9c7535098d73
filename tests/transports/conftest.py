"""Daemons and event loops to test with."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterator
from functools import partial
from uuid import uuid4

import pytest
import uvloop

from tests.transports.contract import TIMEOUT
from transports.daemon.server import Daemon

REAL_DAEMON = os.environ.get("SPREADQ_TEST_DAEMON", "")
"""Address of a real Spread daemon, such as `4803@127.0.0.1`; empty: there is none."""


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of a class with `also_on_uvloop = True` on both loops."""
    loops = {"asyncio": asyncio.new_event_loop}
    if getattr(item.cls, "also_on_uvloop", False):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(params=["embedded", *(["real"] if REAL_DAEMON else [])])
def daemon_address(request: pytest.FixtureRequest) -> str:
    """Address of a daemon that runs outside of the test's event loop."""
    if request.param == "real":
        return REAL_DAEMON
    return request.getfixturevalue("embedded_daemon")


@pytest.fixture(scope="session")
def embedded_daemon() -> Iterator[str]:
    """Address of an embedded daemon in a thread of its own, so that blocking clients can wait for it."""
    started: queue.SimpleQueue[tuple[str, Callable[[], object]]] = queue.SimpleQueue()

    async def serve() -> None:
        daemon = Daemon()
        stop = asyncio.Event()
        await daemon.start(port=0)
        started.put((daemon.address, partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)))
        await stop.wait()
        await daemon.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    address, stop = started.get(timeout=TIMEOUT)
    yield address
    stop()
    thread.join(TIMEOUT)


@pytest.fixture
def group() -> str:
    """A name that no other test uses: a real daemon is shared by all."""
    return f"test-{uuid4().hex[:16]}"

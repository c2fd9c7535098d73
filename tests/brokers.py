"""A whole broker inside the test's process: a daemon and managers on an event loop in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import pytest

from spreadq.async_worker import AsyncWorker
from spreadq.manager import QueueManager
from spreadq.status import ask_status
from spreadq_core.effects import Exit
from spreadq_core.policy import DEFAULT, Policy
from transports.daemon.server import Daemon

T = TypeVar("T")

TIMEOUT = 20.0
"""Seconds after which a test gives up waiting for something that should come at once."""

POLL_INTERVAL = 0.005
"""Seconds between two looks at something that does not call back."""


def wait_until(condition: Callable[[], T], what: str = "", timeout: float = TIMEOUT) -> T:
    """Wait until `condition` gives something true, and give that."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, f"in vain after {timeout:g} s: {what or condition}"
        time.sleep(POLL_INTERVAL)
    return found


async def until(condition: Callable[[], T], what: str = "", timeout: float = TIMEOUT) -> T:  # noqa: ASYNC109
    """As `wait_until`, on an event loop."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, f"in vain after {timeout:g} s: {what or condition}"
        await asyncio.sleep(POLL_INTERVAL)
    return found


class Background:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT)
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Have it run there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(TIMEOUT)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Have a function called there, and wait for it."""

        async def call() -> T:
            return function(*args)

        return self.run(call())

    def start_worker(self, make: Callable[[], AsyncWorker]) -> AsyncWorker:
        """Start a worker there; `stop_worker` ends it."""

        async def start() -> AsyncWorker:
            return await make().start()

        return self.run(start())

    def stop_worker(self, worker: AsyncWorker) -> Exit:
        """Drain a worker that runs there."""

        async def stop() -> Exit:
            worker.stop()
            return await worker.wait()

        return self.run(stop())


class Broker(Background):
    """A daemon, and a manager for each queue that is asked for.

    Args:
        scratch: directory for what the managers keep, and for a unix socket.
    """

    def __init__(self, scratch: Path) -> None:
        super().__init__()
        self._scratch = scratch
        self._managers: list[QueueManager] = []
        self.address = f"unix:{scratch / 'socket'}"
        """Where clients connect; there is a TCP port, too."""
        self.tcp_address = ""

    def __enter__(self) -> Self:
        super().__enter__()

        async def start() -> Daemon:
            daemon = Daemon()
            await daemon.start(port=0, unix_path=str(self._scratch / "socket"))
            return daemon

        self.daemon = self.run(start())
        self.tcp_address = self.daemon.address
        return self

    def __exit__(self, *_: object) -> None:
        for manager in self._managers:
            self.stop_manager(manager)
        self.run(self.daemon.stop())
        super().__exit__()

    def manage(self, queue: str, policy: Policy = DEFAULT, state: Path | None = None) -> QueueManager:
        """Start a manager."""

        async def start() -> QueueManager:
            directory = state or self._scratch / "state"
            return await QueueManager(queue, self.daemon, state=directory, policy=policy).start()

        manager = self.run(start())
        self._managers.append(manager)
        return manager

    def stop_manager(self, manager: QueueManager) -> Exit:
        """Stop a manager in an orderly way."""

        async def stop() -> Exit:
            manager.stop()
            return await manager.wait()

        if manager in self._managers:
            self._managers.remove(manager)
        return self.run(stop())

    def status(self, queue: str) -> dict[str, Any]:
        """What `spreadq status` would show."""
        return ask_status(queue, self.address)

    async def ask(self, queue: str) -> dict[str, Any]:
        """As `status`, without holding up the event loop."""
        return await asyncio.to_thread(self.status, queue)

    def wait_for(self, queue: str, condition: Callable[[dict[str, Any]], T]) -> T:
        """Wait until something is true of the queue's status, and give that."""
        return wait_until(lambda: condition(self.status(queue)), str(condition))

    async def until(self, queue: str, condition: Callable[[dict[str, Any]], T]) -> T:
        """As `wait_for`, without holding up the event loop."""
        return await asyncio.to_thread(self.wait_for, queue, condition)

    def wait_for_workers(self, queue: str, count: int) -> None:
        """Wait until so many workers, no more and no less, can be given tasks."""

        def ready(status: dict[str, Any]) -> bool:
            states = [worker["state"] for worker in status["workers"]]
            return len(states) == count and all(state in ("available", "working") for state in states)

        self.wait_for(queue, ready)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A daemon in a thread, and managers of the queues that tests ask for."""
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@pytest.fixture
def unmanaged_queue() -> str:
    """A name that no other test uses."""
    return f"test-{uuid4().hex[:16]}"

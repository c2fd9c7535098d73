"""Serving a queue from plain code, in the shape of Spread::Queue: callbacks that answer explicitly."""

from __future__ import annotations

import asyncio
import inspect
import logging
import signal
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar, overload

import attrs

from spreadq.async_worker import AsyncWorker
from spreadq.config import daemon_address, queue_name
from spreadq.jobs import Function
from spreadq_core.effects import StartJob
from spreadq_core.errors import UsageError
from spreadq_core.ids import TaskId
from spreadq_core.policy import DEFAULT, Policy

logger = logging.getLogger("spreadq")

C = TypeVar("C", bound=Callable[..., Any])


@attrs.frozen
class Originator:
    """Who asked for a job: what `Worker.respond` needs to answer."""

    job: StartJob

    @property
    def task(self) -> TaskId:
        """The task's id."""
        return TaskId(self.job.sender, self.job.counter)

    @property
    def attempt(self) -> int:
        """Which attempt at it this is: 1, 2, 3, ..."""
        return self.job.number

    @property
    def headers(self) -> bytes:
        """As the sender gave them."""
        return self.job.headers


class Worker:
    """Serves callbacks of one queue until it is told to stop.

    A callback is called as `callback(worker, originator, input)` and answers by `respond`, any number
    of times. A `def` runs in a thread, an `async def` on the loop.

    Args:
        queue: the queue's name; None: as the environment says.
        address: of the Spread daemon; None: as the environment says.
        concurrency: how many jobs run at a time.
        name: for people.
        policy: limits and defaults.

    Raises:
        UsageError: a name or number is not possible.
    """

    def __init__(
        self,
        queue: str | None = None,
        *,
        address: str | None = None,
        concurrency: int = 1,
        name: str | None = None,
        policy: Policy = DEFAULT,
    ) -> None:
        self.queue = queue_name(queue)
        self._address = daemon_address(address)
        self._concurrency = concurrency
        self._name = name
        self.policy = policy
        self._functions: dict[str, Function] = {}
        self._running: AsyncWorker | None = None

    def callbacks(self, **callbacks: Callable[..., Any]) -> Self:
        """Serve these callbacks under their keyword's name."""
        for name, callback in callbacks.items():
            self._add(name, callback)
        return self

    @overload
    def function(self, callback: C, /) -> C: ...
    @overload
    def function(self, *, name: str) -> Callable[[C], C]: ...
    def function(self, callback: C | None = None, *, name: str | None = None) -> C | Callable[[C], C]:
        """Serve the decorated callback, under its own name or another."""
        if callback is not None:
            self._add(callback.__name__, callback)
            return callback

        def decorate(callback: C) -> C:
            self._add(name or callback.__name__, callback)
            return callback

        return decorate

    def respond(self, originator: Originator, value: Any = None) -> None:
        """Answer whoever asked for a job that is running here; from any thread.

        Raises:
            BadPayload: the value cannot be encoded, or is too large.
            UsageError: the worker does not run.
        """
        if self._running is None:
            raise UsageError("the worker does not run: there is nobody to answer")
        self._running.respond(originator.job, value)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, which let running jobs end; the second one gives them back.

        Raises:
            CannotConnectError: there is no daemon, or it refuses us.
            SystemExit: it ended otherwise than in an orderly way.
        """

        async def run() -> None:
            await serve_until_stopped(self.worker())

        asyncio.run(run())

    def worker(
        self,
        *,
        queue: str | None = None,
        address: str | None = None,
        concurrency: int | None = None,
        name: str | None = None,
        policy: Policy | None = None,
    ) -> AsyncWorker:
        """The same callbacks, to be served on an event loop; arguments replace those given before."""
        self._running = AsyncWorker(
            self._functions,
            queue or self.queue,
            address=address or self._address,
            concurrency=concurrency or self._concurrency,
            name=name or self._name,
            policy=policy or self.policy,
        )
        return self._running

    def _add(self, name: str, callback: Callable[..., Any]) -> None:
        if name in self._functions:
            raise UsageError(f"there is a callback for {name!r} already")

        def call(job: StartJob, value: Any) -> Any:
            return callback(self, Originator(job), value)

        is_async = inspect.iscoroutinefunction(callback)
        self._functions[name] = Function(name, call, is_async=is_async, answers=False)


async def serve_until_stopped(worker: AsyncWorker) -> None:
    """Run a worker as a program does: SIGTERM and SIGINT stop it.

    Raises:
        CannotConnectError: there is no daemon, or it refuses us.
        SystemExit: it ended otherwise than in an orderly way.
    """
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    await worker.start()
    for number in signals:
        loop.add_signal_handler(number, worker.stop)
    try:
        end = await worker.wait()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
    if end.status:
        logger.error("%s", end.reason)
        raise SystemExit(end.status)

"""Submitting tasks from an asyncio program."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

from spreadq import codecs
from spreadq.config import Duration, about, daemon_address, nanoseconds, new_instance, queue_name
from spreadq.errors import TimedOut
from spreadq.hosts import AsyncioHost
from spreadq.requests import (
    DEFAULT_CALL_TIMEOUT,
    NEVER_ACCEPTED,
    Options,
    Pending,
    PendingRequests,
    call_expiry,
    response_value,
    value_of,
)
from spreadq_core.errors import UsageError
from spreadq_core.events import AbandonRequested, StopRequested
from spreadq_core.ids import SECOND, Instance, TaskId
from spreadq_core.policy import DEFAULT, Policy
from spreadq_core.sender import Sender as SenderRole
from transports.forks import generation
from transports.spread.asyncio_client import AsyncioSpread

R = TypeVar("R")
T = TypeVar("T")


def _plain(value: Any) -> Any:
    return value


class _AsyncPending(Pending):
    """Wakes whoever waits for a change."""

    __slots__ = ("_waiters",)

    def __init__(self, sender: Instance, counter: int, *, reply: bool) -> None:
        super().__init__(sender, counter, reply=reply)
        self._waiters: list[asyncio.Future[None]] = []

    def changed(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def change(self) -> asyncio.Future[None]:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    async def acceptance(self) -> None:
        while not self.accepted and self.outcome is None:
            await self.change()
        if self.outcome is not None and self.outcome.status in NEVER_ACCEPTED:
            value_of(self.outcome)


class AsyncHandle(Generic[R]):
    """A task that was submitted, and what becomes of it."""

    def __init__(self, pending: _AsyncPending, convert: Callable[[Any], R]) -> None:
        self._pending = pending
        self._convert = convert

    def typed(self, convert: Callable[[Any], T]) -> AsyncHandle[T]:
        """The same, with a conversion of the plain value."""
        return AsyncHandle(self._pending, convert)

    @property
    def id(self) -> TaskId:
        """Names the task everywhere."""
        return self._pending.id

    async def result(self, timeout: Duration | None = None) -> R:  # noqa: ASYNC109 -- only the wait ends
        """Wait for the value.

        Args:
            timeout: of the wait, which does not end the task; None: for ever.

        Raises:
            TimedOut: it is not done yet.
            TaskError: it came to another end; see `errors`.
        """
        seconds = None if timeout is None else nanoseconds(timeout) / SECOND
        try:
            async with asyncio.timeout(seconds):
                while self._pending.outcome is None:
                    await self._pending.change()
        except TimeoutError:
            raise TimedOut(f"not done yet after {timeout}", self.id) from None
        return self._convert(self._pending.result())

    async def responses(self) -> AsyncIterator[Any]:
        """Each response as it comes, until the task is over.

        Raises:
            TaskError: it failed, after those that came before.
        """
        pending, seen = self._pending, 0
        while True:
            for response in pending.responses[seen:]:
                seen += 1
                yield response_value(response)
            if pending.outcome is not None and seen == len(pending.responses):
                break
            if seen == len(pending.responses):
                await pending.change()
        if pending.outcome.status:
            value_of(pending.outcome)


class AsyncSender:
    """Submits tasks to one queue, and makes calls, on the running event loop.

    Use it as an asynchronous context manager, or `start` and `close` it. Not thread-safe.

    Args:
        queue: its name; None: as the environment says.
        address: of the Spread daemon; None: as the environment says.
        codec: of payloads: msgpack, json, raw or yaml.
        name: for people.
        policy: limits and defaults.

    Raises:
        UsageError: a name is illegal, or none is given.
    """

    def __init__(
        self,
        queue: str | None = None,
        *,
        address: str | None = None,
        codec: str = codecs.DEFAULT_CODEC,
        name: str | None = None,
        policy: Policy = DEFAULT,
    ) -> None:
        self.queue = queue_name(queue)
        self._address = daemon_address(address)
        self._codec = codecs.check_codec(codec)
        self._role = SenderRole(self.queue, new_instance(), about(name, "sender"), policy)
        self._host: AsyncioHost | None = None
        self._transport: AsyncioSpread | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self._generation = generation()

    async def start(self) -> Self:
        """Connect to the daemon; later, lost connections are made again.

        Raises:
            CannotConnectError: there is no daemon, or it refuses us.
            UsageError: it was closed.
        """
        if self._host is None:
            async with self._starting:  # first uses at the same time share one connection
                if self._closed:
                    raise UsageError("this sender was closed; make a new one")
                if self._host is None:
                    await self._connect()
        return self

    async def _connect(self) -> None:
        host = AsyncioHost(self._role)
        requests = PendingRequests(self._role, host)
        host.transport = transport = AsyncioSpread(self._address, host.deliver, membership=False)
        await transport.start()
        self._host, self._requests, self._transport = host, requests, transport

    async def close(self) -> None:
        """Disconnect, when what was submitted is accepted or has had a moment to be.

        Whoever still waits for a task gets `Cancelled`; what is accepted is done nevertheless.
        """
        host, transport = self._host, self._transport
        self._closed = True
        if host is None or transport is None:
            return
        self._host = None
        host.post(StopRequested())
        try:
            await host.exited
        finally:
            host.stop_timer()
            self._requests.give_up()
            transport.close()
        await transport.wait_closed()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(
        self, function: str, value: Any = None, *, wait: bool = True, **options: Unpack[Options]
    ) -> AsyncHandle[Any]:
        """Queue a task whose outcome is of interest.

        Args:
            function: that a worker must serve.
            value: whatever the codec can encode.
            wait: return when the manager has accepted the task, not before.
            options: see `Options`.

        Raises:
            UsageError: the function, an option or the size of the value is not possible.
            BadPayload: the value cannot be encoded.
            Rejected: the manager does not accept it. Without `wait` its result says so.
            NoManager: nobody manages the queue. Without `wait` its result says so.
        """
        pending = self._ask(function, value, options, reply=True, confirm=wait)
        if wait:
            await pending.acceptance()
        return AsyncHandle(pending, _plain)

    async def send(
        self, function: str, value: Any = None, *, wait: bool = True, **options: Unpack[Options]
    ) -> TaskId:
        """Queue a task whose outcome is of no interest. Arguments and errors as in `submit`."""
        pending = self._ask(function, value, options, reply=False, confirm=wait)
        if wait:
            await pending.acceptance()
        return pending.id

    async def call(
        self,
        function: str,
        value: Any = None,
        *,
        timeout: Duration | None = DEFAULT_CALL_TIMEOUT,  # noqa: ASYNC109 -- it travels with the task
        **options: Unpack[Options],
    ) -> Any:
        """Have a function run, and wait for its first response, or else its value.

        Args:
            function: that a worker must serve.
            value: whatever the codec can encode.
            timeout: after which it need not run any more; None: wait for ever.
            options: see `Options`.

        Raises:
            TaskError: it came to another end; see `errors`.
            UsageError: the function, an option or the size of the value is not possible.
            BadPayload: the value cannot be encoded.
        """
        pending = self._ask(function, value, call_expiry(timeout, options), reply=True, confirm=False)
        try:
            while not pending.answered:
                await pending.change()
        except asyncio.CancelledError:
            self._abandon(pending)
            raise
        return pending.answer()

    def _ask(
        self, function: str, value: Any, options: Options, *, reply: bool, confirm: bool
    ) -> _AsyncPending:
        host = self._host
        if host is None:
            what = "was closed: make a new one" if self._closed else "is not started: use it as `async with`"
            raise UsageError(f"the sender {what}")
        if generation() != self._generation:
            raise UsageError("this sender belongs to the process that forked; make a new one")
        requests, payload = self._requests, codecs.encode(self._codec, value)
        pending = _AsyncPending(*requests.next_id(), reply=reply)
        alone = requests.come_one_by_one
        event = requests.add(pending, function, payload, self._codec, options, confirm=confirm)
        host.post(event, alone=alone)
        return pending

    def _abandon(self, pending: Pending) -> None:
        self._requests.forget(pending)
        if self._host is not None:
            self._host.post(AbandonRequested(pending.counter))

"""Serving a queue on the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from spreadq.config import about, daemon_address, new_instance, queue_name
from spreadq.hosts import AsyncioHost
from spreadq.jobs import Function, Jobs
from spreadq_core import effects as f
from spreadq_core.errors import UsageError
from spreadq_core.events import StopRequested
from spreadq_core.policy import DEFAULT, Policy
from spreadq_core.worker import Worker as WorkerRole
from transports.spread.asyncio_client import AsyncioSpread


class AsyncWorker:
    """Serves functions of one queue on the running event loop; installs no signal handlers.

    Args:
        functions: what it serves, by name.
        queue: the queue's name; None: as the environment says.
        address: of the Spread daemon; None: as the environment says.
        concurrency: how many jobs run at a time.
        name: for people.
        policy: limits and defaults.

    Raises:
        UsageError: a name or number is not possible, or there is no function.
    """

    def __init__(
        self,
        functions: Mapping[str, Function],
        queue: str | None = None,
        *,
        address: str | None = None,
        concurrency: int = 1,
        name: str | None = None,
        policy: Policy = DEFAULT,
    ) -> None:
        if not functions:
            raise UsageError("a worker needs a function to serve")
        self.queue = queue_name(queue)
        self._address = daemon_address(address)
        self._functions = dict(functions)
        served = tuple(sorted(functions))
        self._role = WorkerRole(
            self.queue, new_instance(), about(name, "worker"), served, concurrency, policy
        )
        self._host: AsyncioHost | None = None
        self._stops = 0  # while it was not started

    async def start(self) -> Self:
        """Connect to the daemon and begin to serve; lost connections are made again.

        Raises:
            CannotConnectError: there is no daemon, or it refuses us.
        """
        if self._host is None:
            host = AsyncioHost(self._role)
            self._jobs = Jobs(self._functions, host.post, self._role.policy.payload_limit, host.loop)
            host.performers |= {f.StartJob: self._jobs.start, f.CancelJob: self._jobs.cancel}
            host.transport = self._transport = AsyncioSpread(self._address, host.deliver, membership=False)
            await self._transport.start()
            self._host = host
            for _ in range(self._stops):
                host.post(StopRequested())
        return self

    def stop(self) -> None:
        """Take no more tasks and end when the running jobs have; called again: give them back and end."""
        if self._host is not None:
            self._host.post(StopRequested())
        else:
            self._stops += 1

    async def wait(self) -> f.Exit:
        """Wait until it is at its end, and disconnect.

        Returns:
            Exit status for the process, and why.

        Raises:
            UsageError: it was not started.
        """
        host = self._host
        if host is None:
            raise UsageError("the worker is not started: use it as `async with`, or `await worker.start()`")
        end = await asyncio.shield(host.exited)
        self._host = None
        host.stop_timer()
        self._jobs.close()
        self._transport.close()
        await self._transport.wait_closed()
        return end

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        await self.wait()

    def respond(self, job: f.StartJob, value: Any) -> None:
        """Send a response to the caller of a running job; from any thread.

        Raises:
            BadPayload: it cannot be encoded, or is too large.
        """
        self._jobs.respond(job, value)

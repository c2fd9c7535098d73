"""Managing a queue on the running event loop: what `sqm` and `spreadq serve` run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Self

import msgspec

from spreadq.config import about, new_instance
from spreadq.hosts import AsyncioHost
from spreadq.report import report
from spreadq.state_dir import StateDirectory
from spreadq_core import effects as f
from spreadq_core.events import StopRequested
from spreadq_core.ids import QueueGroups
from spreadq_core.manager import Manager
from spreadq_core.policy import DEFAULT, Policy
from transports.daemon.server import Daemon
from transports.memory import MemoryTransport
from transports.spread.asyncio_client import AsyncioSpread

logger = logging.getLogger("spreadq")

LOST_PRIMACY = 75
"""Exit status of a manager that was replaced."""


class QueueManager:
    """Manages one queue: accepts tasks, assigns them, and keeps what must outlive it.

    Args:
        queue: the queue's name.
        daemon: address of the Spread daemon, or a daemon in this process.
        state: directory for what is kept; see `state_dir.StateDirectory`.
        name: for people.
        policy: limits and defaults.

    Raises:
        UsageError: the queue's name is illegal, or the directory cannot be used.
    """

    def __init__(
        self,
        queue: str,
        daemon: str | Daemon,
        *,
        state: Path,
        name: str | None = None,
        policy: Policy = DEFAULT,
    ) -> None:
        QueueGroups.of(queue)  # before anything is made for it
        self.queue = queue
        self._daemon = daemon
        self._about = about(name, "manager")
        self._policy = policy
        self._state = StateDirectory(state, queue)
        self._host: AsyncioHost | None = None

    async def start(self) -> Self:
        """Read what was kept, connect, and manage the queue as soon as nobody else does.

        Raises:
            CannotConnectError: there is no daemon, or it refuses us.
        """
        self._host = host = AsyncioHost(self._role())
        host.performers |= {f.KeepEpoch: self._keep_epoch, f.Report: self._report}
        if isinstance(self._daemon, Daemon):
            self._transport: AsyncioSpread | MemoryTransport = self._daemon.attach(
                host.deliver, membership=True
            )
            host.transport = self._transport
        else:
            try:
                client = AsyncioSpread(self._daemon, host.deliver, membership=True)
                host.transport = self._transport = client
                await client.start()
            except BaseException:
                self._host = None
                raise
        return self

    @property
    def is_started(self) -> bool:
        """Whether `wait` has something to wait for."""
        return self._host is not None

    def stop(self) -> None:
        """Manage no longer; what is accepted is kept for the next manager."""
        if self._host is not None:
            self._host.post(StopRequested())

    async def wait(self) -> f.Exit:
        """Wait until it is at its end, keep what must be kept, and disconnect.

        Returns:
            Exit status for the process, and why.
        """
        assert self._host is not None
        end = await self._host.exited
        self._host.stop_timer()
        if end.status == 0 and self._manager.primacy.state.held:  # else it knows nothing of its own
            path = self._state.save(self._manager.image())
            logger.info("queue %s: %d tasks kept in %s", self.queue, self._manager.queue.state.tasks, path)
        elif end.status == LOST_PRIMACY and self._manager.queue.state.tasks:
            instance = self._manager.state.speaker.instance
            path = self._state.save(self._manager.image(), f"lost-{instance:016x}")
            logger.error("queue %s: tasks that the new manager may not know are in %s", self.queue, path)
        self._transport.close()
        if isinstance(self._transport, AsyncioSpread):
            await self._transport.wait_closed()
        self._host = None
        return end

    def _role(self) -> Manager:
        instance, epoch, image = new_instance(), self._state.epoch(), self._state.load()
        now = AsyncioHost.clock()
        try:
            self._manager = Manager(self.queue, instance, self._about, now, self._policy, epoch, image)
        except msgspec.MsgspecError as error:
            self._state.refuse(f"its image is none: {error}")
            self._manager = Manager(self.queue, instance, self._about, now, self._policy, epoch)
        return self._manager

    def _keep_epoch(self, effect: f.KeepEpoch) -> None:
        self._state.keep_epoch(effect.epoch)
        self._state.drop()  # we manage: from now on the truth is here

    def _report(self, effect: f.Report) -> None:
        assert self._host is not None
        speaker = self._manager.state.speaker
        parts = report(self._manager, self._host.now())
        self._host.send([speaker.alone((effect.asker,), [part]) for part in parts])

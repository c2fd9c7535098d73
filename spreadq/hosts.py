"""The core's `Host` on asyncio, and in a program that blocks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any

from spreadq_core import effects as f
from spreadq_core.effects import Send
from spreadq_core.events import Event
from spreadq_core.host import Host, Role
from spreadq_core.ids import SECOND, Nanos
from spreadq_core.notes import NoteName
from transports.base import Transport
from transports.spread.blocking_client import BlockingSpread

logger = logging.getLogger("spreadq")

TIMER_GRAIN = 0.001
"""Seconds by which timers are set later, for uvloop counts in milliseconds, and rounds down."""

_LEVELS = {
    NoteName.BAD_FRAME: logging.WARNING,
    NoteName.BAD_MESSAGE: logging.WARNING,
    NoteName.LOST_PRIMACY: logging.ERROR,
    NoteName.TOOK_OVER: logging.INFO,
    NoteName.WORKER_ENTERED: logging.INFO,
    NoteName.WORKER_LEFT: logging.INFO,
    NoteName.WORKER_LOST: logging.WARNING,
    NoteName.WELCOMED: logging.INFO,
    NoteName.JUDGED: logging.WARNING,
    NoteName.JOB_HUNG: logging.ERROR,
}
"""How much a note matters to people; the others are for who debugs."""

_INSTANCES = frozenset({"peer", "sender", "source", "worker"})
"""Fields of notes that name an instance; or else a session, which is text."""


class TransportHost(Host):
    """What both have in common: the clock, and a transport, which is set before the first turn."""

    transport: Transport

    clock = staticmethod(time.monotonic_ns)

    def now(self) -> Nanos:
        """Monotonic."""
        return self.clock()

    def send(self, sends: list[Send]) -> None:
        """In one write for all of a turn."""
        for send in sends:
            self.transport.send(send.groups, send.service, send.kind, send.body)
        self.transport.flush()

    def join(self, effect: f.Join) -> None:
        """At once, as everything that follows must come after it."""
        self.transport.join(effect.group)
        self.transport.flush()

    def leave(self, effect: f.Leave) -> None:
        """At once."""
        self.transport.leave(effect.group)
        self.transport.flush()

    def note(self, effect: f.Note) -> None:
        """Into the log `spreadq`."""
        level = _LEVELS.get(effect.name, logging.DEBUG)
        if logger.isEnabledFor(level):
            fields: dict[str, Any] = {"queue": self.role.groups.queue}
            for key, value in effect.fields.items():
                is_instance = key in _INSTANCES and isinstance(value, int)
                fields[key] = f"{value:016x}" if is_instance else value
            text = " ".join(f"{key}={value}" for key, value in fields.items())
            logger.log(level, "%s %s", effect.name, text, extra={"event": str(effect.name), "fields": fields})


class AsyncioHost(TransportHost):
    """Runs a role on the running event loop.

    What its owner wants is collected until the loop comes round, so that all that is asked for in
    one go travels in one frame; what the transport delivers is handled at once.
    """

    def __init__(self, role: Role) -> None:
        super().__init__(role)
        self.loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[f.Exit] = self.loop.create_future()
        """Done when the role is at its end."""
        self._turn_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: Nanos = 0

    def deliver(self, events: Iterable[Event]) -> None:
        """As in `Host`; a defect of ours ends the role, and is raised where `exited` is awaited."""
        try:
            super().deliver(events)
        except Exception as error:
            logger.critical("a defect in spreadq", exc_info=True)
            if not self.exited.done():
                self.exited.set_exception(error)

    def post(self, event: Event, *, alone: bool = False) -> None:
        """Let the role handle an event of its owner's, soon; at once if no other is to join it."""
        self._inbox.append(event)
        if alone:
            self.deliver(())
        elif not self._turn_due:
            self._turn_due = True
            self.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn_due = False
        if self._inbox:
            self.deliver(())

    def set_alarm(self, at: Nanos | None) -> None:
        """A timer that rings early does no harm, so one that is set is only replaced by an earlier one."""
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_later(max(0, at - self.now()) / SECOND + TIMER_GRAIN, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.ring()

    def exit(self, effect: f.Exit) -> None:
        """Tell whoever waits for `exited`."""
        if not self.exited.done():
            self.exited.set_result(effect)

    def stop_timer(self) -> None:
        """No turn happens of itself any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BlockingHost(TransportHost):
    """Runs a role in the caller's own thread, which calls `dispatch` whenever there is something to do."""

    transport: BlockingSpread

    def __init__(self, role: Role, transport: BlockingSpread) -> None:
        super().__init__(role)
        self.transport = transport
        self.exited: f.Exit | None = None
        self._deadline: Nanos | None = None

    @property
    def deadline(self) -> Nanos | None:
        """When `dispatch` has something to do although the socket is silent."""
        times = [self._deadline]
        if self.transport.deadline is not None:
            times.append(int(self.transport.deadline * SECOND))
        return min((at for at in times if at is not None), default=None)

    def dispatch(self, timeout: float | None = 0) -> None:
        """Wait for something to do, for at most `timeout` seconds (None: for ever), and do it."""
        deadline = self._deadline
        if deadline is not None:
            until = max(0, deadline - self.now()) / SECOND
            timeout = until if timeout is None else min(timeout, until)
        events: Iterable[Event] = self.transport.receive(timeout)
        if events:
            self.deliver(events)
        if self._deadline is not None and self.now() >= self._deadline:
            self.ring()

    def set_alarm(self, at: Nanos | None) -> None:
        """Remembered for `dispatch`."""
        self._deadline = at

    def exit(self, effect: f.Exit) -> None:
        """Remembered for whoever looks."""
        self.exited = effect

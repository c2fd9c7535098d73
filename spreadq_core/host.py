"""The one loop that runs a role: on asyncio, in a blocking program, in the simulator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from spreadq_core import effects as f
from spreadq_core.effects import Effect, Send
from spreadq_core.events import Event, Tick
from spreadq_core.ids import Nanos, QueueGroups


class Role(Protocol):
    """What Manager, Worker and Sender are."""

    groups: QueueGroups

    def handle(self, event: Event, now: Nanos) -> list[Effect]:
        """Take an event; give what is to be done."""

    def flush(self, now: Nanos) -> list[Send]:
        """End a turn."""

    @property
    def deadline(self) -> Nanos | None:
        """When it next wants a `Tick`."""


class Host(ABC):
    """Runs one role. A turn: drain the inbox, perform effects in order, flush, set the alarm.

    Effects come before what is said, for some of it is said on their strength (a kept epoch). What
    was received is handled before a `Tick`.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self._inbox: deque[Event] = deque()
        self._in_turn = False
        self._alarm_at: Nanos | None = None
        self.performers: dict[type, Callable[[Any], None]] = {
            f.Join: self.join,
            f.Leave: self.leave,
            f.Exit: self.exit,
            f.Note: self.note,
        }
        """What is done for each kind of effect; a host adds those that only its role asks for."""

    def deliver(self, events: Iterable[Event]) -> None:
        """Let the role handle events; those that come of it are handled in the same turn."""
        self._inbox.extend(events)
        if not self._in_turn:
            self._turn()

    def ring(self) -> None:
        """The alarm went off."""
        self._alarm_at = None
        self.deliver((Tick(),))

    def _turn(self) -> None:
        self._in_turn = True
        try:
            now, role, inbox, performers = self.now(), self.role, self._inbox, self.performers
            while inbox:
                for effect in role.handle(inbox.popleft(), now):
                    performers[type(effect)](effect)
            sends = role.flush(now)
            if sends:
                self.send(sends)
        finally:
            self._in_turn = False
        deadline = role.deadline
        if deadline != self._alarm_at:
            self._alarm_at = deadline
            self.set_alarm(deadline)

    # --- what a host fills in -------------------------------------------------------------------

    @abstractmethod
    def now(self) -> Nanos:
        """The time, which never goes back."""

    @abstractmethod
    def set_alarm(self, at: Nanos | None) -> None:
        """Call `ring` at this time, and at no earlier one that was set; None: not at all."""

    @abstractmethod
    def send(self, sends: list[Send]) -> None:
        """Multicast all of these."""

    @abstractmethod
    def join(self, effect: f.Join) -> None:
        """Join a group."""

    @abstractmethod
    def leave(self, effect: f.Leave) -> None:
        """Leave a group."""

    @abstractmethod
    def exit(self, effect: f.Exit) -> None:
        """The role is at its end."""

    @abstractmethod
    def note(self, effect: f.Note) -> None:
        """Log or count."""

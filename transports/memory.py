"""Transports between members of one process: no sockets, and no event loop needed.

`MemoryBus` is for users' own tests: deterministic, and usable in synchronous code. The embedded daemon
gives out the same `MemoryTransport`s, so that a member can live inside the daemon's process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final, TypeAlias

from spreadq_core.effects import Service
from spreadq_core.errors import UsageError
from spreadq_core.events import Connected, Disconnected, TransportEvent
from transports.base import ClosedError, Deliver, NameSource, TransportError, check_group, check_message
from transports.groups import GroupSpace, Member, News, Request, private_group
from transports.spread.handshake import NotUniqueError
from transports.spread.messages import AGREED, FIFO, Data, Join, Leave

BUS_NAME: Final = "memory"
"""Stands for the daemon in the private group names of a bus: `#m1#memory`."""

ROUNDS_LIMIT: Final = 100_000
"""Rounds of deliveries after which `MemoryBus.run` says that the members will never be quiet."""

Schedule: TypeAlias = Callable[[Callable[[], None]], object]
"""Calls a function soon, but not now, such as an event loop's `call_soon`."""


class NotQuietError(TransportError):
    """The members of a bus answer each other without end."""


class Hub:
    """What bus and daemon have in common: one order of requests, and rounds of deliveries in the process.

    Args:
        name: the daemon's, for private group names.
        time: when its life began, in UNIX seconds, for group ids.
        schedule: has a round made; None where somebody else does it.

    Attributes:
        space: who is in which group.
    """

    def __init__(self, name: str, time: int, schedule: Schedule | None) -> None:
        self.name = name
        self.space = GroupSpace(time)
        self._schedule = schedule
        self._taken: set[str] = set()
        self._ready: deque[MemoryTransport] = deque()
        self._round_due = False

    def reserve(self, private_name: str) -> str:
        """Keep others from using a name, until `release` or `remove`.

        Returns:
            The private group name.

        Raises:
            NotUniqueError: somebody uses it.
        """
        name = private_group(private_name, self.name)
        if name in self._taken:
            raise NotUniqueError
        self._taken.add(name)
        return name

    def release(self, name: str) -> None:
        """Give back a reserved name under which nobody was connected."""
        self._taken.remove(name)

    def apply(self, member: Member, request: Request) -> None:
        """Give `request` its place in the total order."""
        for news in self.space.apply(member, request):
            news.deliver()

    def remove(self, member: Member) -> None:
        """Disconnect `member`, in its place in the total order."""
        self.release(member.name)
        for news in self.space.disconnect(member):
            news.deliver()

    def wake(self, transport: MemoryTransport) -> None:
        """Deliver the inbox of `transport`, which was empty, in the next round."""
        self._ready.append(transport)
        self._request_round()

    def _request_round(self) -> None:
        if not self._round_due and self._schedule is not None:
            self._round_due = True
            self._schedule(self._make_round)

    def _make_round(self) -> None:
        """Deliver what is in the inboxes now; what comes in meanwhile waits for the next round."""
        try:
            for _ in range(len(self._ready)):
                self._ready.popleft().deliver_inbox()
        finally:
            self._round_due = False
            if self._ready:
                self._request_round()


class MemoryTransport(Member):
    """A `Transport` of a member in its hub's own process, made by `MemoryBus` or `Daemon`.

    Nothing is delivered while a call of its own is under way: what is sent from within `deliver` takes
    its place in the total order with `flush`, and is seen in a later round.
    """

    def __init__(self, hub: Hub, deliver: Deliver, *, membership: bool) -> None:
        super().__init__("", membership=membership)
        self._hub = hub
        self._deliver = deliver
        self._requests: list[Request] = []
        self._inbox: list[TransportEvent] = []
        self._closed = False

    @property
    def session(self) -> str:
        """Our private group name while connected, else empty."""
        return self.name

    def join(self, group: str) -> None:
        """See `Transport.join`."""
        check_group(group)
        self._request(Join(self.name, group))

    def leave(self, group: str) -> None:
        """See `Transport.leave`."""
        check_group(group)
        self._request(Leave(self.name, group))

    def send(self, groups: tuple[str, ...], service: Service, kind: int, body: bytes) -> None:
        """See `Transport.send`."""
        check_message(groups, kind, len(body))
        self._request(Data(self.name, groups, kind, body, AGREED if service is Service.AGREED else FIFO))

    def flush(self) -> None:
        """See `Transport.flush`."""
        requests, self._requests = self._requests, []
        for request in requests:
            self._hub.apply(self, request)

    def close(self) -> None:
        """See `Transport.close`. Nothing is delivered any more."""
        self._closed = True
        self.flush()
        self.disconnect("closed")
        self._inbox.clear()

    # --- for the hub --------------------------------------------------------------------------------

    def connect(self, private_name: str) -> None:
        """Begin a session.

        Raises:
            NotUniqueError: somebody uses the name.
            ClosedError: the transport was closed.
        """
        if self._closed:
            raise ClosedError("this transport was closed; make a new one")
        self.name = self._hub.reserve(private_name)
        self._hub.space.connect(self)
        self.put_event(Connected(self.name))

    def disconnect(self, reason: str) -> None:
        """See `Member.disconnect`. What was not flushed is lost."""
        if self.name:
            self._requests.clear()
            self._hub.remove(self)
            self.name = ""
            self.put_event(Disconnected(reason))

    def put(self, news: News) -> None:
        """See `Member.put`."""
        self.put_event(news.event)

    def put_event(self, event: TransportEvent) -> None:
        """Have `event` delivered in the next round."""
        if not self._inbox:
            self._hub.wake(self)
        self._inbox.append(event)

    def deliver_inbox(self) -> None:
        """Hand over all that has come in, in one list."""
        events, self._inbox = self._inbox, []
        if events:
            self._deliver(events)

    def _request(self, request: Request) -> None:
        if self.name:
            self._requests.append(request)


class MemoryBus(Hub):
    """Connects members of one process. Deterministic: the same calls always give the same events.

    Args:
        names: gives private names; without it they are `m1`, `m2`, ...
        schedule: gets a function whenever there is something to deliver, to call it soon; an event
            loop's `call_soon` does. Without it, nothing is delivered until somebody calls `run`.
    """

    def __init__(self, *, names: NameSource | None = None, schedule: Schedule | None = None) -> None:
        super().__init__(BUS_NAME, 0, schedule)
        numbers = count(1)
        self._names = names or (lambda: f"m{next(numbers)}")
        self._running = False

    def attach(self, deliver: Deliver, *, membership: bool) -> MemoryTransport:
        """Make a connected transport; the first event that it delivers is `Connected`.

        Raises:
            NotUniqueError: the name source gave a name that is in use.
        """
        transport = MemoryTransport(self, deliver, membership=membership)
        transport.connect(self._names())
        return transport

    def disconnect(self, transport: MemoryTransport, reason: str = "disconnected by the test") -> None:
        """Cut off `transport`, as a daemon does that stops; nothing happens if it is not connected."""
        transport.disconnect(reason)

    def reconnect(self, transport: MemoryTransport) -> None:
        """Give `transport` a new session: another name, and nothing joined.

        Raises:
            UsageError: it is connected.
            NotUniqueError: the name source gave a name that is in use.
            ClosedError: it was closed.
        """
        if transport.session:
            raise UsageError(f"{transport.session} is connected; disconnect it first")
        transport.connect(self._names())

    def run(self) -> None:
        """Deliver until all are quiet. From within a `deliver` it does nothing: the outer run goes on.

        Raises:
            NotQuietError: they are not after `ROUNDS_LIMIT` rounds.
        """
        if self._running:
            return
        self._running = True
        try:
            for _ in range(ROUNDS_LIMIT):
                if not self._ready:
                    return
                self._make_round()
        finally:
            self._running = False
        raise NotQuietError(f"not quiet after {ROUNDS_LIMIT} rounds: the members answer each other for ever")

"""One client of the embedded daemon, from its accept to its end."""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import TYPE_CHECKING, Final

from spreadq_core.events import Received
from transports.base import ProtocolError, body_limit
from transports.daemon.outbox import Outbox
from transports.groups import Member, News
from transports.memory import MemoryTransport
from transports.spread.messages import (
    REQUESTS,
    SELF_DISCARD,
    SERVICES,
    ClientMessage,
    Data,
    Join,
    Kill,
    Leave,
)
from transports.spread.wire import (
    ENDIAN_MARK,
    HEADER_SIZE,
    NAME_SIZE,
    Header,
    check_client_header,
    decode_from_client,
    locate,
)

if TYPE_CHECKING:
    from transports.daemon.server import Daemon

DROP_RECV: Final = 0x01000000
"""An option of the C library's receive call, which may be left in a type word (PROTOCOL 3.3)."""

PERMITTED_BITS: Final = SERVICES | REQUESTS | SELF_DISCARD | DROP_RECV
"""Spread lets others through, to the harm of receivers and of itself; here they end the connection
(PROTOCOL 11)."""

ROUTES_LIMIT: Final = 1024
"""Routes that a connection remembers; then it begins anew."""

ROUTE_GROUPS_LIMIT: Final = 4
"""Destinations of the longest list that is worth remembering a route for."""

THROTTLE: Final = 0.005
"""Seconds without being read for a client whose receivers can't follow. A small daemon is faster than
Spread, and would let it drown readers that keep up with Spread; no reader can slow it down by more."""

_START_SIZE = 44
"""Bytes of a header without its last field, data_len (PROTOCOL 3.1)."""
_LENGTHS = struct.Struct("<I4xI")
"""num_groups and data_len in the header of a little-endian message."""
_LENGTHS_AT = 36
_BIG_HEADER = struct.Struct(">I32sI4sI")
_LITTLE_HEADER = struct.Struct("<I32sI4sI")

_log = logging.getLogger(__name__)


class Route:
    """Where messages go that begin alike, but for the length of their bodies.

    Args:
        sender: whose messages they are.
        message: the first of them.
        receivers: who gets them.
    """

    def __init__(self, sender: Connection, message: Data, receivers: tuple[Member, ...]) -> None:
        self.body_limit = body_limit(len(message.groups))
        self._sender = sender
        self._groups = message.groups
        self._kind = message.mess_type
        self._outboxes = [receiver.outbox for receiver in receivers if isinstance(receiver, Connection)]
        self._locals = [receiver for receiver in receivers if isinstance(receiver, MemoryTransport)]

    def forward(self, piece: bytes, messages: int) -> None:
        """Give all receivers a piece of a little-endian stream that is so many messages."""
        for outbox in self._outboxes:
            outbox.put(piece, messages)
            if outbox.crowded:
                self._sender.throttle()
        if self._locals:
            self._put_events(piece)

    def _put_events(self, piece: bytes) -> None:
        body_at = HEADER_SIZE + NAME_SIZE * len(self._groups)
        at = 0
        while at < len(piece):
            _, data_len = _LENGTHS.unpack_from(piece, at + _LENGTHS_AT)
            end = at + body_at + data_len
            event = Received(self._sender.name, self._groups, self._kind, piece[at + body_at : end])
            for receiver in self._locals:
                receiver.put_event(event)
            at = end


class Connection(Member, asyncio.Protocol):
    """A client that has shaken hands.

    Args:
        daemon: whose client it is.
        transport: the connection, on which the accept has been written.
        name: its private group name.
        membership: whether it wants views.
    """

    def __init__(self, daemon: Daemon, transport: asyncio.Transport, name: str, *, membership: bool) -> None:
        super().__init__(name, membership=membership)
        self.outbox = Outbox(transport, daemon.limits, daemon.flush_soon, self._overrun)
        self._daemon = daemon
        self._transport = transport
        self._ended = False
        self._throttled: asyncio.TimerHandle | None = None
        self._incomplete = bytearray()
        self._needed = HEADER_SIZE
        """Bytes of the incomplete message that have to be there before it is worth a look."""
        self._routes: dict[bytes, Route] = {}
        self._generation = daemon.space.generation

    def put(self, news: News) -> None:
        """See `Member.put`."""
        self.outbox.put(news.frame, 1)

    def disconnect(self, reason: str) -> None:
        """See `Member.disconnect`. The client still gets what its socket takes at once."""
        if self._ended:
            return
        self._ended = True
        _log.info("%s: %s", self.name, reason)
        self.outbox.close()
        self._daemon.remove(self)
        self._routes.clear()
        self._incomplete.clear()

    def throttle(self) -> None:
        """Do not read for a moment: receivers of what this client sends can't follow."""
        if self._throttled is None and not self._ended:
            self._transport.pause_reading()
            self._throttled = asyncio.get_running_loop().call_later(THROTTLE, self._read_on)

    # --- asyncio.Protocol ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. Handles the messages that are complete with `data`."""
        if self._incomplete:
            self._incomplete += data
            if len(self._incomplete) < self._needed:
                return
            data = bytes(self._incomplete)
            self._incomplete.clear()
        at = 0
        try:
            while not self._ended:
                at = self._forward(data, at)
                size = self._handle_one(data, at)
                if not size:
                    self._incomplete += data[at:]
                    break
                at += size
        except ProtocolError as error:
            self.disconnect(f"sent what the daemon does not take: {error}")

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. A client that has nothing more to say is gone (PROTOCOL 8)."""
        self.disconnect("closed its side")

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.disconnect(f"connection lost: {error}")
        self._daemon.dismiss(self._transport)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.outbox.block()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.outbox.unblock()

    # --- messages -----------------------------------------------------------------------------------

    def _forward(self, data: bytes, at: int) -> int:
        """Forward messages while they begin in a way known from before; return where they stop.

        The speed comes from here: a way to begin is checked and routed once. Messages of the same
        route that follow each other stay together, as the bytes that they came as.
        """
        routes = self._valid_routes()
        size = len(data)
        current: Route | None = None
        first = at
        messages = 0
        while size - at >= HEADER_SIZE:
            num_groups, data_len = _LENGTHS.unpack_from(data, at + _LENGTHS_AT)
            body_at = at + HEADER_SIZE + NAME_SIZE * num_groups
            end = body_at + data_len
            route = routes.get(data[at : at + _START_SIZE] + data[at + HEADER_SIZE : body_at])
            if route is None or data_len > route.body_limit or end > size:
                break
            if route is not current:
                if current is not None:
                    current.forward(data[first:at], messages)
                current, first, messages = route, at, 0
            messages += 1
            at = end
        if current is not None:
            current.forward(data[first:at], messages)
        return at

    def _handle_one(self, data: bytes, at: int) -> int:
        """Handle the message at `at`, whatever it is; return its size, or 0 if it is not complete.

        Raises:
            ProtocolError: it is no message that a daemon should take (PROTOCOL 3.7, 11).
        """
        self._needed = HEADER_SIZE
        if len(data) - at < HEADER_SIZE:
            return 0
        header, body_at, end = locate(data, at)
        self._check(header, end - body_at)
        self._needed = end - at
        if len(data) < end:
            return 0
        message = decode_from_client(data, header, at + HEADER_SIZE, body_at, end)
        _check_names(message)
        match message:
            case Data():
                route = Route(self, message, self._daemon.space.receivers(self, message))
                if header.order == "little":
                    self._remember(data[at : at + _START_SIZE] + data[at + HEADER_SIZE : body_at], route)
                    route.forward(data[at:end], 1)
                else:
                    route.forward(_to_little_endian(data[at:end]), 1)
            case Join() if len(self.groups) >= self._daemon.limits.groups:
                raise ProtocolError(f"a join when it is in {len(self.groups)} groups")
            case Join() | Leave():
                self._daemon.apply(self, message)
            case Kill():
                self.disconnect("left")
        return end - at

    def _check(self, header: Header, data_len: int) -> None:
        check_client_header(header)
        if header.type_bits & ~PERMITTED_BITS:
            raise ProtocolError(f"type {header.type_bits:#x} has bits that are not a client's to set")
        if header.name != self.name:
            raise ProtocolError(f"a message in the name of {header.name!r}")
        if data_len > body_limit(header.num_groups):
            raise ProtocolError(f"a body of {data_len} bytes for {header.num_groups} groups")

    def _valid_routes(self) -> dict[bytes, Route]:
        if self._generation != self._daemon.space.generation:
            self._generation = self._daemon.space.generation
            self._routes.clear()
        return self._routes

    def _remember(self, beginning: bytes, route: Route) -> None:
        if len(beginning) > _START_SIZE + NAME_SIZE * ROUTE_GROUPS_LIMIT:
            return
        if len(self._routes) >= ROUTES_LIMIT:
            self._routes.clear()
        self._routes[beginning] = route

    def _read_on(self) -> None:
        self._throttled = None
        if not self._ended:
            self._transport.resume_reading()

    def _overrun(self) -> None:
        self.disconnect("too slow: too much was waiting for it")


def _check_names(message: ClientMessage) -> None:
    """Refuse names without NUL, with which a client can break a real daemon (PROTOCOL 11)."""
    names = message.groups if isinstance(message, Data) else (message.group,)
    if any(len(name) == NAME_SIZE for name in names):
        raise ProtocolError("a name without NUL")


def _to_little_endian(message: bytes) -> bytes:
    """Do what a daemon does for a big-endian client: the hint stays as it is (PROTOCOL 3.2)."""
    type_word, name, num_groups, hint, data_len = _BIG_HEADER.unpack_from(message)
    header = _LITTLE_HEADER.pack(type_word | ENDIAN_MARK, name, num_groups, hint, data_len)
    return header + message[HEADER_SIZE:]

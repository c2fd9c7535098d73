"""The Spread client for synchronous programs, and for event loops that are not asyncio.

No thread, and nothing happens outside of its calls. A program of its own loops over `receive`; an
event loop of another kind watches `fileno()` (for writing, too, while `wants_write`), wakes up at
`deadline`, and calls `receive(0)` on each of these occasions.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import socket
import time
from collections.abc import Callable

from spreadq_core.effects import Service
from spreadq_core.events import Disconnected, TransportEvent
from transports.base import (
    OUTPUT_LIMIT,
    Backoff,
    ClosedError,
    NameSource,
    StalledError,
    TransportError,
    random_name,
)
from transports.forks import generation
from transports.spread.address import parse_address
from transports.spread.handshake import HandshakeResetError
from transports.spread.session import Session, unconnected
from transports.spread.sockets import (
    BUSY_RETRY,
    CLOSE_TIMEOUT,
    CONNECT_TIMEOUT,
    READ_SIZE,
    StreamEndedError,
    connect_error,
    disconnect_reason,
    set_options,
)

_LONGEST_WAIT = 3600.0
"""Seconds that one `poll` takes at most; the system has a limit, and an endless wait loops."""


class BlockingSpread:
    """A `Transport` to a Spread daemon. Not thread-safe; belongs to one process.

    It reads only in `receive`, and a daemon cuts off who lets more than a thousand messages wait.

    Args:
        address: of the daemon, in a form that `address.parse_address` takes.
        membership: whether views are wanted.
        names: gives a private name for each attempt to connect.
        backoff: waits between attempts.
        connect_timeout: seconds that an attempt may take.
        output_limit: bytes that may wait for the daemon to read them.
        clock: gives seconds that never go back.

    Raises:
        IllegalAddressError: the address has none of the known forms.
    """

    def __init__(
        self,
        address: str,
        *,
        membership: bool,
        names: NameSource = random_name,
        backoff: Backoff | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        output_limit: int = OUTPUT_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = parse_address(address)
        self._membership = membership
        self._names = names
        self._backoff = backoff or Backoff()
        self._connect_timeout = connect_timeout
        self._output_limit = output_limit
        self._clock = clock
        self._session = unconnected()
        self._socket: socket.socket | None = None
        self._unsent = bytearray()
        self._events: list[TransportEvent] = []
        self._delays = self._backoff.delays()
        self._alarm = 0.0
        """When to begin the next attempt; with a socket that is not connected, when to give it up."""
        self._closed = False
        self._pid = os.getpid()  # for people
        self._generation = generation()

    @property
    def session(self) -> str:
        """Our private group name while connected, else empty."""
        return self._session.name

    @property
    def wants_write(self) -> bool:
        """Whether `receive` has something to do as soon as the socket can be written to."""
        return bool(self._unsent)

    @property
    def deadline(self) -> float | None:
        """When, by our clock, `receive` has something to do although the socket is silent; None: never."""
        if self._events:
            return self._clock()
        return None if self._session.name else self._alarm

    def fileno(self) -> int:
        """Descriptor of the socket; it changes with every attempt to connect, and is -1 between them."""
        return -1 if self._socket is None else self._socket.fileno()

    def connect(self) -> None:
        """Make the first connection, within `connect_timeout`; `receive` gives `Connected`.

        Raises:
            CannotConnectError: there is no daemon, or it does not answer, or it refuses us (then a
                `handshake.RejectedError` says why).
            ProtocolError: what answers is no Spread daemon.
            ClosedError: the client was closed, or is another process's.
        """
        self._check_usable()
        end = self._clock() + self._connect_timeout
        while not self._session.name:
            try:
                if self._socket is None:
                    self._open()
                self._turn(end - self._clock())
            except TransportError:
                self._drop()
                raise
            except OSError as error:
                self._drop()
                if not isinstance(error, BlockingIOError) or self._clock() >= end:
                    raise connect_error(self._address, error) from error
                time.sleep(BUSY_RETRY)  # nothing tells when a full backlog has room again

    def join(self, group: str) -> None:
        """See `Transport.join`."""
        self._session.join(group)

    def leave(self, group: str) -> None:
        """See `Transport.leave`."""
        self._session.leave(group)

    def send(self, groups: tuple[str, ...], service: Service, kind: int, body: bytes) -> None:
        """See `Transport.send`."""
        self._session.send(groups, service, kind, body)

    def flush(self) -> None:
        """See `Transport.flush`. What the socket does not take waits for `receive`, up to `output_limit`.

        Raises:
            ClosedError: this is a forked child, and the connection its parent's.
        """
        self._check_process()
        self._unsent += self._session.take_output()
        if self._socket is not None and self._unsent:
            try:
                self._write(self._socket)
            except (OSError, TransportError) as error:
                self._lost(error)

    def receive(self, timeout: float | None = None) -> list[TransportEvent]:
        """Give the events of one read; wait for it, and read, write and reconnect meanwhile.

        Args:
            timeout: seconds; 0 does not wait, None waits for ever.

        Returns:
            At least one event, or an empty list when time is up.

        Raises:
            ClosedError: the client was closed, or is another process's.
        """
        self._check_usable()
        end = math.inf if timeout is None else self._clock() + timeout
        while not self._events:
            try:
                if self._socket is None and self._alarm <= self._clock():
                    self._open()
                self._turn(end - self._clock())
            except (OSError, TransportError) as error:
                self._lost(error)
            if self._clock() >= end:
                break
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """See `Transport.close`. Waits until the daemon has seen it, at most `CLOSE_TIMEOUT` seconds.

        In a forked child, only the child's copy of the socket is closed; the parent does not notice.
        """
        if self._session.name and generation() == self._generation:
            self._session.kill()
            self.flush()
            end = self._clock() + CLOSE_TIMEOUT
            while self._session.name and self._clock() < end:
                self.receive(end - self._clock())
        self._closed = True
        self._drop()

    def _check_usable(self) -> None:
        self._check_process()
        if self._closed:
            raise ClosedError("this client was closed; make a new one")

    def _check_process(self) -> None:
        if generation() != self._generation:
            raise ClosedError(f"this connection is process {self._pid}'s; make a new client after a fork")

    def _open(self) -> None:
        """Begin an attempt to connect; its request waits until the socket can be written to."""
        self._session = Session(self._names(), self._membership)
        self._unsent += self._session.take_output()
        self._alarm = self._clock() + self._connect_timeout
        family, address = self._address.resolve()
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        set_options(self._socket)
        code = self._socket.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))

    def _turn(self, wait: float) -> None:
        """Wait until there is something to do, for so many seconds at most, and do it."""
        if not self._session.name:
            wait = min(wait, self._alarm - self._clock())
        wait = min(max(wait, 0.0), _LONGEST_WAIT)
        if self._socket is None:
            time.sleep(wait)
            return
        poller = select.poll()
        poller.register(self._socket, select.POLLIN | select.POLLOUT if self._unsent else select.POLLIN)
        for _, ready in poller.poll(math.ceil(wait * 1000)):
            if ready & select.POLLOUT:
                self._write(self._socket)
            if ready & ~select.POLLOUT:
                self._read(self._socket)
        if not self._session.name and self._socket is not None and self._alarm <= self._clock():
            raise TimeoutError

    def _write(self, connected: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            del self._unsent[: connected.send(self._unsent)]
        if len(self._unsent) > self._output_limit:
            raise StalledError(self._output_limit)

    def _read(self, connected: socket.socket) -> None:
        try:
            data = connected.recv(READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            raise StreamEndedError if self._session.name else HandshakeResetError
        shaking_hands = not self._session.name
        self._events += self._session.receive(data)
        if shaking_hands:
            self._unsent += self._session.take_output()

    def _lost(self, error: Exception) -> None:
        """Give up connection or attempt; the next one begins after a delay."""
        if self._session.name:
            self._events.append(Disconnected(disconnect_reason(error)))
            self._delays = self._backoff.delays()
        self._drop()
        self._alarm = self._clock() + next(self._delays)

    def _drop(self) -> None:
        self._session.end()
        self._unsent.clear()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

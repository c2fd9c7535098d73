"""The Spread client on asyncio or uvloop: a connection that is kept up and calls `deliver`."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import cast

from spreadq_core.effects import Service
from spreadq_core.events import Disconnected
from transports.base import (
    OUTPUT_LIMIT,
    Backoff,
    ClosedError,
    Deliver,
    NameSource,
    StalledError,
    TransportError,
    random_name,
)
from transports.spread.address import parse_address
from transports.spread.handshake import HandshakeResetError
from transports.spread.session import Session, unconnected
from transports.spread.sockets import (
    BUSY_RETRY,
    CLOSE_TIMEOUT,
    CONNECT_TIMEOUT,
    StreamEndedError,
    connect_error,
    disconnect_reason,
    open_socket,
)


class AsyncioSpread:
    """A `Transport` to a Spread daemon; belongs to one event loop and one process.

    Args:
        address: of the daemon, in a form that `address.parse_address` takes.
        deliver: called in the loop with the events of each read; the first one is `Connected`.
        membership: whether views are wanted.
        names: gives a private name for each attempt to connect.
        backoff: waits between attempts once a connection was lost.
        connect_timeout: seconds that an attempt may take.
        output_limit: bytes that may wait for the daemon to read them.

    Raises:
        IllegalAddressError: the address has none of the known forms.
    """

    def __init__(
        self,
        address: str,
        deliver: Deliver,
        *,
        membership: bool,
        names: NameSource = random_name,
        backoff: Backoff | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        output_limit: int = OUTPUT_LIMIT,
    ) -> None:
        self._address = parse_address(address)
        self._deliver = deliver
        self._membership = membership
        self._names = names
        self._backoff = backoff or Backoff()
        self._connect_timeout = connect_timeout
        self._output_limit = output_limit
        self._session = unconnected()
        self._connection: _Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self._pid = os.getpid()

    @property
    def session(self) -> str:
        """Our private group name while connected, else empty."""
        return self._session.name

    async def start(self) -> None:
        """Make the first connection; whenever it is lost, it is made again without being asked.

        Raises:
            CannotConnectError: there is no daemon, or it does not answer, or it refuses us (then a
                `handshake.RejectedError` says why).
            ProtocolError: what answers is no Spread daemon.
            ClosedError: the client was closed.
        """
        if self._closed:
            raise ClosedError("this client was closed; make a new one")
        connection = await self._connect()
        self._keeper = asyncio.get_running_loop().create_task(self._keep_connected(connection))

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
        """See `Transport.flush`. A connection to a daemon that has long not been reading is given up.

        Raises:
            ClosedError: this is a forked child, and the connection its parent's.
        """
        if os.getpid() != self._pid:
            raise ClosedError(f"this connection is process {self._pid}'s; make a new client after a fork")
        if self._connection is not None:
            self._connection.flush()

    def close(self) -> None:
        """See `Transport.close`. Nothing is delivered any more; `wait_closed` waits for the end.

        In a forked child, only the child's copy of the socket is closed; the parent does not notice.
        """
        self._closed = True
        if os.getpid() != self._pid:
            if self._connection is not None:
                self._connection.forget()
        elif self._connection is not None and self._session.name:
            self._connection.kill()
        elif self._keeper is not None:
            self._keeper.cancel()

    async def wait_closed(self) -> None:
        """Wait until the daemon has seen that we left, at most `CLOSE_TIMEOUT` seconds from `close` on."""
        if self._keeper is not None:
            await asyncio.wait([self._keeper])

    async def _keep_connected(self, connection: _Connection) -> None:
        await connection.lost
        delays = self._backoff.delays()
        while not self._closed:
            await asyncio.sleep(next(delays))
            try:
                connection = await self._connect()
            except TransportError:
                continue
            await connection.lost
            delays = self._backoff.delays()

    async def _connect(self) -> _Connection:
        """Make one attempt, from the socket to the daemon's accept."""
        self._session = Session(self._names(), self._membership)
        try:
            async with asyncio.timeout(self._connect_timeout):
                connected = await self._open_socket()
                connection = _Connection(connected, self._session, self._deliver, self._output_limit)
                self._connection = connection
                await connection.establish()
        except OSError as error:  # a timeout is one, too
            raise connect_error(self._address, error) from error
        return connection

    async def _open_socket(self) -> socket.socket:
        family, address = self._address.resolve()
        opened = open_socket(family)
        try:
            if family == socket.AF_INET:
                await asyncio.get_running_loop().sock_connect(opened, address)
            else:
                # With a full backlog asyncio would take the EAGAIN for a connect under way. Nothing tells
                # when there is room, so ask again.
                while (code := opened.connect_ex(address)) == errno.EAGAIN:  # noqa: ASYNC110
                    await asyncio.sleep(BUSY_RETRY)
                if code:
                    raise OSError(code, os.strerror(code))
        except BaseException:
            opened.close()
            raise
        return opened


class _Connection(asyncio.Protocol):
    """One connection, from the connect request to the end of the stream."""

    def __init__(
        self, connected: socket.socket, session: Session, deliver: Deliver, output_limit: int
    ) -> None:
        self._socket = connected
        self._session = session
        self._deliver = deliver
        self._output_limit = output_limit
        self._transport: asyncio.Transport | None = None
        self._connected = False
        self._killed = False
        self._error: TransportError | None = None
        loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done when the connection has ended, whatever the reason."""

    async def establish(self) -> None:
        """Shake hands with the daemon.

        Raises:
            TransportError: it refused, or went away, or is none. No connection is left then, nor after
                a cancellation.
        """
        loop = asyncio.get_running_loop()
        over_unix = self._socket.family == socket.AF_UNIX
        connect = loop.create_unix_connection if over_unix else loop.create_connection
        try:
            await connect(lambda: self, sock=self._socket)
            await self._accepted
        except BaseException:
            if self._transport is None:
                self._socket.close()
            else:
                self._abort(None)
                await self.lost
            raise

    def flush(self) -> None:
        """Write what the session has to say."""
        if self._transport is None or not (output := self._session.take_output()):
            return
        self._transport.write(output)
        if self._transport.get_write_buffer_size() > self._output_limit:
            self._abort(StalledError(self._output_limit))

    def kill(self) -> None:
        """Disconnect in an orderly way: say so, and wait for the daemon to end the stream."""
        self._session.kill()
        self.flush()
        self._session.end()
        self._killed = True
        timer = self.lost.get_loop().call_later(CLOSE_TIMEOUT, self._abort, None)
        self.lost.add_done_callback(lambda _: timer.cancel())

    def forget(self) -> None:
        """Close a forked child's copy of the socket, past the loop: that is the parent's as well."""
        self._session.end()
        if (descriptor := self._socket.detach()) >= 0:
            os.close(descriptor)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. The hot path: one list of events for all that was read."""
        if self._killed:
            return
        try:
            events = self._session.receive(data)
        except TransportError as error:
            self._abort(error)
            return
        if not self._connected:
            self.flush()
            if self._session.name:
                self._connected = True
                self._accepted.set_result(None)
        if events:
            self._deliver(events)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._session.end()
        self.lost.set_result(None)
        if self._connected and not self._killed:
            self._deliver([Disconnected(disconnect_reason(self._error or error or StreamEndedError()))])
        elif not self._accepted.done():
            self._accepted.set_exception(self._error or HandshakeResetError())

    def _abort(self, error: TransportError | None) -> None:
        self._error = error
        self._session.end()
        if self._transport is not None:
            self._transport.abort()

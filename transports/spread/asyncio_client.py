"""The Spread client on asyncio or uvloop: a connection that is kept up and calls `deliver`."""

from __future__ import annotations

import asyncio
import errno
import os
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
from transports.forks import generation
from transports.spread.address import Address, parse_address
from transports.spread.handshake import HandshakeResetError
from transports.spread.session import Session, unconnected
from transports.spread.sockets import (
    BUSY_RETRY,
    CLOSE_TIMEOUT,
    CONNECT_TIMEOUT,
    StreamEndedError,
    connect_error,
    disconnect_reason,
    set_options,
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
        self._pid = os.getpid()  # for people
        self._generation = generation()

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
        if generation() != self._generation:
            raise ClosedError(f"this connection is process {self._pid}'s; make a new client after a fork")
        if self._connection is not None:
            self._connection.flush()

    def close(self) -> None:
        """See `Transport.close`. Nothing is delivered any more; `wait_closed` waits for the end.

        In a forked child, only the child's copy of the socket is closed; the parent does not notice.
        """
        if self._closed:
            return
        self._closed = True
        if self._connection is None:
            return
        if generation() != self._generation:
            self._connection.forget()
            return
        connected = bool(self._session.name)
        self._connection.kill()
        if not connected and self._keeper is not None:
            self._keeper.cancel()

    async def wait_closed(self) -> None:
        """Wait until the daemon has seen that we left, at most `CLOSE_TIMEOUT` seconds from `close` on."""
        if self._keeper is not None:
            await asyncio.wait([self._keeper])

    async def _keep_connected(self, connection: _Connection) -> None:
        await connection.lost.wait()
        delays = self._backoff.delays()
        while not self._closed:
            await asyncio.sleep(next(delays))
            try:
                connection = await self._connect()
            except TransportError:
                continue
            await connection.lost.wait()
            delays = self._backoff.delays()

    async def _connect(self) -> _Connection:
        """Make one attempt, up to the daemon's accept."""
        try:
            async with asyncio.timeout(self._connect_timeout):
                while True:
                    if self._closed:
                        raise ClosedError("this client was closed; make a new one")
                    self._session = Session(self._names(), self._membership)
                    self._connection = _Connection(self._session, self._deliver, self._output_limit)
                    try:
                        await self._connection.establish(self._address)
                    except BlockingIOError:  # a full backlog; nothing tells when there is room again
                        await asyncio.sleep(BUSY_RETRY)
                    else:
                        return self._connection
        except OSError as error:  # a timeout is one, too
            raise connect_error(self._address, error) from error


class _Connection(asyncio.Protocol):
    """One connection, from the connect request to the end of the stream."""

    def __init__(self, session: Session, deliver: Deliver, output_limit: int) -> None:
        self._session = session
        self._deliver = deliver
        self._output_limit = output_limit
        self._transport: asyncio.Transport | None = None
        self._connected = False
        self._killed = False
        self._error: TransportError | None = None
        self._kill_timer: asyncio.TimerHandle | None = None
        self._accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        """Set when the connection has ended, whatever the reason."""

    async def establish(self, address: Address) -> None:
        """Connect and shake hands. After an error or a cancellation no connection is left.

        Raises:
            TransportError: who answers refuses us, goes away, or is no daemon.
            BlockingIOError: a unix socket's backlog is full.
            OSError: nobody answers.
        """
        loop = asyncio.get_running_loop()
        family, where = address.resolve()
        # The loop makes the socket: uvloop forgets one of ours if the connection ends at once. The loop
        # closes it, too, if this is cancelled; uvloop never says so then.
        if isinstance(where, str):
            await loop.create_unix_connection(lambda: self, where)
        else:
            await loop.create_connection(lambda: self, *where, family=family)
        try:
            await self._accepted
        except BaseException:
            self._abort(None)
            await self.lost.wait()
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
        if self._killed:
            return
        self._killed = True
        if not self._connected:
            self._abort(ClosedError("this client was closed while it connected; make a new one"))
            return
        self._session.kill()
        self.flush()
        self._session.end()
        self._kill_timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._abort, None)

    def forget(self) -> None:
        """In a forked child: let go of the socket without a word, past the loop, which is the parent's."""
        self._session.end()
        if self._transport is not None and not self.lost.is_set():
            # Not closed: its number would be used again, and then be closed once more by the transport.
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, self._transport.get_extra_info("socket").fileno())
            os.close(nowhere)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        set_options(self._transport.get_extra_info("socket"))
        if self._killed:
            self._transport.abort()
        else:
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
        self.lost.set()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        if self._connected and not self._killed:
            self._deliver([Disconnected(disconnect_reason(self._error or error or StreamEndedError()))])
        elif not self._accepted.done():
            self._accepted.set_exception(self._error or _handshake_error(error))

    def _abort(self, error: TransportError | None) -> None:
        self._error = error
        self._session.end()
        if self._transport is not None:
            self._transport.abort()


def _handshake_error(error: Exception | None) -> Exception:
    # asyncio takes a full backlog of a unix socket for success, and finds out when it writes.
    if isinstance(error, OSError) and error.errno == errno.ENOTCONN:
        return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return HandshakeResetError()

"""Sockets to a Spread daemon as both clients want them: options, patience, and words for failures."""

from __future__ import annotations

import socket
import sys

from transports.base import CannotConnectError, TransportError
from transports.spread.address import Address
from transports.spread.handshake import HandshakeResetError

KEEPALIVE_IDLE = 30
"""Seconds of silence before the kernel asks whether the daemon's host is alive."""

KEEPALIVE_INTERVAL = 10
"""Seconds between such questions."""

KEEPALIVE_PROBES = 3
"""Unanswered questions that end the connection; the protocol itself has no heartbeat (PROTOCOL 1)."""

CONNECT_TIMEOUT = 20.0
"""Seconds from the first attempt to the daemon's accept. Daemons that lost one of their own do not
accept or read for seconds (PROTOCOL 7.3, 8)."""

CLOSE_TIMEOUT = 1.0
"""Seconds that a daemon has to take our KILL and end the stream."""

READ_SIZE = 64 * 1024
"""Bytes that one read of the blocking client takes at most; more was not faster."""

BUSY_RETRY = 0.01
"""Seconds before the next try where a unix socket's backlog is full; it holds 5 (PROTOCOL 1)."""


def set_options(connection: socket.socket) -> None:
    """Have small writes sent at once, and dead hosts noticed (TCP only)."""
    if connection.family != socket.AF_INET:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


class StreamEndedError(TransportError):
    """The daemon closed the connection."""

    def __init__(self) -> None:
        super().__init__("the daemon ended the connection: it stopped, or we let too many messages wait")


def connect_error(address: Address, error: OSError) -> CannotConnectError:
    """Say what went wrong with an attempt to connect, and what to do about it."""
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return HandshakeResetError()
    what = "no answer in time" if isinstance(error, TimeoutError) else error
    return CannotConnectError(f"cannot reach a Spread daemon at {address} ({what}): is one running there?")


def disconnect_reason(error: Exception) -> str:
    """Say why a connection was lost."""
    return str(error) if isinstance(error, TransportError) else f"the connection to the daemon broke: {error}"

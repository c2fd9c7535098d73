"""A client of the embedded daemon until it has shaken hands (PROTOCOL 2).

More patient than Spread itself: requests may come in pieces or ahead of their time, and a client that
says nothing holds up nobody else.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, cast

from transports.base import PRIVATE_NAME_LIMIT
from transports.daemon.connection import Connection
from transports.spread.handshake import (
    AUTH_CHOICE_SIZE,
    NULL_METHOD,
    Accept,
    AuthenticationError,
    ConnectRequest,
    QuotaError,
    RejectedError,
    encode_accept,
    encode_auth_list,
    encode_reject,
    parse_auth_choice,
    parse_connect_request,
)

if TYPE_CHECKING:
    from transports.daemon.server import Daemon

_RANDOM_NUMBERS: Final = 9999
"""For names that the daemon makes up; the descriptor behind them makes them unique (PROTOCOL 2.2)."""


class Handshake(asyncio.Protocol):
    """Takes a client as far as a `Connection`, which then has the transport for itself."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._received = b""
        self._request: ConnectRequest | None = None
        self._name = ""
        """Private group name, from the request on."""

    # --- asyncio.Protocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(
            self._daemon.limits.handshake_timeout, self._transport.abort
        )
        if not self._daemon.admit(self._transport):
            self._reject(QuotaError)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        try:
            if self._request is None:
                self._read_request()
            if self._request is not None:
                self._read_choice(self._request)
        except RejectedError as error:
            self._reject(type(error))

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._timer.cancel()
        self._daemon.dismiss(self._transport)
        if self._name:
            self._daemon.release(self._name)

    # --- the steps ------------------------------------------------------------------------------------

    def _read_request(self) -> None:
        parsed = parse_connect_request(self._received)
        if parsed is None:
            return
        request, used = parsed
        self._name = self._reserve(request.name)
        self._received = self._received[used:]
        self._request = request
        if request.authenticates:
            self._transport.write(encode_auth_list((NULL_METHOD,)))

    def _read_choice(self, request: ConnectRequest) -> None:
        if request.authenticates:
            methods = parse_auth_choice(self._received)
            if methods is None:
                return
            if not methods or set(methods) != {NULL_METHOD}:
                raise AuthenticationError
            self._received = self._received[AUTH_CHOICE_SIZE:]
        self._accept(request)

    def _accept(self, request: ConnectRequest) -> None:
        self._timer.cancel()
        self._transport.write(encode_accept(Accept(self._name), request.has_patch))
        connection = Connection(self._daemon, self._transport, self._name, membership=request.membership)
        self._transport.set_protocol(connection)
        self._daemon.space.connect(connection)
        if self._received:
            connection.data_received(self._received)

    def _reserve(self, private_name: str) -> str:
        """Reserve the name that was asked for; who asked for none gets one (PROTOCOL 2.2)."""
        if not private_name:
            descriptor = self._transport.get_extra_info("socket").fileno()
            private_name = f"r{random.randrange(_RANDOM_NUMBERS)}-{descriptor}"[:PRIVATE_NAME_LIMIT]
        return self._daemon.reserve(private_name)

    def _reject(self, error: type[RejectedError]) -> None:
        self._transport.write(encode_reject(error))
        self._transport.close()

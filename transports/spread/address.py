"""Where a Spread daemon listens, in the forms that people write.

| form | means |
|---|---|
| `4803@host` | TCP, as in Spread's own libraries |
| `spread://host:4803` | the same |
| `4803` | the daemon's unix socket on this machine, `<SOCKET_DIRECTORY>/4803`; TCP where there is none |
| `unix:/path` | that unix socket |
"""

from __future__ import annotations

import os
import re
import socket
from typing import TypeAlias

import attrs

from transports.base import IllegalAddressError

DEFAULT_ADDRESS = "4803@localhost"

SOCKET_DIRECTORY = "/tmp"
"""Where a default build of Spread has its unix sockets, one per port (PROTOCOL 1)."""

UNIX_PATH_LIMIT = 107
"""Bytes that a unix socket's path may have on Linux."""

SocketAddress: TypeAlias = tuple[socket.AddressFamily, str | tuple[str, int]]
"""What `socket.socket` and its `connect` want."""

_HOST = r"(?P<host>[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*)"
_PORT = r"(?P<port>[0-9]{1,5})"
_SPREAD_NAME = re.compile(rf"{_PORT}(?:@{_HOST})?")
_URL = re.compile(rf"spread://{_HOST}:{_PORT}")
_UNIX = re.compile(r"unix:(?P<path>/[^\0]*)")


@attrs.frozen
class TcpAddress:
    """A daemon's TCP port; Spread speaks IPv4 only."""

    host: str
    port: int

    def resolve(self) -> SocketAddress:
        """Give family and address; the name of another host is left to `connect`."""
        # Not asked of a resolver: asyncio would start a thread for it.
        host = "127.0.0.1" if self.host == "localhost" else self.host
        return socket.AF_INET, (host, self.port)

    def __str__(self) -> str:
        return f"{self.port}@{self.host}"


@attrs.frozen
class UnixAddress:
    """A daemon's unix socket, and where to go while there is none at `path`."""

    path: str
    fallback: TcpAddress | None = None

    def resolve(self) -> SocketAddress:
        """Give family and address as they are now: the daemon may start later."""
        if self.fallback is not None and not os.path.exists(self.path):
            return self.fallback.resolve()
        return socket.AF_UNIX, self.path

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address: TypeAlias = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Read an address in one of the forms above.

    Raises:
        IllegalAddressError: it has none of these forms.
    """
    if match := _UNIX.fullmatch(text):
        if len(os.fsencode(match["path"])) <= UNIX_PATH_LIMIT:
            return UnixAddress(match["path"])
    elif match := _SPREAD_NAME.fullmatch(text) or _URL.fullmatch(text):
        host, port = match["host"], int(match["port"])
        if 0 < port <= 0xFFFF:
            if host:
                return TcpAddress(host, port)
            return UnixAddress(f"{SOCKET_DIRECTORY}/{port}", TcpAddress("localhost", port))
    raise IllegalAddressError(
        f"{text!r} is not the address of a Spread daemon; write 4803@host, spread://host:4803, "
        f"unix:/path (at most {UNIX_PATH_LIMIT} bytes) or 4803, with a port from 1 to 65535"
    )

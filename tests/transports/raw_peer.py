"""A connection to the embedded daemon on which a test says anything, at the level of bytes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Self

from transports.daemon.server import Daemon
from transports.spread.handshake import (
    ConnectRequest,
    encode_auth_choice,
    encode_connect_request,
    parse_accept,
    parse_auth_list,
)
from transports.spread.messages import FIFO, ClientMessage, DaemonMessage, Data
from transports.spread.wire import HEADER_SIZE, decode_from_daemon, encode, locate

TIMEOUT = 10.0
"""Seconds after which a test gives up."""

CHOICE = encode_auth_choice(("NULL",))


def connect_request(name: str, *, membership: bool = True) -> bytes:
    return encode_connect_request(ConnectRequest(name, membership))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something in the daemon that no client can see."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


class Peer:
    """A client, or whatever the test makes of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ahead = b""
        self._marks = itertools.count()
        self.name = ""
        """Private group name, once accepted."""

    @classmethod
    async def open(cls, daemon: Daemon, *, unix_path: str = "") -> Self:
        """Connect, and say nothing yet."""
        if unix_path:
            return cls(*await asyncio.open_unix_connection(unix_path))
        port, host = daemon.address.split("@")
        return cls(*await asyncio.open_connection(host, int(port)))

    @classmethod
    async def connect(
        cls, daemon: Daemon, name: str, *, membership: bool = True, unix_path: str = ""
    ) -> Self:
        """Connect and shake hands."""
        peer = await cls.open(daemon, unix_path=unix_path)
        peer.send(connect_request(name, membership=membership))
        auth_list = await peer.read(len(b"\5NULL "))
        assert parse_auth_list(auth_list) == (("NULL",), len(auth_list))
        peer.send(CHOICE)
        await peer.accepted()
        return peer

    async def accepted(self) -> None:
        """Read an accept."""
        beginning = await self.read(5)
        parsed = parse_accept(beginning + await self.read(beginning[-1]))
        assert parsed is not None
        self.name = parsed[0].private_group

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def say(self, *messages: ClientMessage) -> None:
        self.send(b"".join(map(encode, messages)))

    def data(self, *groups: str, body: bytes = b"", type_bits: int = FIFO) -> Data:
        return Data(self.name, groups, 0, body, type_bits)

    async def read(self, size: int) -> bytes:
        while len(self._ahead) < size:
            more = await self._read_some()
            assert more, f"the daemon closed the connection after {self._ahead!r}"
            self._ahead += more
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    async def message(self) -> DaemonMessage:
        """Read the next message."""
        start = await self.read(HEADER_SIZE)
        header, body_at, end = locate(start, 0)
        message = start + await self.read(end - HEADER_SIZE)
        return decode_from_daemon(message, header, HEADER_SIZE, body_at, end)

    async def read_to_end(self) -> bytes:
        """Wait until the daemon closes, in whatever way, and give what it said before."""
        with contextlib.suppress(ConnectionError):
            while more := await self._read_some():
                self._ahead += more
        return self._ahead

    async def unread(self) -> bytes:
        """Give what the daemon said so far and nobody read: all that comes before a message to ourselves."""
        mark = encode(self.data(self.name, body=b"mark %d" % next(self._marks)))
        self.send(mark)
        while mark not in self._ahead:
            more = await self._read_some()
            assert more, f"the daemon closed the connection after {self._ahead!r}"
            self._ahead += more
        self._ahead = self._ahead.replace(mark, b"")
        return self._ahead

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _read_some(self) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self._reader.read(65536)

"""What waits to be written to one client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from transports.daemon.limits import Limits

WRITE_SIZE: Final = 256 * 1024
"""Bytes at which an outbox is written without waiting for the end of the turn: they bound its memory."""


class Outbox:
    """Collects what a turn of the event loop has for one client, and writes it in one go.

    A socket that does not take everything blocks it, and from then on messages wait here. They are
    counted, like Spread's, and too many of them are the client's end (PROTOCOL 7.3).

    Args:
        transport: of the client.
        limits: how much may wait.
        on_filled: called when there is something to be flushed.
        on_overrun: called once when the client is too slow; what waited for it is gone.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: Limits,
        on_filled: Callable[[Outbox], None],
        on_overrun: Callable[[], None],
    ) -> None:
        # Blocked as soon as anything is left over: so all that waits is either here or in the last write.
        transport.set_write_buffer_limits(high=0)
        self._transport = transport
        self._limits = limits
        self._on_filled = on_filled
        self._on_overrun = on_overrun
        self._pieces: list[bytes] = []
        self._messages = 0
        self._size = 0
        self._last_write = (0, 1)
        self._blocked = False
        self._closed = False

    def put(self, piece: bytes, messages: int) -> None:
        """Have `piece`, which is so many whole messages, written with the next flush."""
        if not self._pieces:
            if self._closed:
                return
            self._on_filled(self)
        self._pieces.append(piece)
        self._messages += messages
        self._size += len(piece)
        if self._blocked:
            self._check_limits()
        elif self._size >= WRITE_SIZE:
            self.flush()

    def flush(self) -> None:
        """Write all there is, unless the socket is full."""
        if self._blocked or not self._pieces:
            return
        data = b"".join(self._pieces)
        self._last_write = (self._messages, self._size)
        self._forget_pieces()
        self._transport.write(data)

    def block(self) -> None:
        """The socket is full: what it did not take of the last write waits in the transport."""
        self._blocked = True

    def unblock(self) -> None:
        """The socket has taken everything."""
        self._blocked = False
        self.flush()

    def close(self) -> None:
        """Write what the socket takes at once, and drop the rest."""
        self.flush()
        self._closed = True
        self._forget_pieces()
        self._transport.abort()

    def _forget_pieces(self) -> None:
        self._pieces.clear()
        self._messages = self._size = 0

    def _check_limits(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        messages, size = self._last_write
        # Messages of one write that is partly taken are counted by their share of its bytes.
        waiting = self._messages + -(-messages * unsent // size)
        if waiting > self._limits.waiting_messages or self._size + unsent > self._limits.waiting_bytes:
            self._closed = True
            self._forget_pieces()
            self._on_overrun()

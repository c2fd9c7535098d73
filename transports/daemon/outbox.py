"""What waits to be written to one client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from transports.daemon.limits import Limits

WRITE_SIZE: Final = 256 * 1024
"""Bytes at which an outbox is written without waiting for the end of the turn."""


class Outbox:
    """Collects what a turn of the event loop has for one client, and writes it in one go.

    When a socket does not take everything, what comes after it waits here. Like Spread, a daemon gives
    up a client for which too many messages wait (PROTOCOL 7.3).

    Attributes:
        crowded: half of what may wait is there; whoever sends more should take a breath.

    Args:
        transport: of the client.
        limits: how much may wait.
        on_filled: called when there is something to flush.
        on_overrun: called when the client is too slow, and what waited for it is gone; not from `put`.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: Limits,
        on_filled: Callable[[Outbox], None],
        on_overrun: Callable[[], None],
    ) -> None:
        # Tell us when anything is left over: so all that waits is either here or in the last write.
        transport.set_write_buffer_limits(high=0)
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._limits = limits
        self._on_filled = on_filled
        self._on_overrun = on_overrun
        self._pieces: list[bytes] = []
        self._messages = 0
        self._size = 0
        self.crowded = False
        self._last_write = (0, 1)
        """Messages and bytes."""
        self._blocked = False
        self._closed = False
        self._judgement: asyncio.TimerHandle | None = None

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
        self._drop()
        self._transport.write(data)

    def block(self) -> None:
        """The socket is full; the rest of the last write waits in the transport."""
        self._blocked = True

    def unblock(self) -> None:
        """The socket has taken everything."""
        self._blocked = self.crowded = False
        self._forgive()
        self.flush()

    def close(self) -> None:
        """Write what the socket takes at once, drop the rest, and close the connection."""
        self.flush()
        self._closed = True
        self._drop()
        self._forgive()
        self._transport.abort()

    def _drop(self) -> None:
        self._pieces.clear()
        self._messages = self._size = 0

    def _waiting_messages(self) -> int:
        """Count them; those of the last write by their share in the bytes that are left of it."""
        messages, size = self._last_write
        return self._messages + -(-messages * self._transport.get_write_buffer_size() // size)

    def _check_limits(self) -> None:
        size = self._size + self._transport.get_write_buffer_size()
        messages = self._waiting_messages()
        self.crowded = 2 * size > self._limits.waiting_bytes or 2 * messages > self._limits.waiting_messages
        if size > self._limits.waiting_bytes:
            self._overrun()
        elif messages > self._limits.waiting_messages and self._judgement is None:
            self._judgement = self._loop.call_later(self._limits.patience, self._judge)

    def _judge(self) -> None:
        self._judgement = None
        if self._waiting_messages() > self._limits.waiting_messages:
            self._overrun()

    def _forgive(self) -> None:
        if self._judgement is not None:
            self._judgement.cancel()
            self._judgement = None

    def _overrun(self) -> None:
        self._closed = True
        self.crowded = False
        self._drop()
        self._forgive()
        # Not now: somebody may be in the midst of telling all members something.
        self._loop.call_soon(self._on_overrun)

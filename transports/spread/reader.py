"""Finds the messages in the stream that a daemon sends (PROTOCOL 3)."""

from __future__ import annotations

from transports.spread.messages import DaemonMessage
from transports.spread.wire import HEADER_SIZE, decode_from_daemon, locate


class Reader:
    """Takes bytes as they arrive, cut anywhere, and gives back the messages that are complete.

    Holds at most one incomplete message, of `wire.LARGE_MESSAGE_LIMIT` bytes and a header. After an
    error it is of no more use: there is no way to find the next message.
    """

    def __init__(self) -> None:
        self._incomplete = bytearray()
        self._needed = HEADER_SIZE
        """Bytes of the incomplete message that have to be there before it is worth a look."""

    def feed(self, data: bytes) -> list[DaemonMessage]:
        """Give the messages that are complete with `data`.

        Raises:
            ProtocolError: this is no stream of messages from a daemon. Complete messages before the
                wrong one in `data` are lost, as those behind it are.
        """
        if self._incomplete:
            self._incomplete += data
            if len(self._incomplete) < self._needed:
                return []
            data = bytes(self._incomplete)
            self._incomplete.clear()
        self._needed = HEADER_SIZE
        messages: list[DaemonMessage] = []
        at = 0
        while at + HEADER_SIZE <= len(data):
            header, body_at, end = locate(data, at)
            if end > len(data):
                self._needed = end - at
                break
            messages.append(decode_from_daemon(data, header, at + HEADER_SIZE, body_at, end))
            at = end
        if at < len(data):
            self._incomplete += data[at:]
        return messages

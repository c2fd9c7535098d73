"""Asking a queue's manager for its state, from plain code."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from spreadq.config import daemon_address, new_instance
from spreadq.errors import NoManager
from spreadq_core.codec import decode
from spreadq_core.errors import PeerError
from spreadq_core.events import Received
from spreadq_core.ids import QueueGroups
from spreadq_core.link import Speaker
from spreadq_core.messages import StatusReport, StatusRequest
from transports.spread.blocking_client import BlockingSpread

ANSWER_TIMEOUT = 2.0
"""Seconds after which there is no manager."""

ASK_AGAIN = 0.5
"""Seconds between repetitions of the question."""


def ask_status(queue: str, address: str | None = None) -> dict[str, Any]:
    """The state of a queue; see `report` for its keys.

    Raises:
        UsageError: the queue's name is illegal.
        CannotConnectError: there is no daemon, or it refuses us.
        NoManager: nobody answers.
    """
    groups = QueueGroups.of(queue)
    request = Speaker(queue, new_instance(), 0).alone((groups.control,), [StatusRequest()])
    transport = BlockingSpread(daemon_address(address), membership=False)
    try:
        transport.connect()
        end = time.monotonic() + ANSWER_TIMEOUT
        ask_at = 0.0
        parts: dict[int, StatusReport] = {}
        while time.monotonic() < end:
            if time.monotonic() >= ask_at:
                ask_at = time.monotonic() + ASK_AGAIN
                parts.clear()
                transport.send(request.groups, request.service, request.kind, request.body)
                transport.flush()
            for event in transport.receive(min(end, ask_at) - time.monotonic()):
                if isinstance(event, Received):
                    parts |= _parts(event, queue)
            if parts and len(parts) == next(iter(parts.values())).parts:
                document: dict[str, Any] = msgspec.json.decode(
                    b"".join(parts[number].document for number in sorted(parts))
                )
                return document
    finally:
        transport.close()
    raise NoManager(f"nobody manages queue {queue}; start `sqm {queue}` or `spreadq serve {queue}`")


def _parts(event: Received, queue: str) -> dict[int, StatusReport]:
    try:
        frame = decode(event.kind, event.body, queue)
    except PeerError:
        return {}
    return {part.part: part for part in frame.messages if isinstance(part, StatusReport)}

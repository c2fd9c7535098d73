"""How much an embedded daemon puts up with."""

from __future__ import annotations

from typing import Any

import attrs

from spreadq_core.errors import UsageError


def _positive(_: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not value > 0:
        raise UsageError(f"daemon limits: {attribute.name} is {value}; use a number above 0")


@attrs.frozen
class Limits:
    """What a daemon takes from its clients; over a limit, it refuses or closes that one connection.

    Args:
        connections: clients at a time; the next one is refused with REJECT_QUOTA (PROTOCOL 2.8).
        groups: that one client may be in.
        waiting_messages: messages to one client that its socket has not taken, like Spread's
            MaxSessionMessages (PROTOCOL 7.3).
        patience: seconds for which there may be more of them: a small daemon is faster than Spread, and
            a burst must not be the end of a client that only waits for the processor.
        waiting_bytes: bytes to one client that its socket has not taken, at any time.
        handshake_timeout: seconds from a client's connect to the end of its handshake.
    """

    connections: int = attrs.field(default=997, validator=_positive)
    groups: int = attrs.field(default=1024, validator=_positive)
    waiting_messages: int = attrs.field(default=1000, validator=_positive)
    patience: float = attrs.field(default=0.25, validator=_positive)
    waiting_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_positive)
    handshake_timeout: float = attrs.field(default=5.0, validator=_positive)

"""Settings that come from arguments or the environment, and the units in which people write them."""

from __future__ import annotations

import math
import os
import re
import secrets
import socket
from datetime import timedelta
from typing import TypeAlias

from spreadq_core.errors import UsageError
from spreadq_core.ids import SECOND, Instance, Nanos
from spreadq_core.messages import About
from transports.spread.address import DEFAULT_ADDRESS

Duration: TypeAlias = str | float | timedelta
"""`"250ms"`, `"30s"`, `"5m"`, `"2h"`, `"1d"`; a number is seconds, as everywhere in Python."""

_UNITS = {"ms": SECOND // 1000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def nanoseconds(duration: Duration) -> Nanos:
    """A duration that must be positive.

    Raises:
        UsageError: it is not, or its unit is missing or unknown.
    """
    if isinstance(duration, str):
        match = _DURATION.fullmatch(duration.strip())
        if match is None:
            raise UsageError(f"duration {duration!r}: write a number with a unit: 250ms, 30s, 5m, 2h, 1d")
        nanos = float(match[1]) * _UNITS[match[2]]
    elif isinstance(duration, timedelta):
        nanos = duration.total_seconds() * SECOND
    else:
        nanos = duration * SECOND
    if not (math.isfinite(nanos) and nanos >= 1):
        raise UsageError(f"duration {duration!r}: it must be positive and finite")
    return round(nanos)


def optional_nanoseconds(duration: Duration | None) -> Nanos:
    """As `nanoseconds`; None is 0, which stands for no limit."""
    return 0 if duration is None else nanoseconds(duration)


def daemon_address(address: str | None) -> str:
    """Where the daemon is: as given, else `SPREADQ_DAEMON`, else Spread's own default."""
    return address or os.environ.get("SPREADQ_DAEMON") or DEFAULT_ADDRESS


def queue_name(queue: str | None) -> str:
    """Which queue: as given, else `SPREAD_QUEUE_NAME`, else `SPREAD_QUEUE` as in Spread::Queue.

    Raises:
        UsageError: none of them says.
    """
    name = queue or os.environ.get("SPREAD_QUEUE_NAME") or os.environ.get("SPREAD_QUEUE")
    if not name:
        raise UsageError("which queue? give its name, or set SPREAD_QUEUE_NAME")
    return name


def new_instance() -> Instance:
    """A fresh identity: 64 random bits, not 0."""
    return secrets.randbits(64) or 1


def about(name: str | None, role: str) -> About:
    """Who we are, for people."""
    host, pid = socket.gethostname(), os.getpid()
    return About(name or f"{role}-{host}-{pid}", host, pid)

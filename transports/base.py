"""What every transport keeps: its interface, its limits and its errors.

A transport moves bodies between members of groups and knows no task. It makes the core's events, in
the order in which its network delivers them, and hands them over in lists: an asyncio transport calls
`deliver` with one list per read from its socket, a blocking one returns the list from `receive`.

Nothing in Spread is ever acknowledged. So what is asked of a transport while it has no connection is
dropped in silence, and the layer above repeats it; only a request that could never be carried out
raises, at once and in every state.
"""

from __future__ import annotations

import math
import random
import secrets
import string
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol, TypeAlias

import attrs

from spreadq_core.effects import Service
from spreadq_core.errors import PeerError, SpreadqError, UsageError
from spreadq_core.events import TransportEvent

NAME_LIMIT = 31
"""Bytes of a group name or private group name: a field of 32 with its NUL (PROTOCOL 3.5)."""

PRIVATE_NAME_LIMIT = 10
"""Characters of the private name that a connection asks for (PROTOCOL 2.2)."""

GROUPS_LIMIT = 43
"""Destinations of one message: a stock daemon delivers one with 44 to nobody (PROTOCOL 3.6)."""

GROUP_COST = 32
"""What each destination takes from `MESSAGE_LIMIT`, in bytes."""

MESSAGE_LIMIT = 143_152
"""Bytes of body plus `GROUP_COST` for each destination; one more aborts a stock daemon (PROTOCOL 3.6)."""

KIND_MIN = -0x8000
KIND_MAX = 0x7FFF
"""Spread's `mess_type` is a signed number of 16 bits (PROTOCOL 3.4)."""

OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes that may wait for a daemon that does not read; beyond it the connection is given up."""

Deliver: TypeAlias = Callable[[list[TransportEvent]], None]
"""Takes the events of one read. It must not raise."""

NameSource: TypeAlias = Callable[[], str]
"""Gives a private name that was never used before: 1..10 characters from `$` to `~`."""


class Transport(Protocol):
    """A connection to the group communication system, kept up by itself.

    After every reconnect the private name is new and nothing is joined. None of these calls blocks.
    """

    def join(self, group: str) -> None:
        """Become a member of `group`; nothing happens if we are one.

        Raises:
            IllegalGroupError: no daemon or library would take this name.
        """
        ...

    def leave(self, group: str) -> None:
        """Cease to be a member of `group`; nothing happens if we are none.

        Raises:
            IllegalGroupError: no daemon or library would take this name.
        """
        ...

    def send(self, groups: tuple[str, ...], service: Service, kind: int, body: bytes) -> None:
        """Multicast `body` to groups and private names, each receiver once; goes out with `flush`.

        Raises:
            IllegalGroupError: one of the destinations can't be a name.
            TooManyGroupsError: none, or more than `GROUPS_LIMIT`.
            IllegalKindError: `kind` does not fit 16 bits.
            MessageTooLongError: the body is over `body_limit(len(groups))`.
        """
        ...

    def flush(self) -> None:
        """Write all that was asked for since the last time, in one write."""
        ...

    def close(self) -> None:
        """Leave everything and disconnect, for good."""
        ...


# --- errors -------------------------------------------------------------------------------------


class TransportError(SpreadqError):
    """Everything that a transport raises."""


class IllegalGroupError(TransportError, UsageError):
    """You named a group that can't exist."""


class TooManyGroupsError(TransportError, UsageError):
    """You sent to no group, or to more than a daemon delivers to."""


class MessageTooLongError(TransportError, UsageError):
    """You sent a body that a daemon would not survive."""


class IllegalKindError(TransportError, UsageError):
    """You marked a message with a number that does not fit 16 bits."""


class IllegalAddressError(TransportError, UsageError):
    """You named a daemon in a form that nobody understands."""


class ClosedError(TransportError, UsageError):
    """You used a transport that you had closed, or that another process opened."""


class CannotConnectError(TransportError):
    """The daemon can't be reached, or refused us."""


class StalledError(TransportError):
    """The daemon does not read what we send; the connection was given up."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"more than {limit} bytes wait for the daemon to read them: it hangs, or is overloaded; send less"
        )


class ProtocolError(TransportError, PeerError):
    """The other end sent what the protocol does not allow; the connection is of no more use."""


# --- checks that every transport makes before it sends ------------------------------------------


def body_limit(groups: int) -> int:
    """How many bytes of body a message to so many destinations may have."""
    return MESSAGE_LIMIT - GROUP_COST * groups


def check_group(group: str) -> None:
    """Refuse what can't be joined.

    Raises:
        IllegalGroupError: not 1..31 characters from `$` to `~` (PROTOCOL 3.5).
    """
    if not 1 <= len(group) <= NAME_LIMIT or not all("$" <= character <= "~" for character in group):
        raise IllegalGroupError(
            f"group name {group!r}: use 1 to {NAME_LIMIT} printable ASCII characters from '$' to '~' "
            "(no space, '!', '\"' or '#')"
        )


def check_message(groups: tuple[str, ...], kind: int, size: int) -> None:
    """Refuse what a daemon would not deliver, or not survive; `size` is that of the body in bytes.

    Raises:
        TransportError: as `Transport.send` says.
    """
    _check_destinations(groups)
    if not KIND_MIN <= kind <= KIND_MAX:
        raise IllegalKindError(f"kind {kind}: use a number from {KIND_MIN} to {KIND_MAX}")
    if size > body_limit(len(groups)):
        raise MessageTooLongError(
            f"a body of {size} bytes for {len(groups)} destinations: at most {body_limit(len(groups))} "
            "fit; split it, or send a reference to it"
        )


@lru_cache(maxsize=1024)
def _check_destinations(groups: tuple[str, ...]) -> None:
    """Cached because a role sends to the same few destinations all the time (failures are not kept)."""
    if not 1 <= len(groups) <= GROUPS_LIMIT:
        raise TooManyGroupsError(
            f"{len(groups)} destinations: use 1 to {GROUPS_LIMIT}, and several messages for more"
        )
    for group in groups:
        # Other members' private names are theirs to choose; all they must do is fit the field.
        if not 1 <= len(group) <= NAME_LIMIT or not all("\0" < character <= "\xff" for character in group):
            raise IllegalGroupError(
                f"destination {group!r}: use a group name, or a private name as received, of at most "
                f"{NAME_LIMIT} bytes"
            )


# --- reconnecting -------------------------------------------------------------------------------


def random_name() -> str:
    """Draw a private name: 10 letters and digits, 59 bits, so that none comes twice."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(PRIVATE_NAME_LIMIT))


@attrs.frozen
class Backoff:
    """How long to wait before the next attempt to connect.

    Args:
        initial: seconds before the first one.
        factor: by which each wait is longer than the one before, at least 1.
        limit: seconds that no wait exceeds.
        jitter: gives 0..1; a wait is between half and all of its length, so that those who lost the
            same daemon do not all come back at once.

    Raises:
        UsageError: there can be no such waits.
    """

    initial: float = 0.1
    factor: float = 2.0
    limit: float = 5.0
    jitter: Callable[[], float] = random.random

    def __attrs_post_init__(self) -> None:
        if not (0 < self.initial < math.inf and 1 <= self.factor < math.inf and 0 < self.limit < math.inf):
            raise UsageError(
                f"backoff from {self.initial} by {self.factor} to {self.limit}: use seconds above 0, and a "
                "factor of at least 1"
            )

    def delays(self) -> Iterator[float]:
        """Give one wait after the other, in seconds, without end."""
        delay = min(self.initial, self.limit)
        while True:
            yield delay * (0.5 + 0.5 * self.jitter())
            delay = min(delay * self.factor, self.limit)

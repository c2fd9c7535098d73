"""The messages of Spread's client protocol as values, and the numbers that tell them apart (PROTOCOL 3-6).

`wire` turns them into bytes and back. Names are latin-1 text, so that any byte survives as text.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from spreadq_core.events import Cause

# --- type bits (PROTOCOL 3.3) -------------------------------------------------------------------

UNRELIABLE: Final = 0x01
RELIABLE: Final = 0x02
FIFO: Final = 0x04
CAUSAL: Final = 0x08
AGREED: Final = 0x10
SAFE: Final = 0x20

SERVICES: Final = 0x3F
"""All six: any of them makes a message data, whatever other bits its sender forged."""

SELF_DISCARD: Final = 0x40
"""With data: not back to the sender."""

CAUSED_BY_JOIN: Final = 0x100
CAUSED_BY_LEAVE: Final = 0x200
CAUSED_BY_DISCONNECT: Final = 0x400
CAUSED_BY_NETWORK: Final = 0x800
REGULAR_MEMBERSHIP: Final = 0x1000
TRANSITION: Final = 0x2000

JOIN: Final = 0x10000
LEAVE: Final = 0x20000
KILL: Final = 0x40000

REQUESTS: Final = JOIN | LEAVE | KILL
"""What a client asks of its daemon."""

REJECT: Final = 0x400000

# --- messages -----------------------------------------------------------------------------------


class Data(msgspec.Struct, frozen=True, gc=False):
    """What clients say to each other (PROTOCOL 3.4, 5.1).

    Args:
        sender: private group name.
        groups: all destinations, as the sender gave them.
        mess_type: the application's number, -32768..32767.
        body: the bytes.
        type_bits: the type word without the endian mark: a service, perhaps `SELF_DISCARD`, and what
            the sender may have forged.
        endian_mismatch: the sender wrote `mess_type` in the other byte order than the header is in.
    """

    sender: str
    groups: tuple[str, ...]
    mess_type: int
    body: bytes
    type_bits: int = AGREED
    endian_mismatch: bool = False


class Join(msgspec.Struct, frozen=True, gc=False):
    """A client wants to be a member (PROTOCOL 4)."""

    sender: str
    group: str


class Leave(msgspec.Struct, frozen=True, gc=False):
    """A client wants to be a member no more (PROTOCOL 4)."""

    sender: str
    group: str


class Kill(msgspec.Struct, frozen=True, gc=False):
    """A client disconnects; the group is its own private one, and ignored (PROTOCOL 4)."""

    sender: str
    group: str


class GroupId(msgspec.Struct, frozen=True, gc=False):
    """Names a view: three signed numbers of 32 bits, compared but never interpreted (PROTOCOL 6.1)."""

    daemon: int
    time: int
    index: int


class Membership(msgspec.Struct, frozen=True, gc=False):
    """A daemon reports a new view of a group (PROTOCOL 5.2, 6.2).

    Args:
        group: its name.
        members: private group names after the change, in the order common to all.
        cause: why it changed.
        group_id: of the new view.
        sets: after NETWORK those that came together, else only the one concerned.
        own_set: index in `sets` of the receiver's own.
    """

    group: str
    members: tuple[str, ...]
    cause: Cause
    group_id: GroupId
    sets: tuple[tuple[str, ...], ...]
    own_set: int = 0


class TransitionSignal(msgspec.Struct, frozen=True, gc=False):
    """A daemon reports that members were lost; the id is that of the old view (PROTOCOL 6.3)."""

    group: str
    group_id: GroupId


class SelfLeave(msgspec.Struct, frozen=True, gc=False):
    """A daemon confirms that the receiver left the group (PROTOCOL 5.4)."""

    group: str


class Reject(msgspec.Struct, frozen=True, gc=False):
    """A daemon's access control refused what the receiver sent; stock daemons never do (PROTOCOL 5.5).

    Args:
        sender: the receiver itself.
        groups: the destinations, and the sender's private group name behind them.
        mess_type: of the refused message.
        body: of the refused message.
        refused_type: type word of the refused message.
    """

    sender: str
    groups: tuple[str, ...]
    mess_type: int
    body: bytes
    refused_type: int


ClientMessage: TypeAlias = Data | Join | Leave | Kill
DaemonMessage: TypeAlias = Data | Membership | TransitionSignal | SelfLeave | Reject

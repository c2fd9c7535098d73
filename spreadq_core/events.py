"""What happens to a role, in the past tense.

A transport produces the first five; the owner of a role (the runtime that users import, or the
simulator) the rest. All are immutable and refer to each other by id only.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from spreadq_core.ids import Instance
from spreadq_core.messages import Status
from spreadq_core.terms import Terms


class Cause(enum.Enum):
    """Why a view changed (the four causes that Spread names)."""

    JOIN = "join"
    LEAVE = "leave"
    DISCONNECT = "disconnect"
    NETWORK = "network"


class Event(msgspec.Struct, gc=False):
    """Base of all events."""


class Connected(Event):
    """The transport has a connection, whose private name is `session`: never used twice."""

    session: str


class Disconnected(Event):
    """The connection is lost, for a `reason`; the transport goes on trying to get another."""

    reason: str = ""


class Received(Event):
    """A message arrived, in the total order of its service."""

    sender: str  # private name of the connection that sent it; the transport vouches for it
    groups: tuple[str, ...]  # the complete list of destinations, in the sender's order
    kind: int  # Spread's 16-bit `mess_type`, signed, which says what the body is
    body: bytes  # the bytes; not trusted in any way


class ViewChanged(Event):
    """The members of a group that we are in are now these."""

    group: str  # its name
    members: tuple[str, ...]  # private names, in the same order at every member; none: we left it ourselves
    cause: Cause  # why; after NETWORK only a comparison with the old members tells who came or went
    # for JOIN, LEAVE and DISCONNECT the one concerned; for NETWORK those who came with us from the same
    # previous view, ourselves included
    together: tuple[str, ...]


class Transition(Event):
    """Members of the group were lost; until its next view, guarantees hold among the others only."""

    group: str


class Tick(Event):
    """The deadline that a role asked for has come. Late, early and extra ones do no harm."""


class SubmitRequested(Event):
    """The owner wants a task done."""

    request: int  # its counter: above all that were used before
    terms: Terms  # how
    payload: bytes  # for the function
    headers: bytes = b""  # opaque bytes that travel along
    confirm: bool = False  # whether its acceptance is waited for


class AbandonRequested(Event):
    """Nobody waits for this request any more: it need not run."""

    request: int


class JobResponded(Event):
    """A running job answered its caller; it may do so any number of times."""

    sender: Instance
    counter: int
    number: int
    payload: bytes
    codec: str


class JobEnded(Event):
    """A job is over: DONE with a value (no codec: none), FAILED with an error, or CANCELLED as told."""

    sender: Instance
    counter: int
    number: int
    status: Status
    payload: bytes = b""
    codec: str = ""


class StopRequested(Event):
    """The owner wants the role to end: the first time in an orderly way, the second time at once."""


TransportEvent: TypeAlias = Connected | Disconnected | Received | ViewChanged | Transition

"""What happens to a role, in the past tense.

A transport produces the first six; the owner of a role (the runtime that users import, or the
simulator) the rest. All are immutable values that refer to each other by id only.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from spreadq_core.ids import Instance, Nanos
from spreadq_core.messages import Status


class Cause(enum.Enum):
    """Why a view changed (the four causes that Spread names)."""

    JOIN = "join"
    LEAVE = "leave"
    DISCONNECT = "disconnect"
    NETWORK = "network"


class Event(msgspec.Struct, frozen=True, gc=False):
    """Base of all events."""


class Connected(Event):
    """The transport has a connection.

    Args:
        session: its private name, at which others reach it; never used twice.
    """

    session: str


class Disconnected(Event):
    """The connection is lost; the transport goes on trying to get another.

    Args:
        reason: for people.
    """

    reason: str = ""


class Received(Event):
    """A message arrived, in the total order of its service.

    Args:
        sender: private name of the connection that sent it, as vouched for by the transport.
        groups: the complete list of destinations, in the sender's order.
        kind: Spread's 16-bit `mess_type` (-32768..32767), which says what the body is.
        body: the bytes; not trusted in any way.
    """

    sender: str
    groups: tuple[str, ...]
    kind: int
    body: bytes


class ViewChanged(Event):
    """The members of a group that we are in are now these.

    Args:
        group: the group's name.
        members: private names, the same order at every member. Empty: we left the group ourselves.
        cause: why; after `NETWORK` only a comparison with the old members tells who came or went.
        together: for JOIN, LEAVE and DISCONNECT the one concerned; for NETWORK those that came with us
            from the same previous view, ourselves included.
    """

    group: str
    members: tuple[str, ...]
    cause: Cause
    together: tuple[str, ...]


class Transition(Event):
    """Members of the group were lost; until its next view, guarantees hold among the others only."""

    group: str


class Tick(Event):
    """The deadline that a role asked for has come. Late, early and extra ones do no harm."""


class SubmitRequested(Event):
    """A sender's owner wants a task done.

    Args:
        request: the owner's own count, 1, 2, 3, ...; it becomes the counter of the `TaskId`.
        function: name that workers declare; may be empty.
        payload: opaque bytes.
        codec: name of the codec that made the payload.
        priority: 0..9, higher first.
        max_attempts: how often a worker may be lost over it.
        run_limit: how long one attempt may run, 0 for no limit.
        expiry: how long anybody waits for it, 0 for ever.
        headers: opaque bytes that travel along (tracing).
        reply: whether an outcome is wanted.
        confirm: whether the owner waits for the acceptance.
    """

    request: int
    function: str
    payload: bytes
    codec: str
    priority: int = 0
    max_attempts: int = 0
    run_limit: Nanos = 0
    expiry: Nanos = 0
    headers: bytes = b""
    reply: bool = True
    confirm: bool = False


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
    """A job that a worker started is over.

    Args:
        sender: with `counter` the task, and with `number` the attempt.
        counter: see `sender`.
        number: see `sender`.
        status: DONE, FAILED, or CANCELLED when it was ended on request.
        payload: the value, or the error.
        codec: of the payload; empty where there is no value.
    """

    sender: Instance
    counter: int
    number: int
    status: Status
    payload: bytes = b""
    codec: str = ""


class StopRequested(Event):
    """The owner wants the role to end: the first time in an orderly way, the second time at once."""


TransportEvent: TypeAlias = Connected | Disconnected | Received | ViewChanged | Transition

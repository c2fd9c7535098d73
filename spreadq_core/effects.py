"""What a role wants done, in the imperative. A host performs effects in order.

`Send` is the odd one: messages to peers wait in a role's links until its turn ends, and come out of
`flush`, not of `handle`.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from spreadq_core.ids import Instance, Nanos
from spreadq_core.messages import Outcome
from spreadq_core.notes import NoteName


class Service(enum.Enum):
    """The order that a message needs, in Spread's terms."""

    FIFO = "fifo"
    """That of its sender: enough for what goes to one mailbox."""
    AGREED = "agreed"
    """One total order at all receivers."""


class Effect(msgspec.Struct, gc=False):
    """Base of all effects."""


class Send(Effect):
    """Multicast `body` to `groups`, marked with `kind` (Spread's `mess_type`)."""

    groups: tuple[str, ...]
    service: Service
    kind: int
    body: bytes


class Join(Effect):
    """Become a member of a group."""

    group: str


class Leave(Effect):
    """Cease to be a member of a group."""

    group: str


class StartJob(Effect):
    """Run a function on a payload; `JobEnded` comes back. It `expires_in` so long, 0 for never."""

    sender: Instance
    counter: int
    number: int
    function: str
    payload: bytes
    codec: str
    headers: bytes
    expires_in: Nanos
    reply: bool


class CancelJob(Effect):
    """Stop a job if that is possible; `JobEnded` is still expected when it is over."""

    sender: Instance
    counter: int
    number: int


class Confirmed(Effect):
    """The manager has accepted these requests."""

    requests: list[int]


class Deliver(Effect):
    """A job sent a response to this request; more may follow, then `Resolve`."""

    request: int
    payload: bytes
    codec: str


class Resolve(Effect):
    """This request is over, once and for all."""

    request: int
    outcome: Outcome


class Report(Effect):
    """Somebody asks for the queue's state: send `StatusReport`s to this private name."""

    asker: str


class KeepEpoch(Effect):
    """Write the epoch where the next manager of this queue finds it, before anything else is done."""

    epoch: int


class Exit(Effect):
    """The role is at its end, and so is its process: 0 done, 1 failed, 4 another manages, 75 replaced."""

    status: int
    reason: str


class Note(Effect):
    """Something worth a line in a log, a count in a metric or a mark in a simulation."""

    name: NoteName
    fields: dict[str, Any]

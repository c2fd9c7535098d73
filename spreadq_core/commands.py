"""What changes a task queue, and what follows from it.

Commands are the log that can be journaled and replicated: they are the only way to change a
`TaskQueue`, in one order, and hold no time. Most of it is what peers say; the rest is what their
manager concludes. Decisions are what the queue wants its manager to do. Neither is ever changed.
"""

from __future__ import annotations

import enum
from typing import Generic, TypeAlias, TypeVar

import msgspec

from spreadq_core.ids import Instance
from spreadq_core.messages import AnyMessage, Outcome
from spreadq_core.records import AttemptKey, TaskKey, TaskRecord

M = TypeVar("M", bound=AnyMessage)


class Loss(enum.Enum):
    """Why a worker's attempts ended, for people."""

    LEFT = "the worker left"
    LEASE = "the worker was silent for its whole lease"


class Command(msgspec.Struct, gc=False, tag=True):
    """Base of all commands."""


class Said(Command, Generic[M]):
    """A peer said messages, all of one type. `hold`: tasks that come `again` wait for claims."""

    source: Instance
    messages: list[M]
    hold: bool = False


class Entered(Command):
    """A worker is present and has made its claims: what it did not claim, it never got."""

    worker: Instance


class Lost(Command):
    """A worker is gone; so are its attempts. Of those that are `unheard` it may never have known."""

    worker: Instance
    loss: Loss
    unheard: list[AttemptKey] = []


class Forgotten(Command):
    """A sender is away for long: what is still to be done is kept, but no payload of an outcome."""

    sender: Instance


class Overran(Command):
    """These attempts of a worker passed their run limit. Their slots stay taken until their jobs are over."""

    worker: Instance
    keys: list[AttemptKey]


class Expired(Command):
    """Nobody waits for these tasks any more."""

    keys: list[TaskKey]


class Decided(Command):
    """A verdict of ours came back to us in the total order."""

    verdict: Outcome


class Restarted(Command):
    """A new manager: it knows no worker, so what ran is held until it is claimed, or `Released`."""


class Released(Command):
    """Tasks that are held may be assigned: these, or all that are."""

    keys: list[TaskKey] | None = None


AnyCommand: TypeAlias = (
    Said[AnyMessage] | Entered | Lost | Forgotten | Overran | Expired | Decided | Restarted | Released
)


class Decision(msgspec.Struct, gc=False):
    """Base of all decisions."""


class Assigned(Decision):
    """This worker is to run the task; the live attempt has this number."""

    task: TaskRecord
    worker: Instance
    number: int


class Adopted(Decision):
    """The task's live attempt is one that a worker claimed."""

    task: TaskRecord


class Say(Decision):
    """A peer is to be told something."""

    to: Instance
    message: AnyMessage


class Expiring(Decision):
    """The task's expiry begins now."""

    task: TaskRecord


class Paused(Decision):
    """The task is held for a moment, until it is `Released`."""

    task: TaskRecord


class Judged(Decision):
    """This verdict is to be multicast to the caller and to ourselves until it comes back."""

    verdict: Outcome


class Settled(Decision):
    """The task has its outcome, or None where nobody waits for one."""

    task: TaskRecord
    outcome: Outcome | None


class AskedAgain(Decision):
    """The sender submitted a task again whose outcome is kept."""

    sender: Instance
    counter: int


class Ignored(Decision):
    """A message came too late, from the wrong one, or is out of range. It changed nothing."""

    source: Instance
    message: AnyMessage


AnyDecision: TypeAlias = (
    Assigned | Adopted | Say | Expiring | Paused | Judged | Settled | AskedAgain | Ignored
)

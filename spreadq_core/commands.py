"""What changes a task queue, and what follows from it.

Commands are the log that can be journaled and replicated: they are the only way to change a
`TaskQueue`, in one order, and hold no time. Decisions are what the queue wants its manager to do.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from spreadq_core.ids import Instance
from spreadq_core.messages import Claim, Outcome, Rejected, Response, Submit
from spreadq_core.records import AttemptKey, TaskRecord

COMMANDS_VERSION = 1
"""Of the commands below; a log of another version is not applied."""


class Loss(enum.Enum):
    """Why a worker's attempts ended, for people."""

    LEFT = "the worker left"
    LEASE = "the worker was silent for its whole lease"


class Command(msgspec.Struct, frozen=True, gc=False, tag=True):
    """Base of all commands."""


class SubmitTasks(Command):
    """A sender submitted tasks, in the order of their counters.

    Args:
        sender: whose they are.
        submits: the tasks.
        hold: those that came `again` wait for claims until `ReleaseHeld`.
    """

    sender: Instance
    submits: list[Submit]
    hold: bool


class CloseTasks(Command):
    """A sender does not hold these tasks open any more."""

    sender: Instance
    ranges: tuple[tuple[int, int], ...]


class ForgetSender(Command):
    """A sender is away for long: nothing is kept for it but what is still to be done."""

    sender: Instance


class ReleaseHeld(Command):
    """Tasks that were held for claims may be assigned."""


class GreetWorker(Command):
    """A worker opened a link: it claims what it holds, then enters."""

    worker: Instance
    capacity: int
    functions: tuple[str, ...] | None


class ClaimAttempt(Command):
    """A greeted worker holds an attempt."""

    worker: Instance
    claim: Claim


class EnterWorker(Command):
    """A greeted worker has made its claims and is present: what it did not claim, it never got."""

    worker: Instance


class DrainWorker(Command):
    """A worker wants nothing more."""

    worker: Instance


class LoseWorker(Command):
    """A worker is gone; so are its attempts."""

    worker: Instance
    loss: Loss


class EndAttempts(Command):
    """A worker says how attempts ended; their slots are free."""

    worker: Instance
    outcomes: list[Outcome]


class KeepResponses(Command):
    """A worker's running jobs sent responses."""

    worker: Instance
    responses: list[Response]


class FreeSlots(Command):
    """Jobs of a worker are over without an outcome.

    Args:
        worker: whose.
        keys: the attempts.
        returned: it gives them back unrun, which does not count against the task.
    """

    worker: Instance
    keys: list[AttemptKey]
    returned: bool


class OverrunAttempts(Command):
    """These attempts passed their run limit. Their slots stay taken until their jobs are over."""

    keys: list[AttemptKey]


class ExpireTasks(Command):
    """Nobody waits for these tasks any more: sender and counter of each."""

    ids: list[tuple[Instance, int]]


class ApplyVerdict(Command):
    """A verdict of ours came back to us in the total order."""

    outcome: Outcome


AnyCommand: TypeAlias = (
    SubmitTasks
    | CloseTasks
    | ForgetSender
    | ReleaseHeld
    | GreetWorker
    | ClaimAttempt
    | EnterWorker
    | DrainWorker
    | LoseWorker
    | EndAttempts
    | KeepResponses
    | FreeSlots
    | OverrunAttempts
    | ExpireTasks
    | ApplyVerdict
)


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Base of all decisions."""


class Assigned(Decision):
    """The task's live attempt has this number and belongs to this worker."""

    task: TaskRecord
    worker: Instance
    number: int


class Expiring(Decision):
    """The task's expiry begins now."""

    task: TaskRecord


class Stranded(Decision):
    """The task waits, and no worker that is present serves its function."""

    task: TaskRecord


class Refused(Decision):
    """The sender is to be told that a task was rejected."""

    sender: Instance
    rejected: Rejected


class Judged(Decision):
    """This outcome is to be multicast to the caller and to ourselves until it comes back."""

    outcome: Outcome


class Settled(Decision):
    """The task has its outcome, or None where nobody waits for one."""

    task: TaskRecord
    outcome: Outcome | None


class AskedAgain(Decision):
    """The sender submitted a task again whose outcome is kept."""

    sender: Instance
    counter: int


class Revoked(Decision):
    """The worker is to stop an attempt."""

    worker: Instance
    key: AttemptKey


class Ignored(Decision):
    """Something came too late or from the wrong one, and changed nothing."""

    what: str
    key: AttemptKey


AnyDecision: TypeAlias = (
    Assigned | Expiring | Stranded | Refused | Judged | Settled | AskedAgain | Revoked | Ignored
)

"""What the roles say to each other. A frame is a list of these behind one header.

All are arrays on the wire (msgpack), tagged by a small integer. They grow by added fields with
defaults only; the version in `codec` changes for breaks. Durations travel, points in time never do.
The types say what is in range: what is not is malformed, and never reaches a role.
"""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

import msgspec

from spreadq_core.ids import MILLISECOND, Instance, Nanos
from spreadq_core.policy import EPOCH_LIMIT

COUNT_LIMIT = 2**62
"""The most that anything is counted to: msgspec's integers end at 64 bits, and ours are added to."""

NAME_LIMIT = 255
"""Characters of the name of a codec."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=COUNT_LIMIT)]
Counter: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=COUNT_LIMIT)]
Duration: TypeAlias = Annotated[Nanos, msgspec.Meta(ge=0, le=COUNT_LIMIT)]
Codec: TypeAlias = Annotated[str, msgspec.Meta(max_length=NAME_LIMIT)]


class Status(enum.IntEnum):
    """How a task, or one attempt at it, ended. Except for DONE the payload says why."""

    DONE = 0
    FAILED = 1
    """The job raised; the payload is the error, as the worker's runtime encoded it."""
    BURIED = 2
    """Too many workers were lost over it."""
    EXPIRED = 3
    """Nobody waits for it any more."""
    CANCELLED = 4
    """Ended on request."""

    # These never travel: a sender says them to its owner.
    REJECTED = 5
    """The manager did not accept it."""
    NO_MANAGER = 6
    """Nobody manages the queue."""
    UNSERVED = 7
    """Not done in time, and nobody who serves its function was there when it was accepted."""


class Refusal(enum.IntEnum):
    """Why a manager rejected a task."""

    QUEUE_FULL = 0
    SENDER_FULL = 1
    OUTCOMES_FULL = 2
    MALFORMED = 3


class About(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Who plays a role, for people: a name that its owner chose, host and process."""

    name: str
    host: str
    pid: int


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


# --- a sender to the managers -------------------------------------------------------------------


class SenderHello(Message, tag=1):
    """Opens a link. `Closed` and `Submit` follow for what it may not know."""

    about: About


class Submit(Message, tag=2):
    """A task."""

    counter: Counter  # with the sender's instance its id
    terms: bytes  # what it has in common with many others, encoded; see `terms`
    payload: bytes  # opaque
    headers: bytes = b""  # opaque; for tracing
    again: bool = False  # it was sent on an earlier link, too, so it may be known or even run


class Closed(Message, tag=3):
    """Tasks that the sender does not hold open any more: first and last counter of each range."""

    ranges: tuple[tuple[Count, Count], ...]


class Confirm(Message, tag=4):
    """Tell me at once what you have accepted: somebody waits for it."""


# --- the manager to a sender --------------------------------------------------------------------


class Accepted(Message, tag=5):
    """Every task of yours up to this counter is in the queue, or was, or is in a `Rejected`."""

    upto: Count


class Rejected(Message, tag=6):
    """This task will not be done."""

    counter: Counter
    refusal: Refusal
    reason: str


class Unserved(Message, tag=7):
    """No worker that is present serves this task's function; it waits for one."""

    counter: Counter


# --- the manager to a worker --------------------------------------------------------------------


class Assign(Message, tag=8):
    """Run this task."""

    sender: Instance  # with the counter in `task` its id
    number: Count  # of the attempt: 1, 2, 3, ...
    strikes: Count  # earlier attempts that count against its limit
    expires_in: Duration  # what is left of its expiry, 0 for none
    reply_to: str  # the caller's private name, "" where no reply is wanted
    task: Submit  # as submitted


class Cancel(Message, tag=9):
    """Stop this attempt, and say `JobOver` when it is over."""

    sender: Instance
    counter: Counter
    number: Count


# --- a worker to the managers -------------------------------------------------------------------


class WorkerHello(Message, tag=10):
    """Opens a link: who can take `capacity` attempts at a time of these functions (None: of all).

    Claims follow, then `Ready`.
    """

    about: About
    capacity: Count
    functions: tuple[str, ...] | None


class Claim(Message, tag=11):
    """I hold this attempt: its job runs, or its end follows. Its fields are some of those of `Assign`."""

    sender: Instance
    number: Count
    strikes: Count
    task: Submit


class Ready(Message, tag=12):
    """My claims are made; assign."""


class Draining(Message, tag=13):
    """Assign nothing more to me."""


class JobOver(Message, tag=14):
    """The job of this attempt is over, without an outcome."""

    sender: Instance
    counter: Counter
    number: Count


class HandBack(Message, tag=15):
    """I do not run this attempt; give it to another. It does not count as one."""

    sender: Instance
    counter: Counter
    number: Count


# --- to a caller and the managers alike ---------------------------------------------------------


class Outcome(Message, tag=16):
    """How a task ended; from a worker to the managers alone: how an attempt failed."""

    sender: Instance  # with `counter` the task
    counter: Counter  # see `sender`
    number: Count  # of the attempt, 0 where none ran
    worker: Instance  # that ran it, 0 where none did
    status: Status  # how it ended
    responses: Count = 0  # how many the job made
    payload: bytes = b""  # the value, or the reason
    codec: Codec = ""  # of the payload; "" where a job returned nothing


class Response(Message, tag=17):
    """An answer that a job made while it ran, counted from 0 by `index`."""

    sender: Instance
    counter: Counter
    number: Count
    worker: Instance
    index: Count
    payload: bytes
    codec: Codec


# --- the manager to everybody, and managers among themselves ------------------------------------


class TookOver(Message, tag=18):
    """I manage this queue: open a link to me. `link`: the one of yours that I don't know; 0: any."""

    link: Count
    about: About


class Welcome(Message, tag=19):
    """I know your link. A worker must be heard once in a `lease`."""

    lease: Annotated[Nanos, msgspec.Meta(ge=MILLISECOND, le=COUNT_LIMIT)]


class Who(Message, tag=20):
    """Does anybody manage this queue? Answered by `TookOver`."""


class StatusRequest(Message, tag=21):
    """Report the queue's state to my mailbox."""


class StatusReport(Message, tag=22):
    """One part of a report, which is a JSON document."""

    part: Count
    parts: Count
    document: bytes


FromSender: TypeAlias = SenderHello | Submit | Closed | Confirm
FromWorker: TypeAlias = WorkerHello | Claim | Ready | Draining | JobOver | HandBack | Outcome | Response
FromManager: TypeAlias = Accepted | Rejected | Unserved | Assign | Cancel | TookOver | Welcome | Who
AnyMessage: TypeAlias = FromSender | FromWorker | FromManager | StatusRequest | StatusReport


class Frame(msgspec.Struct, array_like=True, gc=False):
    """All that one role has for one destination in one turn."""

    queue: str  # the queue's name
    source: Instance  # who speaks
    target: Instance  # who is meant; 0: whoever manages
    link: Count  # which of the peer's links, counted from 1; 0: none, the frame stands alone
    number: Count  # within the link, from 1; 0: it is not numbered, so not receipted
    receipt: Count  # all of the other side's frames up to this one were received
    epoch: Annotated[int, msgspec.Meta(ge=0, le=EPOCH_LIMIT)]  # the highest that the source has seen
    window: Count  # how many of the other side's frames may be unreceipted; 0: not said
    messages: list[AnyMessage]  # in order

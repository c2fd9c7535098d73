"""What the roles say to each other. A frame is a list of these behind one header.

All are arrays on the wire (msgpack), tagged by a small integer. They grow by added fields with
defaults only; the version in `codec` changes for breaks. Durations travel, points in time never do.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from spreadq_core.ids import Instance, Nanos


class Status(enum.IntEnum):
    """How a task, or one attempt at it, ended."""

    DONE = 0
    FAILED = 1
    """The job raised; the payload is the error, as the worker's runtime encoded it."""
    BURIED = 2
    """Too many workers were lost over it; the payload is the reason, as text."""
    EXPIRED = 3
    """Nobody waits for it any more; the payload is the reason, as text."""
    CANCELLED = 4
    """Ended on request; the payload is the reason, as text."""


class Refusal(enum.IntEnum):
    """Why a manager rejected a task."""

    QUEUE_FULL = 0
    SENDER_FULL = 1
    OUTCOMES_FULL = 2
    MALFORMED = 3


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all messages."""


class Terms(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What many tasks have in common; a manager keeps equal ones once.

    Args:
        function: the name that a worker must serve; may be empty.
        codec: of the payload.
        priority: 0..9, higher first.
        max_attempts: how many lost workers, leases and run limits end it.
        run_limit: for one attempt, 0 for none.
        expiry: from now, 0 for never.
        reply: an outcome is wanted.
        confirm: the acceptance is waited for.
    """

    function: str
    codec: str
    priority: int
    max_attempts: int
    run_limit: Nanos
    expiry: Nanos
    reply: bool
    confirm: bool


# --- a sender to the managers -------------------------------------------------------------------


class SenderHello(Message, tag=1):
    """Opens a link. The open tasks follow as `Closed` and `Submit`."""

    name: str
    host: str
    pid: int


class Submit(Message, tag=2):
    """A task. Sent again on every new link for as long as it is open; `again` says so."""

    counter: int
    terms: Terms
    payload: bytes
    headers: bytes = b""
    again: bool = False


class Closed(Message, tag=3):
    """Tasks that the sender does not hold open any more: first and last counter of each range."""

    ranges: tuple[tuple[int, int], ...]


# --- the manager to a sender --------------------------------------------------------------------


class Accepted(Message, tag=4):
    """Every task of yours up to this counter is in the queue, or was, or is in a `Rejected`."""

    upto: int


class Rejected(Message, tag=5):
    """This task will not be done."""

    counter: int
    refusal: Refusal
    reason: str


class Unserved(Message, tag=6):
    """No worker that is present serves this task's function; it waits for one."""

    counter: int


# --- the manager to a worker --------------------------------------------------------------------


class Assign(Message, tag=7):
    """Run this task.

    Args:
        sender: with the counter in `task` its id.
        number: of the attempt, 1, 2, 3, ...
        strikes: earlier attempts that count against `max_attempts`.
        expires_in: what is left of the expiry, 0 for no expiry.
        reply_to: the caller's private name, "" where no reply is wanted.
        task: as submitted.
    """

    sender: Instance
    number: int
    strikes: int
    expires_in: Nanos
    reply_to: str
    task: Submit


class Cancel(Message, tag=8):
    """Stop this attempt, and say `JobOver` when it is over."""

    sender: Instance
    counter: int
    number: int


# --- a worker to the managers -------------------------------------------------------------------


class WorkerHello(Message, tag=9):
    """Opens a link. Claims follow, then `Ready`.

    Args:
        name: for people.
        host: where it runs.
        pid: its process.
        capacity: how many attempts it takes at a time.
        functions: the names it serves, sorted; None for all.
    """

    name: str
    host: str
    pid: int
    capacity: int
    functions: tuple[str, ...] | None


class Claim(Message, tag=10):
    """I hold this attempt: its job runs, or its outcome follows. As in `Assign`."""

    sender: Instance
    number: int
    strikes: int
    expires_in: Nanos
    task: Submit


class Ready(Message, tag=11):
    """All my claims are made; assign."""


class Draining(Message, tag=12):
    """Assign nothing more to me."""


class JobOver(Message, tag=13):
    """The job of this attempt is over, without an outcome."""

    sender: Instance
    counter: int
    number: int


class HandBack(Message, tag=14):
    """I will not run this attempt; give it to another. It does not count as one."""

    sender: Instance
    counter: int
    number: int


# --- to a caller and the managers alike ---------------------------------------------------------


class Outcome(Message, tag=15):
    """How a task ended; from a worker to the managers alone: how an attempt failed.

    Args:
        sender: with `counter` the task.
        counter: see `sender`.
        number: of the attempt, 0 where none ran.
        worker: that ran it, 0 where none did.
        status: how it ended.
        responses: how many `Response`s the job made.
        payload: the value, the error or the reason.
        codec: of the payload; empty where a job returned nothing.
    """

    sender: Instance
    counter: int
    number: int
    worker: Instance
    status: Status
    responses: int = 0
    payload: bytes = b""
    codec: str = ""


class Response(Message, tag=16):
    """An answer that a job made while it ran, numbered from 0 within its attempt."""

    sender: Instance
    counter: int
    number: int
    worker: Instance
    index: int
    payload: bytes
    codec: str


# --- the manager to everybody, and managers among themselves ------------------------------------


class TookOver(Message, tag=17):
    """I manage this queue: open a link to me.

    Args:
        link: the link of yours that I do not know; 0: said to all.
        name: for people.
        host: where I run.
        pid: my process.
    """

    link: int
    name: str
    host: str
    pid: int


class Welcome(Message, tag=18):
    """I know your link. Be heard from at least every `lease`, if you are a worker."""

    lease: Nanos


class Who(Message, tag=19):
    """Does anybody manage this queue? Answered by `TookOver`."""


# --- status -------------------------------------------------------------------------------------


class StatusRequest(Message, tag=20):
    """Report the queue's state to my mailbox."""


class StatusReport(Message, tag=21):
    """One part of a report, which is a JSON document."""

    part: int
    parts: int
    document: bytes


AnyMessage: TypeAlias = (
    SenderHello
    | Submit
    | Closed
    | Accepted
    | Rejected
    | Unserved
    | Assign
    | Cancel
    | WorkerHello
    | Claim
    | Ready
    | Draining
    | JobOver
    | HandBack
    | Outcome
    | Response
    | TookOver
    | Welcome
    | Who
    | StatusRequest
    | StatusReport
)


class Frame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All that one role has for one destination in one turn.

    Args:
        queue: the queue's name.
        source: who speaks.
        target: who is meant; 0: whoever manages.
        link: which link of the peer's (it counts them from 1); 0: none, the frame stands alone.
        number: within the link, from 1; 0: not numbered, so not receipted.
        receipt: all of the other side's frames up to this one were received.
        epoch: the highest that the source has seen.
        window: from a manager: how many of the peer's frames may be unreceipted; else 0.
        messages: in order.
    """

    queue: str
    source: Instance
    target: Instance
    link: int
    number: int
    receipt: int
    epoch: int
    window: int
    messages: list[AnyMessage]

"""Who is who, and how a queue's groups are called.

An *instance* (64 random bits, given to a role by its owner) is an identity; a *session* (the private
name of one connection) is only an address. Time is integer nanoseconds everywhere in the core.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeAlias

import msgspec

from spreadq_core.errors import UsageError

Nanos: TypeAlias = int
"""A duration or a point in time, in nanoseconds."""

Instance: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
"""Identity of one role object: 64 random bits, never 0."""

MILLISECOND: Nanos = 1_000_000
SECOND: Nanos = 1_000_000_000

ANYBODY: Instance = 0
"""As the target of a frame: whoever manages the queue."""

QUEUE_NAME_LIMIT = 28
"""Bytes of a queue name: a Spread group name holds 31, and three are the prefix."""


def earliest(*times: Nanos | None) -> Nanos | None:
    """The first of some points in time, of which None never comes."""
    first: Nanos | None = None
    for time in times:  # a generator would take twice the time, and this is done every turn
        if time is not None and (first is None or time < first):
            first = time
    return first


class TaskId(NamedTuple):
    """Names a task for ever: the sender's instance and that sender's own count."""

    sender: Instance
    counter: int

    def __str__(self) -> str:
        return f"{self.sender:016x}-{self.counter}"

    @classmethod
    def parse(cls, text: str) -> TaskId:
        """Read what `str()` wrote.

        Raises:
            UsageError: the text is not a task id.
        """
        sender, _, counter = text.partition("-")
        try:
            task = cls(int(sender, 16), int(counter))
        except ValueError:
            task = None
        if task is not None and str(task) == text:  # int() takes signs, blanks and underscores, too
            return task
        raise UsageError(f"{text!r} is not a task id; one looks like 00c0ffee00c0ffee-1")


class QueueGroups(msgspec.Struct, frozen=True, gc=False):
    """The Spread groups of one queue. `MQ_` and `WQ_` are those of Spread::Queue 0.4."""

    queue: str
    submit: str
    """Senders speak to the managers here."""
    work: str
    """Workers speak to the managers here."""
    workers: str
    """Presence of the workers."""
    senders: str
    """Presence of the senders."""
    managers: str
    """The managers among themselves."""
    control: str
    """Questions about the queue's state."""

    @classmethod
    def of(cls, queue: str) -> QueueGroups:
        """Derive the groups of `queue`.

        Raises:
            UsageError: the name is empty, longer than 28 bytes, or has a character outside `$`..`~`.
        """
        if not queue:
            raise UsageError("a queue needs a name")
        if any(not "$" <= character <= "~" for character in queue):
            raise UsageError(
                f"queue name {queue!r}: only the printable ASCII characters from '$' to '~' are allowed "
                "(no space, '!', '\"' or '#')"
            )
        if len(queue) > QUEUE_NAME_LIMIT:
            raise UsageError(f"queue name {queue!r} has {len(queue)} characters, {QUEUE_NAME_LIMIT} at most")
        return cls(queue, *(prefix + queue for prefix in ("MQ_", "WQ_", "PQ_", "SQ_", "XQ_", "CQ_")))

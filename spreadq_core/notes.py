"""The names of all notes: registered here, and nowhere else."""

from __future__ import annotations

import enum


class NoteName(enum.StrEnum):
    """What a `Note` may say. Logs, metrics and the simulator's marks go by these."""

    # What peers got wrong; it changed nothing
    BAD_FRAME = "bad_frame"
    """Not a frame of this version and queue within the limits."""
    BAD_MESSAGE = "bad_message"
    """A message that its sender may not send now, or that is out of range."""
    STALE_EPOCH = "stale_epoch"
    """A manager that was replaced still speaks."""
    STALE_LINK = "stale_link"
    """A frame of a link that its own opener has replaced."""
    UNKNOWN_LINK = "unknown_link"
    """A peer goes on with a link that this manager does not have; it was told to open a new one."""
    IGNORED = "ignored"
    """An outcome, failure or response that came too late or from the wrong one."""
    LATE_RESPONSE = "late_response"
    """A response or outcome for which nobody waits any more."""

    # Who comes and goes
    TOOK_OVER = "took_over"
    LOST_PRIMACY = "lost_primacy"
    SENDER_HELLO = "sender_hello"
    SENDER_LEFT = "sender_left"
    WORKER_HELLO = "worker_hello"
    WORKER_ENTERED = "worker_entered"
    WORKER_DRAINING = "worker_draining"
    WORKER_LEFT = "worker_left"
    """As it was to: it was draining, and held nothing any more."""
    WORKER_LOST = "worker_lost"
    LEASE_EXTENDED = "lease_extended"
    """We slept ourselves, so the worker was given more time."""
    WELCOMED = "welcomed"
    """A manager knows our link."""

    # Tasks
    REJECTED = "rejected"
    ATTEMPT_REVOKED = "attempt_revoked"
    JUDGED = "judged"
    """A task failed, was buried or expired; its verdict is on its way."""
    ANSWERED_AGAIN = "answered_again"
    """An outcome was sent again, because its caller seems not to have it."""
    JOB_HUNG = "job_hung"
    HANDED_BACK = "handed_back"
    """An attempt was given back, through no fault of its task."""

"""Every limit and default of the core, named and explained. Durations are nanoseconds."""

from __future__ import annotations

import attrs

from spreadq_core.errors import UsageError
from spreadq_core.ids import MILLISECOND, SECOND, Nanos

BODY_LIMIT = 143_152
"""Bytes of a Spread message that names no group; each group it names takes 32 of them. A body a little
over it aborts a real daemon."""

EPOCH_LIMIT = 2**62
"""The highest epoch; who says more is not believed."""


@attrs.frozen(kw_only=True)
class Policy:
    """How a role behaves. The roles of one queue should share one, but nothing breaks if they don't.

    Raises:
        UsageError: a setting is not a positive whole number.
    """

    # What is taken in
    payload_limit: int = 140_000
    """Bytes of a payload and its headers together; fits one frame with everything around it."""
    queue_limit: int = 1_000_000
    """Tasks that a manager holds, queued and running. One more is rejected."""
    sender_limit: int = 500_000
    """Tasks that a manager holds for one sender. One more is rejected."""
    outcome_bytes_limit: int = 256 * 1024 * 1024
    """Bytes of outcomes that a manager keeps for senders that have not fetched them. Above it, tasks
    that want a reply are rejected."""
    open_limit: int = 100_000
    """Requests of one sender that are not resolved yet. One more raises."""
    capacity_limit: int = 10_000
    """The most attempts that one worker may declare to take at a time."""
    functions_limit: int = 48 * 1024
    """Bytes of all function names that one worker declares; they fit its first frame."""
    spans_limit: int = 100_000
    """Gaps in what a manager knows of one sender's ids; more is a peer's error."""

    # Frames and links
    frame_limit: int = 64 * 1024
    """A frame is closed when it has this many bytes; only a single large message makes it larger."""
    senders_budget: int = 400
    """Frames of all senders together that may be unreceipted; with `workers_budget` well below the
    1,000 unread messages at which a daemon cuts its client off."""
    workers_budget: int = 400
    """The same for the workers."""
    manager_window: int = 100
    """Frames to one peer that a manager leaves unreceipted."""
    resend_after: Nanos = 200 * MILLISECOND
    """A frame is sent again when it is not receipted for this long, or four round trips if longer."""
    resend_limit: Nanos = SECOND
    """The interval doubles with each repetition up to this."""
    receipt_delay: Nanos = 50 * MILLISECOND
    """A receipt waits this long for a frame to ride on."""

    # Tasks
    max_attempts: int = 3
    """Attempts where a task does not say."""
    accept_delay: Nanos = 5 * MILLISECOND
    """The acceptance of a call waits this long for its outcome to make it needless."""
    outcome_delay: Nanos = 200 * MILLISECOND
    """How often a manager looks for outcomes that their callers have not closed: it sends one itself when
    it finds it for the second time."""
    departed_keep: Nanos = 60 * SECOND
    """How long outcomes of a departed sender are kept."""
    loss_pause: Nanos = 250 * MILLISECOND
    """A task that loses a second worker, which did not know of it yet, waits this long for a third: more
    may be dying."""
    claim_grace: Nanos = 2 * SECOND
    """After a take-over without memory, tasks that come again wait this long for a worker to claim them."""

    # Workers
    lease: Nanos = 10 * SECOND
    """A worker that is not heard for this long has lost its attempts."""
    renewals: int = 3
    """How often in a lease a worker shows that it is there."""
    tick_slack: Nanos = 100 * MILLISECOND
    """A tick later than this means that we slept, not the workers: leases are extended by its lateness."""
    drain_timeout: Nanos = 25 * SECOND
    """A stopping worker gives back what has not ended by then."""
    hung_grace: Nanos = 5 * SECOND
    """A worker all of whose slots are held by cancelled jobs for this long exits."""
    farewell: Nanos = 2 * SECOND
    """A stopping role waits this long for its last words to be receipted."""

    # Managers
    who_wait: Nanos = 2 * SECOND
    """How long a new manager that is not alone waits for the other to answer."""
    manager_wait: Nanos = 2 * SECOND
    """A sender that never heard a manager gives a request up after this long."""
    outage_wait: Nanos = 15 * SECOND
    """A sender that lost its manager gives an unaccepted request up after this long."""

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if not isinstance(value, int) or value <= 0:
                raise UsageError(f"{name} must be a positive whole number, not {value!r}")


DEFAULT = Policy()

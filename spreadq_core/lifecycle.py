"""The life of a worker, as its manager sees it: one table, and no other place changes a state."""

from __future__ import annotations

import enum

from spreadq_core.errors import InvariantError


class WorkerState(enum.IntEnum):
    """Where a worker stands."""

    GREETED = 0
    """It said hello; its claims are coming, or it is not in the view yet."""
    AVAILABLE = 1
    """It holds no attempt."""
    WORKING = 2
    """It holds attempts, and takes more if it has capacity left."""
    DRAINING = 3
    """It ends what it holds and takes nothing more."""
    GONE = 4
    """It left, or its lease ended. Its instance may come back, as a new worker that says hello."""


class WorkerInput(enum.IntEnum):
    """What can happen to a worker."""

    HELLO = 0
    """It opened a link."""
    ENTERED = 1
    """Its claims are complete and it is in the view."""
    ASSIGNED = 2
    """It holds an attempt."""
    EMPTIED = 3
    """It holds no attempt any more."""
    DRAINED = 4
    """It wants nothing more."""
    LOST = 5
    """It left the view, or its lease ended."""


_G, _A, _W, _D, _X = WorkerState
_NEVER = None

TABLE: tuple[tuple[WorkerState | None, ...], ...] = (
    # HELLO ENTERED ASSIGNED EMPTIED DRAINED LOST
    (_G, _A, _NEVER, _NEVER, _D, _X),  # GREETED
    (_G, _NEVER, _W, _NEVER, _D, _X),  # AVAILABLE
    (_G, _NEVER, _W, _A, _D, _X),  # WORKING
    (_G, _D, _NEVER, _NEVER, _D, _X),  # DRAINING
    (_NEVER, _NEVER, _NEVER, _NEVER, _NEVER, _NEVER),  # GONE
)
"""`TABLE[state][input]` is the next state; None: it cannot happen, whatever peers say."""

ASSIGNABLE = (WorkerState.AVAILABLE, WorkerState.WORKING)


def after(state: WorkerState, event: WorkerInput) -> WorkerState:
    """The state that follows.

    Raises:
        InvariantError: the input cannot happen in this state.
    """
    following = TABLE[state][event]
    if following is None:
        raise InvariantError(f"a worker is {state.name}: {event.name} cannot happen")
    return following

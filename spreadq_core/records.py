"""What a task queue remembers: tasks, senders, workers. All that a snapshot of it holds, and no more."""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from spreadq_core.ids import Instance
from spreadq_core.lifecycle import WorkerState
from spreadq_core.messages import Outcome, Rejected, Response, Status, Submit
from spreadq_core.ranges import Ranges
from spreadq_core.terms import PRIORITIES, Terms

TaskKey: TypeAlias = tuple[Instance, int]
"""A task: sender and counter."""

AttemptKey: TypeAlias = tuple[Instance, int, int]
"""An attempt of a known worker: sender, counter, number."""

Attempt: TypeAlias = tuple[int, Instance]
"""An attempt at a known task: its number and its worker."""

RECORDED_LIMIT = 64
"""Attempts of one task that are recorded."""

KEPT_COST = 200
"""Bytes that an outcome or response takes beside its payload."""

PLACE_BITS = 56
"""A rank is the priority, best first, above this many bits of acceptance order."""


def rank_of(priority: int, place: int) -> int:
    """The order in which tasks are assigned: lowest rank first."""
    return (PRIORITIES - 1 - priority) << PLACE_BITS | place


def place_of(rank: int) -> int:
    """A rank's place in the order of acceptance."""
    return rank & ((1 << PLACE_BITS) - 1)


def kept_size(kept: Outcome | Response) -> int:
    """Bytes that an outcome or response is counted with."""
    return KEPT_COST + len(kept.payload)


class Phase(enum.IntEnum):
    """Where a task stands."""

    QUEUED = 0
    """It waits for its first attempt."""
    RETURNED = 1
    """It waits again, in its old place."""
    HELD = 2
    """It waits for something else than a worker: for claims after a take-over, or for a moment to pass."""
    RUNNING = 3
    """One attempt is live."""
    ENDING = 4
    """Its verdict is on its way to the caller and to ourselves."""
    OVER = 5
    """It has its outcome; only a lane may still hold the record."""


class TaskRecord(msgspec.Struct, gc=False, eq=False):
    """A task that has no outcome yet."""

    sender: Instance  # with the counter in `submit` its id
    rank: int  # see `rank_of`
    submit: Submit  # as it came, but with the encoded terms that all such tasks share
    terms: Terms  # what they say
    phase: Phase = Phase.QUEUED  # where it stands
    live: Attempt | None = None  # the live attempt, if there is one
    strikes: int = 0  # attempts that count against the task's limit
    attempts: tuple[Attempt, ...] = ()  # those recorded; a success of any of them counts


class SenderRecord(msgspec.Struct, gc=False):
    """What is known of one sender's tasks, by counter."""

    known: Ranges = msgspec.field(default_factory=Ranges)  # counters that were accepted, rejected or closed
    tasks: dict[int, TaskRecord] = {}  # without outcome
    outcomes: dict[int, Outcome] = {}  # that the sender has not closed
    responses: dict[int, dict[int, Response]] = {}  # of tasks and outcomes that are still here, by index
    rejected: dict[int, Rejected] = {}  # that the sender has not closed

    def drop(self, counter: int) -> int:
        """Forget what was kept of a task for its sender; how many bytes that frees."""
        outcome = self.outcomes.pop(counter, None)
        freed = kept_size(outcome) if outcome is not None else 0
        if self.responses:
            freed += sum(kept_size(response) for response in self.responses.pop(counter, {}).values())
        self.rejected.pop(counter, None)
        return freed

    def here(self, first: int, last: int) -> list[int]:
        """Counters of a range of which anything is here, at the cost of the smaller of the two."""
        tasks, outcomes, rejected = self.tasks, self.outcomes, self.rejected
        if last - first <= len(tasks) + len(outcomes) + len(rejected):
            counters = range(first, last + 1)
            return [n for n in counters if n in outcomes or n in tasks or n in rejected]
        return sorted(n for n in {*tasks, *outcomes, *rejected} if first <= n <= last)


class WorkerRecord(msgspec.Struct, gc=False):
    """A worker that is not gone."""

    instance: Instance  # who
    capacity: int  # attempts at a time
    functions: tuple[str, ...] | None  # that it serves, None for all
    state: WorkerState = WorkerState.GREETED  # of its life
    ready: bool = False  # it has made its claims since it last said hello
    # attempts whose job is not reported over: what is free is derived from them. False: not claimed since it
    # last said hello.
    slots: dict[AttemptKey, bool] = {}
    idle_since: int = 0  # the turn in which it last took its place among the idle
    done: int = 0  # how many jobs it reported over


class Counts(msgspec.Struct, gc=False):
    """How tasks ended so far, and how often one was assigned again."""

    done: int = 0
    failed: int = 0
    buried: int = 0
    expired: int = 0
    cancelled: int = 0
    rejected: int = 0
    reassigned: int = 0

    def ended(self, status: Status) -> None:
        """One more task has its outcome."""
        name = status.name.lower()
        setattr(self, name, getattr(self, name) + 1)


class QueueState(msgspec.Struct, gc=False):
    """All that a queue is, but for its schedule, which follows from it."""

    senders: dict[Instance, SenderRecord] = {}  # by instance
    workers: dict[Instance, WorkerRecord] = {}  # by instance
    verdicts: dict[TaskKey, Outcome] = {}  # of ENDING tasks
    doubted: dict[TaskKey, None] = {}  # tasks whose last attempt was lost unheard, which did not count yet
    accepted: int = 0  # how many tasks ever were; also the last one's place
    turns: int = 0  # how often a worker took its place among the idle
    tasks: int = 0  # how many there are
    outcome_bytes: int = 0  # kept for senders
    counts: Counts = msgspec.field(default_factory=Counts)  # for people

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
    """After a take-over: a worker may still claim it."""
    RUNNING = 3
    """One attempt is live."""
    ENDING = 4
    """Its verdict is on its way to the caller and to ourselves."""
    OVER = 5
    """It has its outcome; only a lane may still hold the record."""


class TaskRecord(msgspec.Struct, gc=False, eq=False):
    """A task that has no outcome yet.

    Args:
        sender: with the counter in `submit` its id.
        rank: see `rank_of`.
        submit: as it came, but with the encoded terms that all such tasks share.
        terms: what they say.
        phase: where it stands.
        live: the live attempt, if there is one.
        strikes: attempts that count against the task's limit.
        attempts: those recorded; a success of any of them counts.
    """

    sender: Instance
    rank: int
    submit: Submit
    terms: Terms
    phase: Phase = Phase.QUEUED
    live: Attempt | None = None
    strikes: int = 0
    attempts: tuple[Attempt, ...] = ()


class SenderRecord(msgspec.Struct, gc=False):
    """What is known of one sender's tasks, by counter.

    Args:
        known: counters that were accepted, rejected or closed.
        tasks: without outcome.
        outcomes: that the sender has not closed.
        responses: of tasks and outcomes that are still here, by index.
        rejected: that the sender has not closed.
    """

    known: Ranges = msgspec.field(default_factory=Ranges)
    tasks: dict[int, TaskRecord] = {}
    outcomes: dict[int, Outcome] = {}
    responses: dict[int, dict[int, Response]] = {}
    rejected: dict[int, Rejected] = {}

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
    """A worker that is not gone.

    Args:
        instance: who.
        capacity: attempts at a time.
        functions: that it serves, None for all.
        state: of its life.
        ready: it has made its claims since it last said hello.
        slots: attempts whose job is not reported over: what is free is derived from them. False: not
            claimed since it last said hello.
        idle_since: the turn in which it last took its place among the idle.
        done: how many jobs it reported over.
    """

    instance: Instance
    capacity: int
    functions: tuple[str, ...] | None
    state: WorkerState = WorkerState.GREETED
    ready: bool = False
    slots: dict[AttemptKey, bool] = {}
    idle_since: int = 0
    done: int = 0


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
    """All that a queue is, but for its schedule, which follows from it.

    Args:
        senders: by instance.
        workers: by instance.
        verdicts: of ENDING tasks.
        accepted: how many tasks ever were; also the last one's place.
        turns: how often a worker took its place among the idle.
        tasks: how many there are.
        outcome_bytes: kept for senders.
        counts: for people.
    """

    senders: dict[Instance, SenderRecord] = {}
    workers: dict[Instance, WorkerRecord] = {}
    verdicts: dict[TaskKey, Outcome] = {}
    accepted: int = 0
    turns: int = 0
    tasks: int = 0
    outcome_bytes: int = 0
    counts: Counts = msgspec.field(default_factory=Counts)

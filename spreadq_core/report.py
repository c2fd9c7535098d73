"""The state of a queue as a document for people and programs: what `spreadq status` shows."""

from __future__ import annotations

from typing import Any

import msgspec

from spreadq_core.ids import MILLISECOND, SECOND, Nanos
from spreadq_core.link import Speaker
from spreadq_core.messages import About, StatusReport
from spreadq_core.peers import Peers, WorkerPeer
from spreadq_core.records import WorkerRecord
from spreadq_core.task_queue import TaskQueue

MARK_INTERVAL: Nanos = 100 * MILLISECOND
"""The age of a task is known to this, while there are few marks."""

MARKS_LIMIT = 1024
"""When there are more marks, every second one goes: old ages are known less precisely."""

PART_BYTES = 60_000
"""A report travels in parts of this size."""


class AgeMarks(msgspec.Struct, gc=False):
    """How old tasks are, without a time in each: which acceptance was the last one at some times.

    Args:
        marked_at: by place of the task accepted last, when; oldest first.
        last_at: when the newest mark was made.
    """

    marked_at: dict[int, Nanos] = {}
    last_at: Nanos | None = None

    def accepted(self, upto: int, now: Nanos) -> None:
        """All tasks up to this place were accepted by now."""
        if self.last_at is not None and now < self.last_at + MARK_INTERVAL:
            return
        self.last_at = now
        self.marked_at[upto] = now
        if len(self.marked_at) > MARKS_LIMIT:
            for place in list(self.marked_at)[::2]:
                del self.marked_at[place]

    def age(self, place: int | None, now: Nanos) -> Nanos:
        """How long ago the task with this place was accepted; 0 for None. Forgets older marks."""
        if place is None:
            self.marked_at.clear()
            return 0
        for marked in list(self.marked_at):
            if marked >= place:
                return now - self.marked_at[marked]
            del self.marked_at[marked]
        return 0


def report(
    queue: TaskQueue,
    peers: Peers,
    speaker: Speaker,
    about: About,
    marks: AgeMarks,
    uptime: Nanos,
    now: Nanos,
) -> list[StatusReport]:
    """The queue's state as parts of one JSON document; its keys are part of the public interface."""
    state, counts = queue.state, queue.state.counts
    waiting = queue.schedule.waiting()
    running = sum(len(worker.slots) for worker in state.workers.values())
    document = {
        "queue": speaker.queue,
        "manager": {
            "name": about.name,
            "host": about.host,
            "pid": about.pid,
            "instance": f"{speaker.instance:016x}",
            "epoch": speaker.epoch,
            "uptime_s": uptime / SECOND,
            "durability": "memory",
        },
        "tasks": {
            "accepted": state.accepted,
            "queued": sum(waiting.values()),
            "running": running,
            "open": state.tasks,
            "done": counts.done,
            "failed": counts.failed,
            "buried": counts.buried,
            "expired": counts.expired,
            "cancelled": counts.cancelled,
            "rejected": counts.rejected,
            "reassigned": counts.reassigned,
        },
        "oldest_age_s": marks.age(queue.schedule.oldest_place(), now) / SECOND,
        "unserved": {name: n for name, n in waiting.items() if not queue.schedule.is_served(name)},
        "outcome_bytes": state.outcome_bytes,
        "senders": len(peers.senders),
        "workers": [
            _worker(state.workers[instance], peer, now)
            for instance, peer in peers.workers.items()
            if instance in state.workers
        ],
    }
    body = msgspec.json.encode(document)
    parts = [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)]
    return [StatusReport(number, len(parts), part) for number, part in enumerate(parts)]


def _worker(worker: WorkerRecord, peer: WorkerPeer, now: Nanos) -> dict[str, Any]:
    return {
        "name": peer.about.name,
        "instance": f"{worker.instance:016x}",
        "host": peer.about.host,
        "pid": peer.about.pid,
        "state": worker.state.name.lower(),
        "capacity": worker.capacity,
        "running": len(worker.slots),
        "idle_s": 0.0 if worker.slots else (now - peer.rested_at) / SECOND,
        "done": worker.done,
        "functions": worker.functions,
    }

"""The state of a queue as a document for people and programs: what `spreadq status` shows."""

from __future__ import annotations

from typing import Any

import msgspec

from spreadq_core.ids import SECOND, Nanos
from spreadq_core.manager import Manager
from spreadq_core.messages import StatusReport
from spreadq_core.peers import WorkerPeer
from spreadq_core.records import WorkerRecord

PART_BYTES = 60_000
"""A report travels in parts of this size."""


def report(manager: Manager, now: Nanos) -> list[StatusReport]:
    """The queue's state as the parts of one JSON document."""
    body = msgspec.json.encode(_document(manager, now))
    parts = [body[start : start + PART_BYTES] for start in range(0, len(body), PART_BYTES)]
    return [StatusReport(number, len(parts), part) for number, part in enumerate(parts)]


def _document(manager: Manager, now: Nanos) -> dict[str, Any]:
    """Its keys are part of the public interface."""
    own, queue, peers = manager.state, manager.queue, manager.peers
    counts, waiting = queue.state.counts, queue.schedule.waiting()
    workers = queue.state.workers
    return {
        "queue": own.speaker.queue,
        "manager": {
            "name": own.about.name,
            "host": own.about.host,
            "pid": own.about.pid,
            "instance": f"{own.speaker.instance:016x}",
            "epoch": own.speaker.epoch,
            "uptime_s": (now - own.started_at) / SECOND,
            "durability": "memory",
        },
        "tasks": {
            "accepted": queue.state.accepted,
            "queued": sum(waiting.values()),
            "running": sum(len(worker.slots) for worker in workers.values()),
            "open": queue.state.tasks,
            "done": counts.done,
            "failed": counts.failed,
            "buried": counts.buried,
            "expired": counts.expired,
            "cancelled": counts.cancelled,
            "rejected": counts.rejected,
            "reassigned": counts.reassigned,
        },
        "oldest_age_s": own.ages.age(queue.schedule.oldest_place(), now) / SECOND,
        "unserved": {name: n for name, n in waiting.items() if not queue.schedule.is_served(name)},
        "outcome_bytes": queue.state.outcome_bytes,
        "senders": len(peers.senders),
        "workers": [
            _worker(workers[instance], peer, now)
            for instance, peer in peers.workers.items()
            if instance in workers
        ],
    }


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

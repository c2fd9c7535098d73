"""A network that loses, repeats and reorders frames: what carries every task is the receipts of the links."""

from __future__ import annotations

import random

import pytest

from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.messages import Status
from spreadq_core.notes import NoteName
from tests.core.invariants import check, check_quiet
from tests.core.world import World, instance_of

TASKS = 150


class LossyWorld(World):
    """Each receiver's copy of a frame has its own fate; jobs take a while."""

    def __init__(self, seed, loss):
        super().__init__()
        rng = self.rng = random.Random(seed)

        def fate(receiver, event):
            if rng.random() < loss:
                return ()
            delays = [rng.choice([0, 0, 1, 10, 100]) * MILLISECOND]
            return delays + [rng.randint(1, 300) * MILLISECOND] * (rng.random() < loss)

        self.fate = fate
        self.members = [self.manager()]
        self.workers = [self.worker(("f", "g"), 3), self.worker(("f",), 1), self.worker(None, 2)]
        self.senders = [self.sender(), self.sender()]
        self.advance(5 * SECOND)

    def work(self, duration=10 * MILLISECOND):
        """Let some jobs end, and time pass."""
        for worker in self.workers:
            for key in list(worker.jobs):
                if self.rng.random() < 0.3:
                    status = Status.DONE if self.rng.random() < 0.9 else Status.FAILED
                    worker.end(b"of %d-%d" % key[:2], key=key, status=status)
                elif self.rng.random() < 0.1:
                    worker.respond(b"r", key)
        self.advance(duration)
        for node in self.nodes:
            check(node.role)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("loss", [0.02, 0.1])
def test_every_task_ends_exactly_once_by_receipts_and_not_by_leases(seed, loss):
    world = LossyWorld(seed, loss)
    for _ in range(TASKS):
        sender = world.rng.choice(world.senders)
        sender.submit(
            world.rng.choice("fg"), reply=world.rng.random() < 0.6, priority=world.rng.randint(0, 2)
        )
        world.work()
    (manager,) = world.members
    while any(sender.role.state.open for sender in world.senders) or manager.role.queue.state.tasks:
        world.work()
        assert world.time < 1_600 * SECOND
    world.advance(10 * SECOND)
    for worker in world.workers:
        keys = [(job.sender, job.counter) for job in worker.started]
        assert len(keys) == len(set(keys))
    started = [(job.sender, job.counter) for worker in world.workers for job in worker.started]
    assert len(started) == TASKS, "every task ran once"
    assert manager.noted(NoteName.WORKER_LOST) == []
    assert manager.role.queue.state.counts.reassigned == 0
    for sender in world.senders:
        for request, outcome in sender.resolved.items():
            assert outcome.payload == b"of %d-%d" % (instance_of(sender), request)
        assert sender.role.state.last == len(sender.resolved.keys() | set(sender.confirmed))
    check_quiet(world)


@pytest.mark.parametrize("seed", range(4))
def test_every_call_ends_though_all_reconnect_again_and_again(seed):
    world = LossyWorld(seed, 0.1)
    for _ in range(TASKS):
        world.rng.choice(world.senders).submit()
        world.work()
        if world.rng.random() < 0.2:
            world.reconnect(world.rng.choice([*world.workers, *world.senders, *world.members]))
    while any(sender.role.state.open for sender in world.senders):
        world.work()
        assert world.time < 1_600 * SECOND
    for sender in world.senders:
        assert len(sender.resolved) == sender.role.state.last
        for request, outcome in sender.resolved.items():
            key = (instance_of(sender), request)
            assert outcome.status in (Status.DONE, Status.FAILED, Status.BURIED)
            if outcome.status is Status.DONE:
                assert outcome.payload in world.produced[key]
    world.fate = lambda receiver, event: (0,)
    for _ in range(30):
        for worker in world.workers:
            for key in list(worker.jobs):
                worker.end(key=key)
        world.advance(SECOND)
    check_quiet(world)

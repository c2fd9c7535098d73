"""What must be true of a role between two turns, whatever happened before (RELIABILITY.md, section 3)."""

from __future__ import annotations

from spreadq_core.lifecycle import ASSIGNABLE, WorkerState
from spreadq_core.manager import Manager
from spreadq_core.records import Phase, kept_size
from spreadq_core.sender import Sender
from spreadq_core.task_queue import TaskQueue
from spreadq_core.worker import Worker

WAITING = (Phase.QUEUED, Phase.RETURNED)


def check_queue(queue: TaskQueue, honest: bool = True) -> None:
    """S2, S3, S4, S6, S9, S13 of a task queue.

    Args:
        queue: to be checked.
        honest: its peers say nothing that a peer of ours would not say.
    """
    state = queue.state
    waiting = {}
    tasks = [
        (instance, counter, sender, task)
        for instance, sender in state.senders.items()
        for counter, task in sender.tasks.items()
    ]
    assert state.tasks == len(tasks) <= queue.policy.queue_limit
    ranks = [task.rank for *_, task in tasks]
    assert len(set(ranks)) == len(ranks)
    for instance, counter, sender, task in tasks:
        assert (task.sender, task.submit.counter) == (instance, counter)
        assert counter in sender.known
        assert counter not in sender.outcomes, "S2: a task with an outcome is over"
        assert counter not in sender.rejected
        assert (task.live is not None) == (task.phase is Phase.RUNNING), "S3"
        assert ((instance, counter) in state.verdicts) == (task.phase is Phase.ENDING)
        numbers = [number for number, _ in task.attempts]
        if honest:
            assert len(set(task.attempts)) == len(task.attempts)
            assert task.strikes <= task.terms.max_attempts
        if task.live is not None:
            number, worker = task.live
            assert task.live in task.attempts
            assert number <= max(numbers)
            assert (instance, counter, number) in state.workers[worker].slots, (
                "S9: who runs it has a slot for it"
            )
        if task.phase in WAITING:
            waiting[task.terms.function] = waiting.get(task.terms.function, 0) + 1
    assert queue.schedule.waiting() == waiting
    assert len(state.verdicts) == sum(task.phase is Phase.ENDING for *_, task in tasks)
    _check_workers(queue, waiting)
    _check_senders(queue)
    image = queue.snapshot()
    assert TaskQueue.restore(queue.policy, image).snapshot() == image


def _check_workers(queue, waiting):
    for instance, worker in queue.state.workers.items():
        assert worker.instance == instance
        assert worker.state is not WorkerState.GONE
        assert 1 <= worker.capacity <= queue.policy.capacity_limit
        if worker.state in ASSIGNABLE:
            assert (worker.state is WorkerState.WORKING) == bool(worker.slots)
            assert worker.ready
            assert all(worker.slots.values())
            has_room = len(worker.slots) < worker.capacity
            assert queue.schedule.is_idle(worker) == has_room
            if has_room:
                served = [f for f in waiting if worker.functions is None or f in worker.functions]
                assert not served, f"L5: {worker} could run {served}"


def _check_senders(queue):
    policy, kept = queue.policy, 0
    for sender in queue.state.senders.values():
        assert len(sender.tasks) <= policy.sender_limit
        assert len(sender.known) <= policy.spans_limit + 1
        assert not sender.outcomes.keys() & sender.rejected.keys()
        assert sender.responses.keys() <= sender.outcomes.keys() | sender.tasks.keys()
        for counter in [*sender.outcomes, *sender.rejected]:
            assert counter in sender.known
        kept += sum(map(kept_size, sender.outcomes.values()))
        kept += sum(kept_size(r) for some in sender.responses.values() for r in some.values())
    assert queue.state.outcome_bytes == kept


def check_manager(manager: Manager, honest: bool = True) -> None:
    """That a manager's view agrees with its queue's, and that nothing is left over of what is gone."""
    state, queue = manager.state, manager.queue
    check_queue(queue, honest)
    assert state.peers.workers.keys() == queue.state.workers.keys() or not state.started
    known = state.peers.senders.keys() | queue.state.senders.keys()
    assert state.absent_at.keys() <= known
    present = {i for i, peer in state.peers.senders.items() if manager.peers.is_present(peer.session, "SQ_q")}
    assert known - present <= state.absent_at.keys(), "whoever is not here will be forgotten"
    assert list(state.absent_at.values()) == sorted(state.absent_at.values())
    tasks = {(s, n) for s, sender in queue.state.senders.items() for n in sender.tasks}
    assert state.expires_at.keys() | state.limit_at.keys() <= tasks
    for key in tasks - state.expires_at.keys():
        task = queue.task(*key)
        assert not task.terms.expiry or task.phase is Phase.ENDING
    for key in tasks - state.limit_at.keys():
        task = queue.task(*key)
        assert not task.terms.run_limit or task.phase is not Phase.RUNNING
    for worker, peer in state.peers.workers.items():
        assert peer.entered == (queue.state.workers[worker].state not in (WorkerState.GREETED,)) or (
            queue.state.workers[worker].state is WorkerState.DRAINING
        )
    for peer in [*state.peers.workers.values(), *state.peers.senders.values()]:
        check_link(peer.link)


def check_link(link) -> None:
    numbers = [sent.number for sent in link.unreceipted]
    assert numbers == list(range(link.sent - len(numbers) + 1, link.sent + 1))
    assert all(number > link.received + 1 for number in link.ahead)


def check_worker(worker: Worker) -> None:
    """That a worker's counts are right, and that it runs no more than it may."""
    state = worker.state
    assert state.running == sum(not job.over for job in state.jobs.values()) <= state.capacity
    cancelled = [job for job in state.jobs.values() if job.cancelled_at is not None and not job.over]
    assert state.cancelled == len(cancelled)
    check_link(state.uplink.link)


def check_sender(sender: Sender) -> None:
    """That a sender knows of each open request what it needs to know, and of no other."""
    state = sender.state
    assert state.unaccepted_at.keys() <= state.open.keys()
    assert state.expires_at.keys() <= state.open.keys()
    assert list(state.open) == sorted(state.open)
    assert all(counter <= state.last for counter in state.open)
    check_link(state.uplink.link)


def check(role, honest: bool = True) -> None:
    """All that must be true of a role."""
    if isinstance(role, Manager):
        check_manager(role, honest)
    elif isinstance(role, Worker):
        check_worker(role)
    else:
        check_sender(role)


def check_quiet(world) -> None:
    """When all is done and receipted: nothing is left over anywhere."""
    for node in world.nodes:
        role = node.role
        check(role)
        if isinstance(role, Manager):
            _check_idle(role)
            continue
        link = role.state.uplink.link
        assert not link.unreceipted
        assert not link.mail
        assert not link.casts
        assert not link.ahead
        if isinstance(role, Worker):
            assert not role.state.jobs
        else:
            assert not role.state.open
            assert not role.state.unaccepted_at
            assert not role.state.closing
            assert not role.state.marks


def _check_idle(manager):
    state, queue = manager.state, manager.queue.state
    assert queue.tasks == queue.outcome_bytes == 0
    assert not queue.verdicts
    assert not state.expires_at
    assert not state.limit_at
    assert not state.verdict_at
    for worker in queue.workers.values():
        assert not worker.slots
    for sender in queue.senders.values():
        assert not sender.outcomes
        assert not sender.rejected
        assert not sender.responses
        assert not sender.known.firsts
    for peer in [*state.peers.senders.values(), *state.peers.workers.values()]:
        assert not peer.link.unreceipted
        assert not peer.link.mail
    for peer in state.peers.senders.values():
        assert not peer.finished
        assert not peer.unclosed

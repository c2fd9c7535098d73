"""Workers that are lost, frozen, hung, drained or away, and what becomes of their attempts."""

from __future__ import annotations

import pytest

from spreadq_core.events import StopRequested
from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.messages import Assign, Claim, HandBack, JobOver, Status, WorkerHello
from spreadq_core.notes import NoteName
from spreadq_core.policy import Policy
from tests.core.invariants import check_quiet
from tests.core.world import World, instance_of, key_of


@pytest.fixture
def cluster(world):
    """A manager, two workers and a sender who know each other; the first worker is longest idle."""
    return world, *meet(world)


def meet(world, capacity=1):
    manager, one = world.manager(), world.worker(capacity=capacity)
    world.settle()
    two, sender = world.worker(capacity=capacity), world.sender()
    world.advance(SECOND)
    return manager, one, two, sender


def counts(manager):
    return manager.role.queue.state.counts


# --- a worker leaves ------------------------------------------------------------------------------


def test_the_tasks_of_a_worker_that_leaves_are_assigned_again_at_once(cluster):
    world, manager, one, two, sender = cluster
    request = sender.submit()
    world.settle()
    assert len(one.jobs) == 1
    world.kill(one)
    world.settle()
    assert list(two.jobs) == [key_of(sender, request, 2)]
    assert counts(manager).reassigned == 1
    two.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"
    check_quiet(world)


def test_a_task_returns_to_its_old_place(world):
    _, one, two, sender = meet(world)
    for payload in (b"a", b"b", b"c", b"d"):
        sender.submit(payload=payload)
    world.settle()
    world.kill(one)
    world.settle()
    for _ in range(3):
        two.end()
        world.settle()
    assert [job.payload for job in two.started] == [b"b", b"a", b"c", b"d"]


def test_the_tasks_of_a_lost_worker_go_again_by_priority_and_then_age(world):
    world.manager()
    lost, old, young = world.worker(capacity=3), world.sender(), world.sender()
    world.advance(SECOND)
    for sender, payload, priority in ((young, b"c", 0), (old, b"b", 5), (old, b"a", 9)):
        sender.submit(payload=payload, priority=priority)
        world.settle()
    world.kill(lost)
    world.settle()
    worker = world.worker()
    for _ in range(3):
        world.settle()
        worker.end()
    assert [job.payload for job in worker.started] == [b"a", b"b", b"c"]


def test_an_idle_worker_gets_the_first_of_a_lost_workers_tasks(cluster):
    world, _, one, two, sender = cluster
    world.kill(two)
    world.kill(one)
    other = world.worker(capacity=2)
    late = world.sender()
    world.advance(SECOND)
    late.submit(payload=b"young")
    late.submit(payload=b"running")
    sender.submit(payload=b"urgent", priority=9)
    world.settle()
    other.end()
    world.settle()
    spare = world.worker()
    world.settle()
    world.kill(other)
    world.settle()
    assert [job.payload for job in spare.started] == [b"urgent"]


def test_a_worker_that_comes_gets_what_waits(world):
    world.manager()
    sender = world.sender()
    request = sender.submit()
    world.advance(3 * SECOND)
    worker = world.worker()
    world.settle()
    assert list(worker.jobs) == [key_of(sender, request)]


def test_a_task_that_meets_only_dying_workers_is_not_buried(world):
    """It ran once; the others were dead when it came to them, but nobody knew."""
    manager, sender = world.manager(), world.sender()
    workers = [world.worker() for _ in range(6)]
    world.settle()
    request = sender.submit()
    world.settle()
    (first,) = [worker for worker in workers if worker.jobs]
    for worker in workers:
        world.freeze(worker)
    for worker in sorted(workers, key=lambda worker: worker is not first):
        world.kill(worker)
        world.advance(10 * MILLISECOND)
    survivor = world.worker()
    world.advance(SECOND)
    assert [job.counter for job in survivor.started] == [request]
    assert not manager.role.state.paused_at
    survivor.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"
    check_quiet(world)


def test_a_task_that_kills_its_workers_is_buried_with_the_reason(world):
    world.manager()
    sender = world.sender()
    world.advance(SECOND)
    request = sender.submit(max_attempts=2)
    for number in (1, 2):
        worker = world.worker()
        world.settle()
        assert list(worker.jobs) == [key_of(sender, request, number)]
        world.advance(60 * MILLISECOND)
        world.kill(worker)
        world.settle()
    outcome = sender.resolved[request]
    assert outcome.status is Status.BURIED
    assert outcome.payload == b"attempt 2, the last of 2: the worker left"
    assert outcome.number == 2
    world.advance(SECOND)
    check_quiet(world)


@pytest.mark.parametrize("max_attempts", [1, 2, 3, 7])
def test_so_is_one_that_kills_them_at_once(world, max_attempts):
    world.manager()
    sender = world.sender()
    world.advance(SECOND)
    request = sender.submit(max_attempts=max_attempts)
    started = 0
    while request not in sender.resolved:
        worker = world.worker()
        world.settle()
        while not worker.jobs:
            world.advance(10 * MILLISECOND)
        world.kill(worker)
        world.settle()
        started += len(worker.started)
    assert started == max_attempts
    assert sender.resolved[request].status is Status.BURIED
    world.advance(SECOND)
    check_quiet(world)


def test_attempts_are_three_where_a_task_does_not_say(world):
    world.manager()
    sender = world.sender()
    world.advance(SECOND)
    request = sender.submit()
    for _ in range(3):
        assert request not in sender.resolved
        worker = world.worker()
        world.advance(300 * MILLISECOND)
        world.kill(worker)
        world.settle()
    assert sender.resolved[request].status is Status.BURIED


def test_an_exception_is_final(cluster):
    world, _, one, two, sender = cluster
    request = sender.submit()
    world.settle()
    one.end(b"E", status=Status.FAILED)
    world.settle()
    assert sender.resolved[request].status is Status.FAILED
    assert len(two.started) == 0


def test_departure_counts_only_for_the_current_session(cluster):
    world, manager, one, two, sender = cluster
    sender.submit()
    world.settle()
    world.swap(one)
    assert manager.noted(NoteName.WORKER_LOST) == []
    assert two.jobs == {}
    one.end(b"v")
    world.settle()
    assert sender.resolved[1].payload == b"v"


# --- a worker reconnects --------------------------------------------------------------------------


def test_a_worker_that_reconnects_claims_what_it_holds(world):
    manager, sender = world.manager(), world.sender()
    worker = world.worker()
    world.advance(SECOND)
    request = sender.submit()
    world.settle()
    world.swap(worker)
    assert [claim.task.counter for claim in worker.said(Claim)] == [request]
    assert counts(manager).reassigned == 0
    worker.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"
    assert len(worker.started) == 1
    check_quiet(world)


def test_what_a_reconnected_worker_does_not_claim_is_given_back_without_counting(world):
    manager, sender, worker = world.manager(), world.sender(), world.worker()
    world.advance(SECOND)
    world.fate = lambda receiver, event: () if receiver is worker else (0,)
    request = sender.submit(max_attempts=1)
    world.settle()
    assert worker.jobs == {}
    world.fate = lambda receiver, event: (0,)
    world.swap(worker)
    assert list(worker.jobs) == [key_of(sender, request, 2)]
    assert manager.role.queue.task(*key_of(sender, request)[:2]).strikes == 0


def test_outcomes_that_were_not_receipted_are_said_again_on_the_new_link(world):
    _, sender, worker = world.manager(), world.sender(), world.worker()
    world.advance(SECOND)
    request = sender.submit()
    world.settle()
    world.disconnect(worker)
    worker.end(b"v")
    world.settle()
    world.connect(worker)
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"
    assert len(worker.started) == 1
    check_quiet(world)


def test_a_success_of_a_worker_that_is_not_welcome_yet_counts_for_manager_and_caller(cluster):
    world, manager, one, two, sender = cluster
    request = sender.submit()
    world.settle()
    manager_of_old = one.role.state.uplink.link
    assert manager_of_old.peer == instance_of(manager)
    world.freeze(one)
    world.advance(11 * SECOND)
    assert list(two.jobs) == [key_of(sender, request, 2)]
    world.freeze(manager)
    world.thaw(one)
    one.end(b"late but first")
    world.settle()
    world.thaw(manager)
    world.settle()
    assert sender.resolved[request].payload == b"late but first"
    assert counts(manager).done == 1
    assert [c.counter for c in two.cancelled] == [request]


# --- the lease ------------------------------------------------------------------------------------


def test_an_idle_worker_keeps_its_lease(cluster):
    world, manager, _, _, _ = cluster
    world.advance(300 * SECOND)
    assert manager.noted(NoteName.WORKER_LOST) == []


def test_a_busy_worker_keeps_its_lease(cluster):
    world, manager, one, _, sender = cluster
    sender.submit()
    world.advance(300 * SECOND)
    assert manager.noted(NoteName.WORKER_LOST) == []
    assert len(one.jobs) == 1


def test_a_frozen_worker_loses_its_attempts_with_its_lease(cluster):
    world, manager, one, two, sender = cluster
    request = sender.submit()
    world.settle()
    world.freeze(one)
    world.advance(9 * SECOND)
    assert two.jobs == {}
    world.advance(1100 * MILLISECOND)
    assert list(two.jobs) == [key_of(sender, request, 2)]
    assert [note["loss"] for note in manager.noted(NoteName.WORKER_LOST)] == [
        "the worker was silent for its whole lease"
    ]


@pytest.mark.parametrize("quicker", [1, 2])
def test_the_first_terminal_message_in_the_order_wins_for_manager_and_caller_alike(cluster, quicker):
    world, manager, one, two, sender = cluster
    request = sender.submit()
    world.settle()
    world.freeze(one)
    world.advance(11 * SECOND)
    world.thaw(one)
    world.advance(SECOND)
    ends = [(one, b"from 1"), (two, b"from 2")]
    for worker, payload in ends if quicker == 1 else reversed(ends):
        worker.end(payload)
    world.settle()
    assert sender.resolved[request].payload == b"from %d" % quicker
    assert counts(manager).done == 1
    world.advance(SECOND)
    check_quiet(world)


def test_a_late_success_cancels_the_attempt_that_replaced_it(cluster):
    world, _, one, two, sender = cluster
    request = sender.submit()
    world.settle()
    world.freeze(one)
    world.advance(11 * SECOND)
    world.thaw(one)
    world.advance(SECOND)
    one.end(b"v")
    world.settle()
    assert [(c.counter, c.number) for c in two.cancelled] == [(request, 2)]
    two.end(status=Status.CANCELLED)
    world.advance(SECOND)
    check_quiet(world)


def test_a_late_failure_is_ignored(cluster):
    world, manager, one, two, sender = cluster
    request = sender.submit()
    world.settle()
    world.freeze(one)
    world.advance(11 * SECOND)
    world.thaw(one)
    world.advance(SECOND)
    one.end(b"E", status=Status.FAILED)
    world.settle()
    assert request not in sender.resolved
    assert manager.noted(NoteName.IGNORED)
    two.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"
    check_quiet(world)


def test_a_worker_that_thaws_takes_part_again(cluster):
    world, _, one, two, sender = cluster
    world.freeze(one)
    world.advance(11 * SECOND)
    world.thaw(one)
    world.advance(SECOND)
    sender.submit()
    sender.submit()
    world.settle()
    assert len(one.jobs) == len(two.jobs) == 1


# --- run limits and hung jobs ---------------------------------------------------------------------


def test_past_its_run_limit_a_task_goes_to_another_worker_and_the_slot_stays_taken(cluster):
    world, _, one, two, sender = cluster
    request = sender.submit(run_limit=SECOND)
    world.advance(1100 * MILLISECOND)
    assert list(two.jobs) == [key_of(sender, request, 2)]
    assert [(c.counter, c.number) for c in one.cancelled] == [(request, 1)]
    other = sender.submit()
    world.settle()
    assert list(one.jobs) == [key_of(sender, request)], "its slot stays taken"
    one.end(status=Status.CANCELLED)
    world.settle()
    assert one.said(JobOver)
    assert list(one.jobs) == [key_of(sender, other)]
    one.end()
    two.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"
    check_quiet(world)


def test_a_job_that_hangs_everywhere_is_buried_with_the_reason(cluster):
    world, _, one, two, sender = cluster
    request = sender.submit(run_limit=SECOND, max_attempts=2)
    world.advance(3 * SECOND)
    outcome = sender.resolved[request]
    assert outcome.status is Status.BURIED
    assert outcome.payload == b"attempt 2, the last of 2: it ran longer than its limit of 1 s"
    for worker in (one, two):
        worker.end(status=Status.CANCELLED)
    world.advance(SECOND)
    check_quiet(world)


def test_a_success_after_the_run_limit_counts_if_it_is_first(cluster):
    world, _, one, two, sender = cluster
    request = sender.submit(run_limit=SECOND)
    world.advance(1100 * MILLISECOND)
    one.end(b"could not be cancelled")
    world.settle()
    assert sender.resolved[request].payload == b"could not be cancelled"
    assert len(two.cancelled) == 1
    two.end(status=Status.CANCELLED)
    world.advance(SECOND)
    check_quiet(world)


def test_a_run_limit_ends_with_its_attempt(cluster):
    world, manager, one, two, sender = cluster
    sender.submit(run_limit=5 * SECOND)
    world.advance(4 * SECOND)
    world.kill(one)
    world.advance(4 * SECOND)
    assert len(two.jobs) == 1
    assert two.cancelled == []
    two.end()
    world.advance(SECOND)
    assert manager.role.state.limit_at == {}
    check_quiet(world)


def test_a_run_limit_of_a_task_that_waits_again_does_no_harm(world):
    manager, sender, worker = world.manager(), world.sender(), world.worker()
    world.advance(SECOND)
    sender.submit(run_limit=SECOND)
    world.settle()
    world.kill(worker)
    world.advance(2 * SECOND)
    late = world.worker()
    world.settle()
    late.end()
    world.advance(SECOND)
    assert counts(manager).done == 1
    assert sender.resolved[1].number == 2
    check_quiet(world)


def test_a_worker_whose_slots_are_all_hung_exits_1(world):
    world.manager()
    worker, sender = world.worker(capacity=2), world.sender()
    world.advance(SECOND)
    sender.submit(run_limit=SECOND)
    sender.submit(run_limit=2 * SECOND)
    world.advance(2 * SECOND + 5 * SECOND)
    assert worker.exited is None
    world.advance(100 * MILLISECOND)
    assert worker.exited.status == 1
    assert worker.exited.reason == "all 2 slots are held by jobs that do not stop"
    assert worker.noted(NoteName.JOB_HUNG)
    assert worker.role.deadline is None


def test_a_worker_with_one_slot_left_goes_on(world):
    world.manager()
    worker, sender = world.worker(capacity=2), world.sender()
    world.advance(SECOND)
    sender.submit(run_limit=SECOND, max_attempts=1)
    world.advance(60 * SECOND)
    assert worker.exited is None
    request = sender.submit()
    world.settle()
    worker.end(b"v", key=key_of(sender, request))
    world.settle()
    assert sender.resolved[request].payload == b"v"


def test_a_job_that_its_worker_stopped_of_itself_counts_as_an_attempt(cluster):
    world, _, one, two, sender = cluster
    request = sender.submit(max_attempts=2)
    world.settle()
    one.end(status=Status.CANCELLED)
    world.settle()
    assert list(two.jobs) == [key_of(sender, request, 2)]
    two.end(status=Status.CANCELLED)
    world.settle()
    assert sender.resolved[request].payload == b"attempt 2, the last of 2: its job was stopped"
    world.advance(SECOND)
    check_quiet(world)


# --- draining -------------------------------------------------------------------------------------


def test_a_worker_that_is_told_to_stop_ends_its_jobs_and_takes_no_more(cluster):
    world, _, one, two, sender = cluster
    request = sender.submit()
    world.settle()
    one.stop()
    world.settle()
    others = [sender.submit(), sender.submit()]
    world.settle()
    assert len(one.jobs) == len(two.jobs) == 1
    world.advance(SECOND)
    assert one.exited is None
    one.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"
    assert (one.exited.status, one.exited.reason) == (0, "drained")
    assert one.session not in world.groups["PQ_q"]
    for _ in others:
        two.end()
        world.settle()
    world.advance(SECOND)
    assert all(sender.resolved[other].status is Status.DONE for other in others)
    check_quiet(world)


def test_an_idle_worker_that_is_told_to_stop_leaves_when_its_manager_knows(cluster):
    world, manager, one, _, _ = cluster
    one.stop()
    world.settle()
    assert one.exited is None
    world.advance(60 * MILLISECOND)
    assert one.exited.status == 0
    assert one.role.deadline is None
    assert manager.role.queue.state.workers.keys() == {102}


def test_an_idle_worker_that_has_no_manager_leaves_at_once(world):
    worker = world.worker()
    world.advance(SECOND)
    worker.stop()
    assert worker.exited.status == 0


def test_an_assignment_that_crosses_the_stop_is_given_back_without_counting(cluster):
    world, _, one, two, sender = cluster
    sender.submit()
    world.settle()
    world.freeze(two)
    request = sender.submit(max_attempts=1)
    two.role.handle(StopRequested(), world.time)  # it has not said so yet
    world.settle()
    world.thaw(two)
    world.settle()
    assert two.said(HandBack)
    assert two.started == []
    one.end()
    world.settle()
    assert list(one.jobs) == [key_of(sender, request, 2)]


def test_told_twice_to_stop_a_worker_gives_back_what_runs_without_counting(cluster):
    world, manager, one, two, sender = cluster
    request = sender.submit(max_attempts=1)
    world.settle()
    one.stop()
    one.stop()
    assert [c.counter for c in one.cancelled] == [request]
    world.settle()
    assert list(two.jobs) == [key_of(sender, request, 2)]
    assert one.said(HandBack)
    world.advance(SECOND)
    assert (one.exited.status, one.exited.reason) == (1, "told to stop at once")
    assert counts(manager).buried == 0
    two.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"


def test_what_has_not_ended_when_the_drain_times_out_is_given_back_without_counting(cluster):
    world, manager, one, two, sender = cluster
    request = sender.submit(max_attempts=1)
    world.settle()
    one.stop()
    world.advance(24 * SECOND)
    assert two.jobs == {}
    assert one.exited is None
    world.advance(2 * SECOND)
    assert list(two.jobs) == [key_of(sender, request, 2)]
    assert one.exited.status == 0
    assert counts(manager).buried == 0
    assert manager.noted(NoteName.WORKER_LOST) == []
    assert len(manager.noted(NoteName.WORKER_LEFT)) == 1
    two.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"


def test_a_stopping_worker_waits_for_the_receipt_of_its_last_words_but_not_for_ever(cluster):
    world, manager, one, _, sender = cluster
    sender.submit()
    world.settle()
    one.stop()
    world.settle()
    world.freeze(manager)
    one.end()
    world.advance(1900 * MILLISECOND)
    assert one.exited is None
    world.advance(200 * MILLISECOND)
    assert one.exited.status == 0


def test_a_draining_worker_that_reconnects_says_so_again(cluster):
    world, _, one, two, sender = cluster
    request = sender.submit()
    world.settle()
    one.stop()
    world.settle()
    world.reconnect(one)
    world.advance(SECOND)
    sender.submit()
    sender.submit()
    world.settle()
    assert len(one.started) == 1
    one.end(b"v", key=key_of(sender, request))
    world.settle()
    assert sender.resolved[request].payload == b"v"
    world.advance(SECOND)
    assert one.exited.status == 0
    assert len(two.jobs) == 1


# --- misfits --------------------------------------------------------------------------------------


def test_more_than_its_capacity_is_given_back(cluster):
    world, manager, one, _, sender = cluster
    request = sender.submit()
    world.settle()
    extra = Assign(instance_of(sender), 5, 0, 0, "", one.role.state.jobs[key_of(sender, request)].assign.task)
    peer = manager.role.state.peers.workers[instance_of(one)]
    manager.role.peers.say(instance_of(one), peer, extra)
    world.queue.append(("send", manager.session, manager.role.flush(world.time)[0]))
    world.settle()
    assert [h.number for h in one.said(HandBack)] == [5]
    assert len(one.jobs) == 1


def test_an_assignment_that_comes_twice_is_run_once(cluster):
    world, manager, one, _, sender = cluster
    request = sender.submit()
    world.settle()
    again = one.role.state.jobs[key_of(sender, request)].assign
    peer = manager.role.state.peers.workers[instance_of(one)]
    manager.role.peers.say(instance_of(one), peer, again)
    world.queue.append(("send", manager.session, manager.role.flush(world.time)[0]))
    world.settle()
    assert len(one.started) == 1


def test_a_worker_out_of_range_is_not_admitted(world):
    manager = world.manager()
    world.settle()
    greedy = Policy(capacity_limit=10**6)
    tolerant = World(greedy)
    worker = tolerant.worker(capacity=10**6)
    world.add("w9", worker.role)
    world.advance(SECOND)
    assert manager.role.queue.state.workers == {}
    assert manager.noted(NoteName.IGNORED)


def test_a_worker_that_comes_back_out_of_range_keeps_its_old_link(cluster):
    world, manager, one, _, sender = cluster
    one.role.state.capacity = 10**6
    world.connect(one)
    world.advance(SECOND)
    assert manager.role.queue.state.workers[instance_of(one)].capacity == 1
    assert one.said(WorkerHello)[-1].capacity == 10**6
    assert sender.submit()

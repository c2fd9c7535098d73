"""Managers that meet, restart, are killed, frozen, replaced or cut off."""

from __future__ import annotations

import pytest

from spreadq_core.effects import Join, Report
from spreadq_core.events import Received
from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.link import Speaker
from spreadq_core.messages import Claim, Status, StatusRequest, Submit, TookOver, Who
from spreadq_core.notes import NoteName
from spreadq_core.policy import DEFAULT
from spreadq_core.primacy import Stage
from tests.core.invariants import check_quiet
from tests.core.world import instance_of, key_of


@pytest.fixture
def cluster(world):
    """A manager, a worker and a sender who know each other."""
    manager, worker, sender = world.manager(), world.worker(), world.sender()
    world.advance(SECOND)
    return world, manager, worker, sender


def epoch(manager):
    return manager.role.state.speaker.epoch


def stop_and_start(world, manager, **options):
    """A restart as by SIGTERM: what the manager knew goes to the next one."""
    manager.stop()
    image = manager.role.image()
    world.kill(manager)
    world.settle()
    return world.manager(image=image, **options)


# --- taking over ----------------------------------------------------------------------------------


def test_a_manager_that_is_alone_takes_over_and_keeps_its_epoch_before_it_says_so(world):
    said = []
    manager = world.manager(connect=False)
    world.trace = lambda node, what: said.append((list(manager.epochs), type(what).__name__))
    world.connect(manager)
    world.settle()
    assert manager.role.primacy.manages
    assert manager.epochs == [1]
    assert ([], "Send") not in said
    assert manager.said(TookOver)


def test_a_manager_joins_the_presence_groups_last(world):
    manager = world.manager()
    joined = []
    world.trace = lambda node, event: joined.append(event.group) if hasattr(event, "members") else None
    world.settle()
    assert joined == ["XQ_q", "MQ_q", "WQ_q", "CQ_q", "PQ_q", "SQ_q"]
    assert manager.role.primacy.manages


def test_an_epoch_is_one_above_the_highest_that_was_kept(world):
    manager = world.manager(epoch=7)
    world.settle()
    assert manager.epochs == [8]


def test_peers_that_were_there_first_are_welcome(world):
    worker, sender = world.worker(), world.sender()
    request = sender.submit()
    world.advance(SECOND)
    world.manager()
    world.settle()
    assert list(worker.jobs) == [key_of(sender, request)]


# --- a second manager -----------------------------------------------------------------------------


def test_a_second_manager_exits_4_and_says_who_manages(cluster):
    world, first, worker, sender = cluster
    second = world.manager()
    world.settle()
    assert second.said(Who)
    assert second.exited.status == 4
    assert second.exited.reason == (
        "queue q is managed by m1 (process 1 on host) already; stop that one first"
    )
    assert first.exited is None
    request = sender.submit()
    world.settle()
    worker.end(b"v")
    world.settle()
    assert sender.resolved[request].payload == b"v"
    assert second.role.deadline is None


def test_of_two_that_start_together_one_manages(world):
    first, second = world.manager(), world.manager()
    world.advance(5 * SECOND)
    assert first.role.primacy.manages
    assert second.exited.status == 4


def test_a_newcomer_takes_over_when_nobody_answers_for_2_s(cluster):
    world, first, worker, sender = cluster
    world.freeze(first)
    second = world.manager()
    world.advance(1900 * MILLISECOND)
    assert second.role.primacy.stage is Stage.ASKING
    world.advance(200 * MILLISECOND)
    assert second.role.primacy.manages
    assert epoch(second) == 1002
    request = sender.submit()
    world.settle()
    worker.end(b"v")
    world.settle()
    assert sender.resolved[request].payload == b"v"


def test_a_newcomer_takes_over_at_once_when_the_other_leaves(cluster):
    world, first, _, _ = cluster
    world.freeze(first)
    second = world.manager()
    world.advance(SECOND)
    world.kill(first)
    world.settle()
    assert second.role.primacy.manages


def test_a_frozen_primary_that_was_replaced_exits_75_when_it_thaws(cluster):
    world, first, _, _ = cluster
    world.freeze(first)
    second = world.manager()
    world.advance(3 * SECOND)
    world.thaw(first)
    world.settle()
    assert first.exited.status == 75
    assert first.exited.reason == "m2 (process 1 on host) has taken queue q over"
    assert first.noted(NoteName.LOST_PRIMACY)
    assert second.exited is None


def test_one_from_elsewhere_leaves_the_epoch_of_a_frozen_one_behind(cluster):
    world, first, worker, sender = cluster
    world.freeze(first)
    second = world.manager(epoch=0)  # its state directory is gone
    world.advance(3 * SECOND)
    assert (epoch(first), epoch(second)) == (1, 1001)
    world.thaw(first)
    world.advance(3 * SECOND)
    assert first.exited.status == 75
    request = sender.submit()
    world.settle()
    worker.end()
    world.settle()
    assert request in sender.resolved


def test_a_lower_one_that_took_over_is_told_and_exits_75(cluster):
    world, first, worker, sender = cluster
    first.role.state.speaker.epoch = 5_000  # above the second's
    world.freeze(first)
    second = world.manager(epoch=0)
    world.advance(3 * SECOND)
    world.thaw(first)
    world.advance(3 * SECOND)
    assert second.exited.status == 75
    assert first.exited is None
    request = sender.submit()
    world.settle()
    worker.end()
    world.settle()
    assert request in sender.resolved


def test_who_obeyed_a_manager_that_is_gone_is_called_by_the_one_that_is_left(cluster):
    """That one was frozen, and heard links being opened to the other."""
    world, first, worker, sender = cluster
    first.role.state.speaker.epoch = 5_000  # above the second's
    world.freeze(first)
    second = world.manager(epoch=0)
    world.advance(3 * SECOND)
    request = sender.submit()
    world.advance(SECOND)
    assert sender.role.state.uplink.link.peer == instance_of(second)
    world.kill(second)
    world.settle()
    world.thaw(first)
    world.advance(SECOND)
    assert sender.role.state.uplink.link.peer == instance_of(first)
    assert worker.role.state.uplink.link.peer == instance_of(first)
    worker.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"
    check_quiet(world)


# --- epochs ---------------------------------------------------------------------------------------


def test_a_stale_manager_is_ignored(cluster):
    world, first, worker, sender = cluster
    sender.submit()
    world.settle()
    world.freeze(first)
    second = world.manager()
    world.advance(3 * SECOND)
    world.queue += [("send", first.session, send) for send in first.sent]
    before = [node.role.state.uplink.link for node in (worker, sender)]
    world.settle()
    assert worker.noted(NoteName.STALE_EPOCH)
    assert sender.noted(NoteName.STALE_EPOCH)
    assert [node.role.state.uplink.link for node in (worker, sender)] == before
    assert len(worker.started) == 1
    assert second.role.primacy.manages


def test_a_lone_manager_that_hears_of_a_higher_epoch_takes_one_more(world):
    old = world.manager()
    worker, sender = world.worker(), world.sender()
    for _ in range(3):
        world.advance(SECOND)
        world.kill(old)
        old = world.manager()
    world.advance(SECOND)
    assert epoch(old) == 4
    world.kill(old)
    fresh = world.manager(epoch=0)  # its state directory is gone
    world.advance(5 * SECOND)
    assert epoch(fresh) == 5
    assert fresh.epochs == [1, 5]
    request = sender.submit()
    world.settle()
    worker.end()
    world.settle()
    assert request in sender.resolved


def test_a_manager_that_is_not_alone_outbids_only_who_does_not_answer(cluster):
    world, first, worker, _ = cluster
    world.manager()
    world.settle()
    worker.role.state.uplink.speaker.epoch = 9
    world.reconnect(worker)
    world.advance(1900 * MILLISECOND)
    assert first.epochs == [1], "the other one might be who is meant"
    world.advance(200 * MILLISECOND)
    assert first.epochs == [1, 10]
    assert worker.role.state.renewal


# --- a manager's own connection -------------------------------------------------------------------


def test_a_managers_own_reconnect_infers_no_departures(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.reconnect(manager)
    world.advance(SECOND)
    assert manager.noted(NoteName.WORKER_LOST) == []
    assert manager.epochs == [1]
    assert worker.said(Claim)
    worker.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"
    assert len(worker.started) == 1
    check_quiet(world)


def test_who_left_while_the_manager_was_away_is_found_by_its_lease(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.disconnect(manager)
    world.kill(worker)
    world.advance(SECOND)
    other = world.worker()
    world.connect(manager)
    world.advance(9 * SECOND)
    assert other.jobs == {}
    world.advance(2 * SECOND)
    assert list(other.jobs) == [key_of(sender, request, 2)]


def test_a_sender_that_left_while_the_manager_was_away_is_forgotten(cluster):
    world, manager, _, sender = cluster
    world.disconnect(manager)
    world.kill(sender)
    world.advance(SECOND)
    world.connect(manager)
    world.advance(70 * SECOND)
    assert manager.role.state.peers.senders == {}
    assert manager.role.queue.state.senders == {}


def test_a_disconnected_manager_wants_no_ticks_whatever_is_due(cluster):
    world, manager, worker, sender = cluster
    sender.submit(expiry=SECOND)
    sender.submit(run_limit=SECOND)
    world.settle()
    worker.end(b"E", status=Status.FAILED)
    world.disconnect(manager)
    world.advance(60 * SECOND)
    assert manager.role.deadline is None
    world.connect(manager)
    world.advance(SECOND)
    assert manager.role.primacy.manages


def test_a_manager_that_meets_another_after_its_reconnect_and_was_replaced_exits_75(cluster):
    world, first, _, _ = cluster
    world.disconnect(first)
    world.settle()
    second = world.manager()
    world.settle()
    assert second.role.primacy.manages
    world.connect(first)
    world.settle()
    assert first.exited.status == 75
    assert second.exited is None


# --- frozen ---------------------------------------------------------------------------------------


def test_a_manager_that_was_frozen_does_not_expire_everybody(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.advance(SECOND)
    world.freeze(manager)
    world.advance(60 * SECOND)
    manager.held.clear()  # the daemon's buffer for us: nothing of it was read yet
    world.thaw(manager)
    world.advance(SECOND)
    assert manager.noted(NoteName.LEASE_EXTENDED)
    assert manager.noted(NoteName.WORKER_LOST) == []
    world.advance(10 * SECOND)
    assert manager.noted(NoteName.WORKER_LOST) == []
    worker.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"


def test_what_a_frozen_manager_received_is_heard_before_its_leases_are_looked_at(cluster):
    world, manager, _, _ = cluster
    world.freeze(manager)
    world.advance(60 * SECOND)
    world.thaw(manager)
    world.advance(SECOND)
    assert manager.noted(NoteName.WORKER_LOST) == manager.noted(NoteName.LEASE_EXTENDED) == []


def test_a_tick_that_is_a_little_late_ends_leases(cluster):
    world, manager, worker, _ = cluster
    world.freeze(worker)
    while not manager.noted(NoteName.WORKER_LOST):
        world.time = manager.alarm_at + DEFAULT.tick_slack
        manager.ring()
    assert manager.noted(NoteName.LEASE_EXTENDED) == []


# --- restarts -------------------------------------------------------------------------------------


def test_a_manager_that_is_told_to_stop_exits_0(cluster):
    _, manager, _, _ = cluster
    manager.stop()
    assert (manager.exited.status, manager.exited.reason) == (0, "stopped")
    assert manager.role.deadline is None


def test_nothing_accepted_is_lost_over_a_restart_with_an_image(cluster):
    world, manager, worker, sender = cluster
    running = sender.submit(payload=b"running")
    waiting = sender.submit(payload=b"waiting")
    oneway = sender.submit(payload=b"one-way", reply=False, confirm=True)
    world.settle()
    again = stop_and_start(world, manager)
    world.advance(SECOND)
    assert again.epochs == [2]
    for _ in range(3):
        worker.end(b"v")
        world.advance(SECOND)
    assert [job.payload for job in worker.started] == [b"running", b"waiting", b"one-way"]
    assert sender.resolved.keys() == {running, waiting}
    assert again.role.queue.state.counts.done == 3
    assert oneway in sender.confirmed
    check_quiet(world)


def test_what_is_not_claimed_after_a_restart_with_an_image_goes_again_when_the_lease_is_over(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.advance(SECOND)
    manager.stop()
    image = manager.role.image()
    world.kill(manager)
    world.kill(worker)
    world.settle()
    other = world.worker()
    world.manager(image=image)
    world.advance(9 * SECOND)
    assert other.jobs == {}
    world.advance(2 * SECOND)
    assert list(other.jobs) == [key_of(sender, request, 2)], "numbering goes on"
    other.end()
    world.advance(SECOND)
    check_quiet(world)


def test_what_waited_is_assigned_at_once_after_a_restart_with_an_image(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    request = sender.submit()
    world.settle()
    other = world.worker(("g",))
    world.settle()
    world.kill(other)
    stop_and_start(world, manager)
    fresh = world.worker()
    world.settle()
    assert list(fresh.jobs) == [key_of(sender, request)]
    assert len(worker.jobs) == 1


def test_new_tasks_of_while_the_manager_restarted_with_an_image_are_not_held(cluster):
    world, manager, _, sender = cluster
    manager.stop()
    image = manager.role.image()
    world.kill(manager)
    request = sender.submit()
    world.advance(300 * MILLISECOND)
    world.worker()
    world.manager(image=image)
    world.settle()
    (job,) = [job for node in world.nodes for job in node.started]
    assert job.counter == request


def test_expiries_begin_anew_after_a_restart_with_an_image(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    sender.submit(reply=False, expiry=30 * SECOND, confirm=True)
    waiting = sender.submit(reply=False, expiry=5 * SECOND, confirm=True)
    world.settle()
    again = stop_and_start(world, manager)
    world.advance(SECOND)
    worker.end()
    world.settle()
    assert worker.started[1].expires_in == 29 * SECOND
    world.advance(6 * SECOND)
    assert again.role.queue.state.counts.expired == 1
    worker.end()
    world.advance(SECOND)
    assert waiting not in [job.counter for job in worker.started]
    check_quiet(world)


def test_verdicts_that_were_on_their_way_are_sent_by_the_next_manager(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.fate = lambda receiver, event: () if event.sender == manager.session else (0,)
    worker.end(b"E", status=Status.FAILED)
    world.settle()
    world.fate = lambda receiver, event: (0,)
    again = stop_and_start(world, manager)
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"E"
    assert again.role.queue.state.counts.failed == 1
    check_quiet(world)


def test_outcomes_that_were_kept_are_sent_by_the_next_manager(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.advance(SECOND)
    world.disconnect(sender)
    world.settle()
    worker.end(b"v")
    world.settle()
    stop_and_start(world, manager)
    world.advance(SECOND)
    world.connect(sender)
    world.settle()
    assert sender.resolved[request].payload == b"v"
    assert len(worker.started) == 1
    world.advance(SECOND)
    check_quiet(world)


# --- killed without memory ------------------------------------------------------------------------


def test_after_a_manager_was_killed_calls_come_again_and_claims_are_adopted(cluster):
    world, manager, worker, sender = cluster
    running, waiting = sender.submit(payload=b"running"), sender.submit(payload=b"waiting")
    world.settle()
    world.kill(manager)
    world.advance(SECOND)
    again = world.manager()
    world.advance(SECOND)
    assert all(submit.again for submit in sender.said(Submit)[-2:])
    assert list(worker.jobs) == [key_of(sender, running)]
    worker.end(b"1")
    world.advance(3 * SECOND)
    worker.end(b"2")
    world.advance(SECOND)
    assert sender.resolved[running].payload == b"1"
    assert sender.resolved[waiting].payload == b"2"
    assert [job.payload for job in worker.started] == [b"running", b"waiting"]
    assert again.role.queue.state.counts.done == 2
    check_quiet(world)


def test_a_task_is_not_started_twice_when_its_worker_claims_within_the_grace(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    world.settle()
    world.kill(manager)
    world.freeze(worker)  # it is slow to claim
    idle = world.worker()
    world.advance(SECOND)
    world.manager()
    world.advance(1500 * MILLISECOND)
    assert idle.jobs == {}
    world.thaw(worker)
    world.advance(5 * SECOND)
    assert idle.jobs == {}
    worker.end(b"v")
    world.settle()
    assert sender.resolved[1].payload == b"v"


def test_a_task_that_nobody_claims_within_the_grace_is_run(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.kill(manager)
    world.kill(worker)
    world.advance(SECOND)
    idle = world.worker()
    world.manager()
    world.advance(1900 * MILLISECOND)
    assert idle.jobs == {}
    world.advance(200 * MILLISECOND)
    assert list(idle.jobs) == [key_of(sender, request)]


def test_new_tasks_are_not_held_after_a_take_over(cluster):
    world, manager, worker, sender = cluster
    world.kill(manager)
    world.advance(SECOND)
    world.manager()
    world.settle()
    request = sender.submit()
    world.settle()
    assert list(worker.jobs) == [key_of(sender, request)]


def test_a_claim_that_comes_after_the_task_started_elsewhere_is_recorded_only(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.kill(manager)
    world.freeze(worker)
    idle = world.worker()
    world.advance(SECOND)
    again = world.manager()
    world.advance(3 * SECOND)
    assert list(idle.jobs) == [key_of(sender, request)]
    world.thaw(worker)
    world.advance(SECOND)
    task = again.role.queue.task(*key_of(sender, request)[:2])
    assert task.live == (1, instance_of(idle))
    assert (1, instance_of(worker)) in task.attempts
    worker.end(b"the success of a recorded attempt counts")
    world.settle()
    assert sender.resolved[request].payload == b"the success of a recorded attempt counts"
    assert len(idle.cancelled) == 1


def test_a_claim_that_comes_after_the_grace_takes_a_waiting_task(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    world.settle()
    world.kill(manager)
    world.freeze(worker)
    world.advance(SECOND)
    again = world.manager()
    world.advance(3 * SECOND)
    world.thaw(worker)
    world.advance(SECOND)
    assert len(worker.started) == 1
    worker.end(b"v")
    world.advance(SECOND)
    assert again.role.queue.state.counts.done == 1
    check_quiet(world)


def test_a_running_one_way_task_goes_on_under_a_manager_that_never_heard_of_it(cluster):
    world, manager, worker, sender = cluster
    sender.submit(reply=False, confirm=True, max_attempts=2)
    world.settle()
    world.kill(manager)
    world.kill(sender)
    world.advance(SECOND)
    again = world.manager()
    world.advance(SECOND)
    other = world.worker()
    world.settle()
    world.kill(worker)
    world.settle()
    assert [job.number for job in other.jobs.values()] == [2]
    other.end()
    world.advance(70 * SECOND)
    assert again.role.queue.state.senders == {}, "a sender that never comes is forgotten"
    check_quiet(world)


def test_the_outcome_for_a_caller_that_never_comes_back_is_forgotten(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    world.settle()
    world.kill(manager)
    world.kill(sender)
    world.advance(SECOND)
    again = world.manager()
    world.advance(SECOND)
    worker.end(b"v")
    world.settle()
    assert again.role.queue.state.outcome_bytes
    world.advance(70 * SECOND)
    assert again.role.queue.state.senders == {}
    check_quiet(world)


def test_the_run_limit_of_a_claimed_attempt_begins_anew(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit(run_limit=5 * SECOND)
    world.advance(3 * SECOND)
    world.kill(manager)
    world.manager()
    other = world.worker()
    world.advance(4 * SECOND)
    assert other.jobs == {}
    world.advance(2 * SECOND)
    assert list(other.jobs) == [key_of(sender, request, 2)]
    assert len(worker.cancelled) == 1


def test_a_claim_of_what_its_caller_closed_is_cancelled(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.kill(manager)
    sender.abandon(request)
    world.freeze(worker)  # the sender is first at the new manager
    world.advance(SECOND)
    world.manager()
    world.settle()
    world.thaw(worker)
    world.settle()
    assert [c.counter for c in worker.cancelled] == [request]
    worker.end(status=Status.CANCELLED)
    world.advance(SECOND)
    check_quiet(world)


def test_a_worker_whose_manager_is_gone_keeps_its_outcomes_for_the_next(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit(reply=False, confirm=True)
    world.settle()
    world.kill(manager)
    worker.end()
    world.advance(60 * SECOND)
    assert len(worker.role.state.jobs) == 1
    again = world.manager()
    world.advance(SECOND)
    assert again.role.queue.state.counts.done == 1
    assert worker.role.state.jobs == {}
    assert request in sender.confirmed


# --- partitions -----------------------------------------------------------------------------------


def test_after_a_partition_the_higher_of_two_managers_stays(cluster):
    world, first, worker, sender = cluster
    second = world.manager(connect=False)
    world.split(second)
    world.connect(second)
    world.settle()
    assert first.role.primacy.manages
    assert second.role.primacy.manages
    world.merge()
    world.advance(3 * SECOND)
    assert first.exited.status == 75
    assert second.exited is None
    request = sender.submit()
    world.settle()
    worker.end(b"v")
    world.settle()
    assert sender.resolved[request].payload == b"v"


def test_workers_on_the_other_side_of_a_partition_lose_their_attempts_at_once(cluster):
    world, manager, worker, sender = cluster
    other = world.worker()
    world.settle()
    request = sender.submit()
    world.settle()
    world.split(worker)
    world.settle()
    assert list(other.jobs) == [key_of(sender, request, 2)]
    world.merge()
    world.settle()
    assert worker.said(Claim)
    worker.end(b"from the other side")
    world.settle()
    assert sender.resolved[request].payload == b"from the other side"
    assert manager.role.queue.state.workers.keys() == {instance_of(worker), instance_of(other)}


def test_a_sender_on_the_other_side_of_a_long_partition_is_greeted_when_it_is_over(cluster):
    world, _, worker, sender = cluster
    request = sender.submit()
    world.advance(SECOND)
    world.split(sender)
    world.settle()
    worker.end(b"v")
    world.advance(120 * SECOND)
    world.merge()
    world.advance(3 * SECOND)
    if worker.jobs:  # its outcome was not kept so long
        worker.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[request].payload == b"v"


# --- senders that are away ------------------------------------------------------------------------


def test_a_departed_senders_outcomes_are_kept_for_60_s(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    world.advance(SECOND)
    world.kill(sender)
    worker.end(b"v")
    world.advance(59 * SECOND)
    assert manager.role.queue.state.outcome_bytes
    world.advance(2 * SECOND)
    assert manager.role.queue.state.senders == {}
    assert manager.role.state.peers.senders == {}
    check_quiet(world)


def test_a_departed_senders_tasks_are_done_nevertheless(cluster):
    world, manager, worker, sender = cluster
    for _ in range(3):
        sender.submit(reply=False, confirm=True)
    world.settle()
    world.kill(sender)
    world.advance(200 * SECOND)
    for _ in range(3):
        worker.end()
        world.settle()
    assert manager.role.queue.state.counts.done == 3
    world.advance(61 * SECOND)
    assert manager.role.queue.state.senders == {}
    check_quiet(world)


def test_a_sender_that_comes_back_too_late_is_told_that_its_outcome_is_gone(cluster):
    world, _, worker, sender = cluster
    done, running = sender.submit(), sender.submit()
    world.advance(SECOND)
    world.disconnect(sender)
    world.settle()
    worker.end(b"not fetched")
    world.advance(70 * SECOND)
    world.connect(sender)
    world.advance(SECOND)
    assert sender.resolved[done].status is Status.EXPIRED
    assert sender.resolved[done].payload == b"its outcome was not fetched in time"
    assert running not in sender.resolved
    worker.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[running].payload == b"v"
    check_quiet(world)


def test_a_sender_that_never_shows_up_in_its_group_is_forgotten_too(cluster):
    world, manager, _, _ = cluster
    shy = world.sender(connect=False)
    shy.performers[Join] = lambda effect: None
    world.connect(shy)
    world.advance(SECOND)
    assert instance_of(shy) in manager.role.state.peers.senders
    world.kill(shy)
    world.advance(61 * SECOND)
    assert instance_of(shy) not in manager.role.state.peers.senders
    assert instance_of(shy) not in manager.role.state.absent_at


# --- status ---------------------------------------------------------------------------------------


def ask(manager, asker="#asker#world"):
    send = Speaker("q", 77, 0).alone(("CQ_q",), [StatusRequest()])
    return manager.role.handle(Received(asker, send.groups, send.kind, send.body), manager.world.time)


def test_the_primary_reports_to_whoever_asks(cluster):
    _, manager, _, _ = cluster
    assert ask(manager) == [Report("#asker#world")]


def test_only_the_primary_reports(cluster):
    asking = cluster[0].manager()
    assert ask(asking) == []

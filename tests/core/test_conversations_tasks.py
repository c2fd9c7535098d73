"""A task's life between a sender, a manager and workers: acceptance, order, outcomes, ends."""

from __future__ import annotations

import pytest

from spreadq_core.codec import KIND, decode
from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.messages import (
    Accepted,
    Closed,
    Outcome,
    Refusal,
    Rejected,
    Response,
    Status,
    Submit,
    Unserved,
)
from spreadq_core.notes import NoteName
from spreadq_core.policy import Policy
from tests.core.invariants import check_quiet
from tests.core.world import World, instance_of, key_of


@pytest.fixture
def cluster(world):
    """A manager, a worker and a sender who know each other."""
    return world, *meet(world)


def meet(world, capacity=1):
    manager, worker, sender = world.manager(), world.worker(capacity=capacity), world.sender()
    world.advance(SECOND)
    return manager, worker, sender


# --- acceptance -----------------------------------------------------------------------------------


def test_a_call_gets_the_value_that_its_job_returned(cluster):
    world, _, worker, sender = cluster
    request = sender.submit("f", b"question", headers=b"trace")
    world.settle()
    (job,) = worker.started
    assert (job.function, job.payload, job.codec, job.headers) == ("f", b"question", "raw", b"trace")
    assert (job.sender, job.counter, job.number, job.reply) == (instance_of(sender), request, 1, True)
    worker.end(b"answer")
    world.settle()
    assert sender.resolved[request].payload == b"answer"
    assert sender.resolved[request].status is Status.DONE
    world.advance(SECOND)
    check_quiet(world)


def test_a_call_that_is_answered_within_5_ms_is_not_accepted_in_words(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.advance(4 * MILLISECOND)
    worker.end()
    world.advance(SECOND)
    assert request in sender.resolved
    assert manager.said(Accepted) == []
    assert sender.confirmed == []


def test_a_call_that_takes_longer_than_5_ms_is_accepted(cluster):
    world, manager, _, sender = cluster
    request = sender.submit()
    world.advance(4 * MILLISECOND)
    assert sender.confirmed == []
    world.advance(2 * MILLISECOND)
    assert sender.confirmed == [request]
    assert manager.said(Accepted) == [Accepted(request)]


def test_whoever_waits_for_acceptance_is_told_at_once(cluster):
    world, _, _, sender = cluster
    request = sender.submit(confirm=True)
    world.settle()
    assert sender.confirmed == [request]
    assert request not in sender.resolved


def test_a_one_way_task_is_closed_by_its_acceptance(cluster):
    world, _, worker, sender = cluster
    request = sender.submit(reply=False, confirm=True)
    world.settle()
    assert sender.confirmed == [request]
    assert sender.role.state.open == {}
    worker.end(b"nobody wants this")
    world.advance(SECOND)
    assert sender.resolved == {}
    check_quiet(world)


def test_a_one_way_task_that_is_done_at_once_is_accepted_nevertheless(cluster):
    world, _, worker, sender = cluster
    request = sender.submit(reply=False)
    world.settle()
    worker.end()
    world.advance(20 * SECOND)
    assert sender.confirmed == [request]
    assert sender.resolved == {}
    check_quiet(world)


def test_acceptance_lost_with_the_connection_is_said_again_on_the_next_link(cluster):
    world, _, worker, sender = cluster
    world.fate = lambda receiver, event: () if receiver is sender else (0,)
    sender.submit(reply=False)
    world.settle()
    worker.end()
    world.advance(100 * MILLISECOND)
    world.fate = lambda receiver, event: (0,)
    world.reconnect(sender)
    world.advance(20 * SECOND)
    assert sender.confirmed == [1]
    assert sender.resolved == {}


def test_acceptance_is_cumulative_and_passes_over_what_was_rejected():
    world = World(Policy(sender_limit=2))
    manager, _, sender = meet(world)
    for _ in range(4):
        sender.submit(confirm=True)
    world.settle()
    assert sender.confirmed == [1, 2]
    assert {request: outcome.status for request, outcome in sender.resolved.items()} == {
        3: Status.REJECTED,
        4: Status.REJECTED,
    }
    assert manager.said(Accepted)[-1] == Accepted(4)


def test_a_known_task_changes_nothing_and_is_answered_again(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.advance(SECOND)
    world.reconnect(sender)
    world.advance(SECOND)
    assert [submit.again for submit in sender.said(Submit)] == [False, True]
    assert len(worker.started) == 1
    assert manager.role.queue.state.accepted == 1
    assert manager.said(Accepted) == [Accepted(request)] * 2


# --- order ----------------------------------------------------------------------------------------


def test_higher_priority_goes_first_and_equals_go_in_order(cluster):
    world, _, worker, sender = cluster
    sender.submit(payload=b"running")
    for payload, priority in ((b"a", 0), (b"b", 9), (b"c", 4), (b"d", 9), (b"e", 0)):
        sender.submit(payload=payload, priority=priority)
    world.settle()
    while worker.jobs:
        worker.end()
        world.settle()
    assert [job.payload for job in worker.started] == [b"running", b"b", b"d", b"c", b"a", b"e"]


def test_the_worker_longest_idle_is_next(world):
    world.manager()
    workers = [world.worker() for _ in range(3)]
    sender = world.sender()
    world.advance(SECOND)
    for _ in range(2):
        for worker in workers:
            sender.submit()
            world.settle()
            assert len(worker.jobs) == 1
            worker.end()
            world.settle()


def test_a_worker_gets_only_functions_that_it_serves(world):
    world.manager()
    one, other, anything = world.worker(("f", "g")), world.worker(("h",)), world.worker(None)
    sender = world.sender()
    world.advance(SECOND)
    for function in "hgx":
        sender.submit(function)
    world.settle()
    assert [job.function for job in one.started] == ["g"]
    assert [job.function for job in other.started] == ["h"]
    assert [job.function for job in anything.started] == ["x"]


def test_a_worker_takes_as_many_attempts_at_a_time_as_its_capacity(world):
    _, worker, sender = meet(world, capacity=3)
    for _ in range(5):
        sender.submit()
    world.settle()
    assert len(worker.jobs) == 3
    worker.end()
    world.settle()
    assert len(worker.jobs) == 3


# --- outcomes -------------------------------------------------------------------------------------


def test_a_success_is_one_multicast_to_the_caller_and_the_managers(cluster):
    world, _, worker, sender = cluster
    sender.submit()
    world.settle()
    worker.sent.clear()
    worker.end(b"v")
    ((groups, frame),) = worker.frames()
    assert groups == (sender.session, "WQ_q")
    assert [type(message) for message in frame.messages] == [Outcome]


def test_the_outcome_of_a_one_way_task_goes_to_the_managers_alone(cluster):
    world, _, worker, sender = cluster
    sender.submit(reply=False)
    world.settle()
    worker.sent.clear()
    worker.end()
    assert [groups for groups, _ in worker.frames()] == [("WQ_q",)]


def test_a_failure_goes_to_the_managers_whose_verdict_reaches_caller_and_managers_in_one_order(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    worker.sent.clear()
    manager.sent.clear()
    worker.end(b"ValueError", status=Status.FAILED)
    assert [groups for groups, _ in worker.frames()] == [("WQ_q",)]
    world.step()
    assert manager.role.queue.state.counts.failed == 0, "it is applied when it is delivered"
    ((groups, frame),) = manager.frames()
    assert groups == (sender.session, "WQ_q")
    assert frame.link == 0
    world.settle()
    assert manager.role.queue.state.counts.failed == 1
    assert sender.resolved[request].status is Status.FAILED
    assert sender.resolved[request].payload == b"ValueError"
    world.advance(SECOND)
    check_quiet(world)


def test_a_verdict_is_sent_again_until_it_was_delivered_to_its_manager(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    world.settle()
    lost = []

    def lose_two(receiver, event):
        if event.groups != (sender.session, "WQ_q") or event.sender != manager.session or len(lost) == 4:
            return (0,)
        lost.append(world.time)
        return ()

    world.fate = lose_two
    worker.end(b"E", status=Status.FAILED)
    world.advance(SECOND)
    assert lost[2] - lost[1] == 200 * MILLISECOND
    assert len(manager.said(Outcome)) == 3
    assert manager.role.queue.state.counts.failed == 1
    assert sender.resolved[1].status is Status.FAILED
    check_quiet(world)


def test_the_verdict_on_a_one_way_task_concerns_the_managers_alone(cluster):
    world, manager, worker, sender = cluster
    sender.submit(reply=False)
    world.settle()
    manager.sent.clear()
    worker.end(b"E", status=Status.FAILED)
    world.settle()
    assert [groups for groups, frame in manager.frames() if Outcome in map(type, frame.messages)] == [
        ("WQ_q",)
    ]
    assert manager.role.queue.state.counts.failed == 1


def test_an_outcome_that_the_caller_does_not_close_is_sent_again_at_the_second_check(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.fate = lambda receiver, event: () if (receiver, event.sender) == (sender, worker.session) else (0,)
    worker.end(b"v")
    world.advance(399 * MILLISECOND)
    assert request not in sender.resolved
    world.advance(2 * MILLISECOND)
    assert sender.resolved[request].payload == b"v"
    assert len(manager.noted(NoteName.ANSWERED_AGAIN)) == 1
    world.advance(SECOND)
    check_quiet(world)


def test_an_outcome_that_went_to_an_old_session_is_sent_to_the_new_one_at_once(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.reconnect(sender)
    world.settle()
    worker.end(b"v")  # its caller's address is that of the assignment
    world.settle()
    assert sender.resolved[request].payload == b"v"
    assert len(manager.noted(NoteName.ANSWERED_AGAIN)) == 1


def test_an_outcome_that_came_while_its_caller_was_away_is_there_when_it_comes_back(cluster):
    world, _, worker, sender = cluster
    request = sender.submit()
    world.advance(SECOND)
    world.disconnect(sender)
    world.settle()
    worker.end(b"v")
    world.advance(30 * SECOND)
    assert request not in sender.resolved
    world.connect(sender)
    world.settle()
    assert sender.resolved[request].payload == b"v"
    assert len(worker.started) == 1
    world.advance(SECOND)
    check_quiet(world)


def test_an_outcome_receipts_the_frame_of_its_task(cluster):
    world, manager, worker, sender = cluster
    world.fate = lambda receiver, event: () if (receiver, event.sender) == (sender, manager.session) else (0,)
    sender.submit()
    world.settle()
    assert len(sender.role.state.uplink.link.unreceipted) == 1
    worker.end()
    world.settle()
    assert sender.role.state.uplink.link.unreceipted == []


# --- responses ------------------------------------------------------------------------------------


def test_responses_come_one_by_one_before_the_outcome(cluster):
    world, _, worker, sender = cluster
    request = sender.submit()
    world.settle()
    for payload in (b"a", b"b"):
        worker.respond(payload)
        world.settle()
    assert [(r.request, r.payload) for r in sender.responses] == [(request, b"a"), (request, b"b")]
    assert request not in sender.resolved
    worker.end(codec="")
    world.settle()
    assert sender.resolved[request].responses == 2
    world.advance(SECOND)
    check_quiet(world)


def test_a_response_counts_once_however_often_it_comes(cluster):
    world, _, worker, sender = cluster
    sender.submit()
    world.settle()
    world.fate = lambda receiver, event: (0, MILLISECOND, 2 * MILLISECOND)
    worker.respond(b"a")
    worker.respond(b"b")
    world.advance(SECOND)
    assert [response.payload for response in sender.responses] == [b"a", b"b"]


def test_an_outcome_waits_for_responses_that_were_lost(cluster):
    world, _, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.fate = lambda receiver, event: () if receiver is sender else (0,)
    worker.respond(b"a")
    world.settle()
    world.fate = lambda receiver, event: (0,)
    worker.end(b"v")
    world.settle()
    assert sender.responses == []
    assert request not in sender.resolved
    world.advance(SECOND)
    assert [response.payload for response in sender.responses] == [b"a"]
    assert sender.resolved[request].payload == b"v"
    check_quiet(world)


def test_an_outcome_does_not_wait_for_responses_that_nobody_has():
    world = World(Policy(outcome_bytes_limit=1))
    _, worker, sender = meet(world)
    world.fate = lambda receiver, event: () if receiver is sender else (0,)
    request = sender.submit()
    world.settle()
    worker.respond(b"the first is kept although it is larger than the limit")
    worker.respond(b"the second is not")
    world.settle()
    world.fate = lambda receiver, event: (0,)
    worker.end(b"v")
    world.advance(SECOND)
    assert len(sender.responses) == 1
    assert sender.resolved[request].payload == b"v"
    check_quiet(world)


def test_responses_of_an_earlier_attempt_count_by_their_index(world):
    _, first, sender = meet(world)
    request = sender.submit()
    world.settle()
    first.respond(b"a1")
    first.respond(b"b1")
    world.settle()
    second = world.worker()
    world.settle()
    world.kill(first)
    world.settle()
    second.respond(b"a2")
    world.settle()
    second.end()
    world.settle()
    assert [response.payload for response in sender.responses] == [b"a1", b"b1"]
    assert sender.resolved[request].status is Status.DONE


def test_a_job_that_neither_responds_nor_returns_is_done_without_codec_and_responses(cluster):
    world, _, worker, sender = cluster
    request = sender.submit()
    world.settle()
    worker.end(codec="")
    world.settle()
    outcome = sender.resolved[request]
    assert (outcome.status, outcome.codec, outcome.responses) == (Status.DONE, "", 0)


def test_a_one_way_job_may_respond_to_nobody(cluster):
    world, manager, worker, sender = cluster
    sender.submit(reply=False)
    world.settle()
    worker.respond(b"?")
    worker.end()
    world.advance(SECOND)
    assert sender.responses == []
    assert manager.noted(NoteName.IGNORED)
    check_quiet(world)


def test_a_response_after_the_end_of_its_job_is_not_sent(cluster):
    world, _, worker, sender = cluster
    sender.submit()
    world.settle()
    key = key_of(sender, 1)
    worker.end()
    worker.respond(b"late", key)
    world.advance(SECOND)
    worker.respond(b"later", key)
    assert worker.said(Response) == []


# --- closing and expiry ---------------------------------------------------------------------------


def test_an_abandoned_call_is_cancelled_while_it_waits(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    request = sender.submit()
    world.settle()
    sender.abandon(request)
    world.advance(SECOND)
    worker.end()
    world.advance(SECOND)
    assert len(worker.started) == 1
    assert manager.role.queue.state.counts.cancelled == 1
    check_quiet(world)


def test_an_abandoned_call_is_cancelled_while_it_runs(cluster):
    world, _, worker, sender = cluster
    request = sender.submit()
    waiting = sender.submit()
    world.settle()
    sender.abandon(request)
    world.advance(SECOND)
    assert [(c.counter, c.number) for c in worker.cancelled] == [(request, 1)]
    assert len(worker.jobs) == 1, "its slot is taken until its job is over"
    worker.end(status=Status.CANCELLED)
    world.settle()
    assert [job.counter for job in worker.jobs.values()] == [waiting]
    worker.end()
    world.advance(SECOND)
    assert request not in sender.resolved
    check_quiet(world)


def test_an_abandoned_call_is_cancelled_while_its_verdict_is_on_its_way(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.fate = lambda receiver, event: () if event.sender == manager.session else (0,)
    worker.end(b"E", status=Status.FAILED)
    world.settle()
    sender.abandon(request)
    world.advance(SECOND)
    world.fate = lambda receiver, event: (0,)
    world.advance(2 * SECOND)
    assert request not in sender.resolved
    check_quiet(world)


def test_an_abandoned_call_is_cancelled_when_its_outcome_is_kept(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.settle()
    world.fate = lambda receiver, event: () if receiver is sender else (0,)
    worker.end(b"value")
    world.settle()
    assert manager.role.queue.state.outcome_bytes
    sender.abandon(request)
    world.fate = lambda receiver, event: (0,)
    world.advance(2 * SECOND)
    assert request not in sender.resolved
    check_quiet(world)


def test_abandoning_what_is_not_open_changes_nothing(cluster):
    world, _, worker, sender = cluster
    sender.submit()
    world.settle()
    worker.end()
    world.settle()
    before = sender.role.snapshot(world.time)
    sender.abandon(1)
    sender.abandon(77)
    assert sender.role.snapshot(world.time) == before


def test_closing_a_one_way_task_does_not_cancel_it(cluster):
    world, _, worker, sender = cluster
    sender.submit(reply=False, confirm=True)
    sender.submit(reply=False, confirm=True)
    world.advance(SECOND)
    assert sender.said(Closed)
    worker.end()
    world.settle()
    worker.end()
    world.advance(SECOND)
    assert len(worker.started) == 2
    check_quiet(world)


def test_a_call_that_expires_while_it_waits_is_not_run(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    request = sender.submit(expiry=SECOND)
    world.advance(SECOND + 20 * MILLISECOND)
    assert sender.resolved[request].status is Status.EXPIRED
    assert b"not done in 1" in sender.resolved[request].payload
    world.advance(SECOND)
    worker.end()
    world.advance(SECOND)
    assert len(worker.started) == 1
    assert manager.role.queue.state.tasks == 0
    check_quiet(world)


def test_a_call_that_expires_while_it_runs_is_cancelled(cluster):
    world, _, worker, sender = cluster
    request = sender.submit(expiry=SECOND)
    world.settle()
    assert worker.started[0].expires_in == SECOND
    world.advance(2 * SECOND)
    assert len(worker.cancelled) == 1
    assert sender.resolved[request].status is Status.EXPIRED
    worker.end(status=Status.CANCELLED)
    world.advance(SECOND)
    check_quiet(world)


def test_what_is_assigned_late_has_so_much_less_time_left(cluster):
    world, _, worker, sender = cluster
    sender.submit()
    sender.submit(expiry=3 * SECOND)
    world.advance(2 * SECOND)
    worker.end()
    world.settle()
    assert worker.started[1].expires_in == SECOND


def test_a_one_way_task_expires_at_the_manager(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    sender.submit(reply=False, confirm=True, expiry=SECOND)
    world.advance(2 * SECOND)
    worker.end()
    world.advance(SECOND)
    assert len(worker.started) == 1
    assert manager.role.queue.state.counts.expired == 1
    check_quiet(world)


def test_a_success_that_comes_before_the_verdict_wins_at_both(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit(expiry=SECOND)
    world.settle()
    sender.alarm_at = None  # the caller is a little slow
    worker.end(b"in time", key=None)
    world.time += SECOND + 20 * MILLISECOND
    manager.ring()  # its verdict is behind the success in the order
    world.settle()
    assert sender.resolved[request].payload == b"in time"
    assert manager.role.queue.state.counts.done == 1
    assert manager.role.queue.state.counts.expired == 0
    world.advance(SECOND)
    check_quiet(world)


def test_a_success_that_comes_after_the_verdict_is_ignored_by_both(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit(expiry=SECOND)
    world.settle()
    sender.alarm_at = None
    world.time += SECOND + 20 * MILLISECOND
    manager.ring()
    worker.end(b"too late")
    world.settle()
    assert sender.resolved[request].status is Status.EXPIRED
    assert manager.role.queue.state.counts.expired == 1
    assert sender.noted(NoteName.LATE_RESPONSE)
    world.advance(SECOND)
    check_quiet(world)


# --- limits ---------------------------------------------------------------------------------------


def rejection(sender, request):
    outcome = sender.resolved[request]
    assert outcome.status is Status.REJECTED
    return outcome.payload.decode()


def test_a_full_queue_rejects_and_drops_nothing():
    world = World(Policy(queue_limit=2))
    manager, worker, sender = meet(world)
    other = world.sender()
    world.advance(SECOND)
    kept = [sender.submit(), sender.submit()]
    refused = other.submit()
    world.settle()
    assert rejection(other, refused) == "the queue holds 2 tasks, which is its limit"
    assert [r.refusal for r in manager.said(Rejected)] == [Refusal.QUEUE_FULL]
    while worker.jobs:
        worker.end()
        world.settle()
    assert set(sender.resolved) == set(kept)
    request = other.submit()
    world.settle()
    worker.end()
    world.advance(SECOND)
    assert other.resolved[request].status is Status.DONE
    check_quiet(world)


def test_a_sender_may_not_fill_the_queue_alone():
    world = World(Policy(sender_limit=1))
    manager, _, sender = meet(world)
    other = world.sender()
    world.advance(SECOND)
    sender.submit()
    refused, accepted = sender.submit(), other.submit()
    world.settle()
    assert "tasks of this sender" in rejection(sender, refused)
    assert [r.refusal for r in manager.said(Rejected)] == [Refusal.SENDER_FULL]
    assert accepted not in other.resolved


def test_outcomes_that_nobody_fetches_make_the_queue_reject_calls_but_not_one_way_tasks():
    world = World(Policy(outcome_bytes_limit=1_000))
    manager, worker, sender = meet(world)
    sender.submit()
    world.settle()
    world.disconnect(sender)
    world.settle()
    worker.end(b"x" * 1_000)
    world.settle()
    other = world.sender()
    world.advance(SECOND)
    refused = other.submit()
    other.submit(reply=False)
    world.settle()
    assert "bytes of outcomes" in rejection(other, refused)
    assert [r.refusal for r in manager.said(Rejected)] == [Refusal.OUTCOMES_FULL]
    assert len(worker.jobs) == 1
    worker.end()
    world.advance(61 * SECOND)
    assert manager.role.queue.state.outcome_bytes == 0
    request = other.submit()
    world.settle()
    worker.end()
    world.settle()
    assert other.resolved[request].status is Status.DONE


def test_outcomes_without_payload_count_too():
    world = World(Policy(outcome_bytes_limit=1_000))
    manager, worker, sender = meet(world)
    for _ in range(20):
        sender.submit()
    world.settle()
    world.disconnect(sender)
    while worker.jobs:
        worker.end()
        world.settle()
    assert manager.role.queue.state.outcome_bytes > 1_000


def test_a_rejection_is_repeated_on_a_new_link():
    world = World(Policy(queue_limit=1))
    manager, _, sender = meet(world)
    sender.submit()
    world.fate = lambda receiver, event: () if receiver is sender else (0,)
    refused = sender.submit(reply=False, confirm=True)
    world.settle()
    world.fate = lambda receiver, event: (0,)
    world.reconnect(sender)
    world.settle()
    assert "which is its limit" in rejection(sender, refused)
    assert refused not in sender.confirmed
    assert manager.role.queue.state.counts.rejected == 1


def test_a_malformed_task_is_rejected_with_what_is_wrong(cluster):
    world, manager, _, sender = cluster
    link = sender.role.state.uplink.link
    sender.submit()
    link.unreceipted[-1].messages.append(Submit(2, b"junk", b""))
    world.queue.clear()
    world.advance(SECOND)
    assert [r.refusal for r in manager.said(Rejected)] == [Refusal.MALFORMED]
    assert "malformed terms" in manager.said(Rejected)[0].reason


def test_the_largest_payload_fits_a_message():
    world = World()
    _, worker, sender = meet(world)
    payload = b"x" * world.policy.payload_limit
    request = sender.submit("f", payload)
    world.settle()
    worker.end(payload)
    world.settle()
    assert sender.resolved[request].payload == payload
    for node in (sender, worker):
        for send in node.sent:
            assert len(send.body) + 32 * len(send.groups) <= 143_152


# --- functions that nobody serves -----------------------------------------------------------------


def test_a_call_of_a_function_that_nobody_serves_says_so_when_it_expires(cluster):
    world, manager, _, sender = cluster
    request = sender.submit("g", expiry=SECOND)
    world.settle()
    assert manager.said(Unserved) == [Unserved(request)]
    world.advance(2 * SECOND)
    assert sender.resolved[request].status is Status.UNSERVED
    assert b"no worker served its function" in sender.resolved[request].payload


def test_a_call_that_nobody_serves_waits_for_a_worker_that_does(cluster):
    world, _, _, sender = cluster
    request = sender.submit("g")
    world.advance(60 * SECOND)
    assert request not in sender.resolved
    late = world.worker(("g",))
    world.settle()
    late.end(b"v")
    world.settle()
    assert sender.resolved[request].payload == b"v"


def test_nobody_asks_whether_a_one_way_task_is_served(cluster):
    world, manager, _, sender = cluster
    sender.submit("g", reply=False)
    world.settle()
    assert manager.said(Unserved) == []


def test_unserved_after_the_call_was_abandoned_is_of_no_interest(cluster):
    world, _, _, sender = cluster
    request = sender.submit("g")
    sender.abandon(request)
    world.advance(SECOND)
    assert sender.resolved == {}


# --- memory ---------------------------------------------------------------------------------------


def test_memory_is_bounded_beside_one_call_that_runs_for_hours(world):
    manager, worker, sender = meet(world, capacity=2)
    slow = sender.submit(payload=b"slow")
    world.settle()
    (slow_key,) = worker.jobs
    for _ in range(300):
        sender.submit()
        world.settle()
        worker.end(key=next(key for key in worker.jobs if key != slow_key))
        world.advance(10 * MILLISECOND)
    world.advance(SECOND)
    record = manager.role.queue.state.senders[instance_of(sender)]
    assert list(record.tasks) == [slow]
    assert not record.outcomes
    assert len(record.known) == 0
    assert list(sender.role.state.open) == [slow]
    assert not sender.role.state.marks
    assert len(manager.role.snapshot(world.time)) < 2_000
    assert len(sender.role.snapshot(world.time)) < 1_000
    worker.end(b"at last", key=slow_key)
    world.advance(SECOND)
    assert sender.resolved[slow].payload == b"at last"
    check_quiet(world)


def test_closed_ids_are_told_in_ranges(world):
    _, worker, sender = meet(world, capacity=100)
    for _ in range(100):
        sender.submit()
    world.settle()
    sender.sent.clear()
    for _ in range(100):
        worker.end()
    world.advance(SECOND)
    assert sender.said(Closed) == [Closed(((1, 100),))]


def test_kind_says_what_a_body_is(cluster):
    _, _, _, sender = cluster
    sender.submit()
    send = sender.sent[-1]
    assert send.kind == KIND
    assert decode(send.kind, send.body, "q").queue == "q"

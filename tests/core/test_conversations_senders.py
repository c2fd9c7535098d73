"""Senders that find no manager, lose their connection, stop, or are stopped by a window."""

from __future__ import annotations

import pytest

from spreadq_core.effects import Join
from spreadq_core.errors import UsageError
from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.messages import Closed, SenderHello, Status, Submit, TookOver
from spreadq_core.notes import NoteName
from spreadq_core.policy import Policy
from tests.core.invariants import check_quiet
from tests.core.world import World, instance_of, key_of, request


@pytest.fixture
def cluster(world):
    """A manager, a worker and a sender who know each other."""
    manager, worker, sender = world.manager(), world.worker(), world.sender()
    world.advance(SECOND)
    return world, manager, worker, sender


# --- no manager -----------------------------------------------------------------------------------


def test_where_nobody_manages_a_request_fails_after_2_s_and_says_what_to_start(world):
    sender = world.sender()
    request = sender.submit()
    world.advance(1900 * MILLISECOND)
    assert request not in sender.resolved
    world.advance(200 * MILLISECOND)
    outcome = sender.resolved[request]
    assert outcome.status is Status.NO_MANAGER
    assert outcome.payload == b"nobody manages queue q; start `sqm q` or `spreadq serve q`"


def test_where_there_is_no_connection_the_reason_says_so(world):
    sender = world.sender(connect=False)
    request = sender.submit()
    world.advance(3 * SECOND)
    assert sender.resolved[request].payload == b"the connection to Spread is lost, and no new one can be made"


def test_a_request_waits_longer_for_a_manager_that_was_there(cluster):
    world, manager, _, sender = cluster
    world.kill(manager)
    request = sender.submit()
    world.advance(14 * SECOND)
    assert request not in sender.resolved
    world.advance(2 * SECOND)
    assert sender.resolved[request].status is Status.NO_MANAGER


def test_what_is_accepted_waits_for_ever(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.advance(SECOND)
    world.kill(manager)
    world.advance(3_600 * SECOND)
    assert request not in sender.resolved
    world.manager()
    world.advance(SECOND)
    worker.end(b"v")
    world.settle()
    assert sender.resolved[request].payload == b"v"


def test_requests_give_up_one_by_one_in_their_order(world):
    sender = world.sender()
    first = sender.submit()
    world.advance(SECOND)
    second = sender.submit()
    world.advance(1100 * MILLISECOND)
    assert sender.resolved.keys() == {first}
    world.advance(SECOND)
    assert sender.resolved.keys() == {first, second}


@pytest.mark.parametrize("connect", [True, False])
def test_memory_is_bounded_where_nobody_manages_for_long(world, connect):
    sender = world.sender(connect=connect)
    for _ in range(1_000):
        sender.submit(payload=b"x" * 1_000, confirm=True)
        world.advance(SECOND)
        assert len(sender.role.state.uplink.link.mail) < 150
    assert len(sender.resolved) > 990
    assert len(sender.role.snapshot(world.time)) < 200_000
    _, worker = world.manager(), world.worker()
    if not connect:
        world.connect(sender)
    request = sender.submit()
    world.advance(2 * SECOND)
    while worker.jobs:
        worker.end(b"v")
        world.settle()
    assert sender.resolved[request].payload == b"v"
    world.advance(SECOND)
    check_quiet(world)


def test_a_request_from_before_the_connection_goes_out_with_it(world):
    _, worker, sender = world.manager(), world.worker(), world.sender(connect=False)
    world.advance(SECOND)
    request = sender.submit()
    world.connect(sender)
    world.settle()
    assert list(worker.jobs) == [key_of(sender, request)]


def test_the_first_call_of_a_queue_whose_manager_starts_last_is_not_held(world):
    worker, sender = world.worker(), world.sender()
    request = sender.submit()
    world.advance(SECOND)
    world.manager()
    world.settle()
    assert list(worker.jobs) == [key_of(sender, request)]


# --- reconnecting ---------------------------------------------------------------------------------


def test_a_sender_that_reconnects_says_what_is_closed_and_again_what_is_open(cluster):
    world, _, worker, sender = cluster
    for _ in range(3):
        sender.submit()
    world.advance(SECOND)
    worker.end()
    world.settle()
    sender.sent.clear()
    world.reconnect(sender)
    world.settle()
    hello, closed, *submits = sender.frames()[0][1].messages
    assert isinstance(hello, SenderHello)
    assert closed == Closed(((1, 1),))
    assert [(s.counter, s.again) for s in submits if isinstance(s, Submit)] == [(2, True), (3, True)]
    for _ in range(2):
        worker.end(b"v")
        world.settle()
    assert sender.resolved.keys() == {1, 2, 3}
    world.advance(SECOND)
    check_quiet(world)


def test_frames_that_were_lost_with_the_connection_are_made_up_for(cluster):
    world, _, worker, sender = cluster
    world.advance(2 * SECOND)  # what comes again to a new manager waits for claims
    world.fate = lambda receiver, event: () if event.sender == sender.session else (0,)
    requests = [sender.submit(reply=False), sender.submit()]
    world.settle()
    world.fate = lambda receiver, event: (0,)
    world.reconnect(sender)
    world.settle()
    assert [job.counter for job in worker.started] == requests[:1]
    worker.end()
    world.settle()
    worker.end(b"v")
    world.advance(SECOND)
    assert sender.confirmed == requests
    assert sender.resolved[requests[1]].payload == b"v"
    check_quiet(world)


def test_departure_of_an_old_session_does_not_end_the_new_one(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.advance(SECOND)
    world.swap(sender)
    assert manager.noted(NoteName.SENDER_LEFT) == []
    assert manager.role.state.absent_at == {}
    worker.end(b"v")
    world.settle()
    assert sender.resolved[request].payload == b"v"


def test_a_sender_that_is_seen_after_its_hello_is_not_absent(cluster):
    world, manager, _, _ = cluster
    late = world.sender(connect=False)
    late.performers[Join] = lambda effect: None
    world.connect(late)
    world.settle()
    assert instance_of(late) in manager.role.state.absent_at
    world.operate("join", late, "SQ_q")
    world.settle()
    assert manager.role.state.absent_at == {}


def test_a_sender_that_waits_and_hears_nothing_asks_whether_it_is_known(cluster):
    world, manager, worker, sender = cluster
    request = sender.submit()
    world.advance(SECOND)
    world.kill(manager)
    world.fate = lambda receiver, event: () if receiver is sender else (0,)
    world.manager()  # whose call it does not hear
    world.advance(SECOND)
    world.fate = lambda receiver, event: (0,)
    worker.end(b"v", key=key_of(sender, request))
    world.advance(10 * SECOND)
    assert sender.resolved[request].payload == b"v"
    world.advance(SECOND)
    check_quiet(world)


def test_a_sender_that_waits_for_nothing_asks_nothing(cluster):
    world, _, _, sender = cluster
    sender.sent.clear()
    world.advance(60 * SECOND)
    assert sender.sent == []


# --- stopping -------------------------------------------------------------------------------------


def test_a_sender_that_is_told_to_stop_waits_until_all_is_accepted(cluster):
    world, _, worker, sender = cluster
    request = sender.submit(reply=False)
    sender.stop()
    assert sender.exited is None
    world.advance(10 * MILLISECOND)
    assert sender.confirmed == [request]
    assert (sender.exited.status, sender.exited.reason) == (0, "stopped")
    assert sender.role.deadline is None
    assert len(worker.jobs) == 1, "what is accepted does not need its sender"


def test_an_idle_sender_stops_at_once(cluster):
    world, _, _, sender = cluster
    sender.stop()
    assert sender.exited.status == 0
    world.settle()
    assert sender.session not in world.groups["SQ_q"]


def test_a_stopping_sender_does_not_wait_for_outcomes(cluster):
    world, _, _, sender = cluster
    sender.submit()
    world.advance(SECOND)
    sender.stop()
    assert sender.exited.status == 0
    assert sender.resolved == {}


def test_accepted_calls_go_on_without_their_sender(cluster):
    world, manager, worker, sender = cluster
    sender.submit()
    world.advance(SECOND)
    sender.submit()
    sender.stop()
    world.advance(10 * MILLISECOND)
    assert sender.exited.status == 0
    world.kill(sender)
    for _ in range(2):
        world.advance(SECOND)
        worker.end(b"nobody fetches it")
    world.settle()
    assert manager.role.queue.state.counts.done == 2


def test_a_stopping_sender_waits_2_s_for_acceptance_and_no_longer(cluster):
    world, manager, _, sender = cluster
    world.freeze(manager)
    sender.submit(reply=False)
    sender.stop()
    world.advance(1900 * MILLISECOND)
    assert sender.exited is None
    world.advance(200 * MILLISECOND)
    assert sender.exited.status == 0


def test_told_twice_a_sender_stops_at_once(cluster):
    world, manager, _, sender = cluster
    world.freeze(manager)
    sender.submit(reply=False)
    sender.stop()
    sender.stop()
    assert sender.exited.status == 0


def test_what_comes_after_its_end_is_not_heard(cluster):
    world, _, _, sender = cluster
    sender.stop()
    before = sender.role.snapshot(world.time)
    sender.deliver([request(1)])
    assert sender.role.snapshot(world.time) == before


# --- requests that are not possible ---------------------------------------------------------------


def test_check_tells_what_is_not_possible_before_it_is_asked_for():
    sender = World(Policy(open_limit=2)).sender()

    def reason(**options):
        with pytest.raises(UsageError) as error:
            sender.role.check(request(1, **options))
        return str(error.value)

    assert reason(payload=b"x" * 140_001) == "payload and headers of 140001 bytes, 140000 at most"
    assert (
        reason(payload=b"x" * 140_000, headers=b"y") == "payload and headers of 140001 bytes, 140000 at most"
    )
    sender.submit()
    sender.submit()
    assert reason() == "2 requests are not resolved yet, and no more may be; wait for some"
    sender.abandon(1)
    sender.role.check(request(3))


def test_who_leaves_says_what_is_closed(cluster):
    world, manager, worker, sender = cluster
    done, abandoned = sender.submit(), sender.submit()
    world.settle()
    worker.end()
    world.settle()
    sender.abandon(abandoned)
    sender.stop()
    world.settle()
    assert worker.cancelled, "nobody waits for it"
    worker.end(status=Status.CANCELLED)
    world.settle()
    assert done in sender.resolved
    assert manager.role.queue.state.outcome_bytes == 0


def test_requests_count_upwards(cluster):
    _, _, _, sender = cluster
    sender.submit()
    with pytest.raises(UsageError, match="request 1 is not above 1"):
        sender.deliver([request(1)])


def test_requests_that_are_skipped_are_closed(cluster):
    world, manager, worker, sender = cluster
    sender.deliver([request(5)])
    world.settle()
    worker.end(b"v")
    world.advance(SECOND)
    assert sender.resolved[5].payload == b"v"
    assert manager.role.queue.state.senders[instance_of(sender)].known.upto == 5
    check_quiet(world)


# --- windows --------------------------------------------------------------------------------------


def in_flight(sender):
    return len(sender.role.state.uplink.link.unreceipted)


@pytest.mark.parametrize("idle", [False, True])
def test_a_stalled_manager_never_has_more_than_its_budget_unread(world, idle):
    manager = world.manager()
    senders = [world.sender() for _ in range(16)]
    world.advance(SECOND)
    if not idle:
        for sender in senders:
            sender.submit(reply=False)
        world.advance(SECOND)
    world.freeze(manager)
    for _ in range(500):
        for sender in senders:
            sender.submit(reply=False)
    world.settle()
    assert sum(map(in_flight, senders)) == 16 * (400 // 16)
    assert len(manager.held) == 400
    world.thaw(manager)
    world.advance(20 * SECOND)
    assert manager.role.queue.state.accepted == 16 * (500 + (not idle))
    assert all(len(sender.confirmed) == 500 + (not idle) for sender in senders)


def test_one_sender_has_the_whole_window(cluster):
    world, manager, _, sender = cluster
    world.freeze(manager)
    for _ in range(500):
        sender.submit(reply=False)
    assert in_flight(sender) == 400


def test_before_its_welcome_a_sender_says_one_frame(world):
    world.manager()
    world.settle()
    world.fate = lambda receiver, event: ()
    sender = world.sender()
    for _ in range(10):
        sender.submit()
    world.settle()
    assert in_flight(sender) == 1


def test_with_more_senders_than_frames_each_has_one():
    world = World(Policy(senders_budget=2))
    manager = world.manager()
    senders = [world.sender() for _ in range(3)]
    world.advance(SECOND)
    world.freeze(manager)
    for sender in senders:
        sender.submit()
        sender.submit()
    world.settle()
    assert [in_flight(sender) for sender in senders] == [1, 1, 1]
    world.thaw(manager)
    world.settle()
    assert manager.role.queue.state.accepted == 6


def test_windows_count_frames_not_messages(cluster):
    world, manager, _, sender = cluster
    world.freeze(manager)
    first = sender.role.state.last + 1
    sender.deliver([request(first + n) for n in range(1_000)])
    assert in_flight(sender) < 20


# --- what a manager says that it should not -------------------------------------------------------


def test_a_call_to_open_another_link_concerns_only_the_current_one(cluster):
    world, manager, _, sender = cluster
    link = sender.role.state.uplink.link
    stale = manager.role.state.speaker.alone((sender.session,), [TookOver(17, manager.role.state.about)])
    world.queue.append(("send", manager.session, stale))
    world.settle()
    assert sender.role.state.uplink.link is link
    assert not sender.noted(NoteName.BAD_MESSAGE), "it may have been on its way when the link was replaced"
    assert sender.noted(NoteName.STALE_LINK)

"""The task queue, command by command; whole histories are in `test_queue_model`."""

from __future__ import annotations

import msgspec
import pytest

from spreadq_core import commands as c
from spreadq_core import messages as m
from spreadq_core.errors import InvariantError
from spreadq_core.lifecycle import WorkerState
from spreadq_core.messages import About, Closed, Outcome, Refusal, Status, Submit
from spreadq_core.policy import Policy
from spreadq_core.records import RECORDED_LIMIT, Phase, WorkerRecord
from spreadq_core.task_queue import TaskQueue
from spreadq_core.terms import Terms
from spreadq_core.terms import encode as encode_terms
from tests.core.invariants import check_queue

ABOUT = About("w", "h", 1)
SENDER, WORKER, OTHER, THIRD = 201, 101, 102, 103


def terms(**fields):
    values = {"function": "f", "codec": "raw", "priority": 0, "max_attempts": 3, "run_limit": 0, "expiry": 0}
    return encode_terms(Terms(**{**values, "reply": True, **fields}))


class Queue(TaskQueue):
    """A queue with short names for commands; it is checked after each."""

    def __init__(self, policy=None):
        super().__init__(policy or Policy())

    def apply(self, command):
        decisions = super().apply(command)
        check_queue(self, honest=False)
        return decisions

    def said(self, source, *messages, hold=False):
        return self.apply(c.Said(source, list(messages), hold))

    def submit(self, counter, again=False, hold=False, **fields):
        return self.said(SENDER, Submit(counter, terms(**fields), b"p", b"", again), hold=hold)

    def enter(self, worker=WORKER, capacity=1, functions=("f",), claims=()):
        decisions = self.said(worker, m.WorkerHello(ABOUT, capacity, functions))
        if claims:
            decisions += self.said(worker, *claims)
        return decisions + self.said(worker, m.Ready()) + self.apply(c.Entered(worker))

    def ended(self, counter, number=1, worker=WORKER, status=Status.DONE, payload=b"", **fields):
        return self.said(worker, Outcome(SENDER, counter, number, worker, status, 0, payload, **fields))

    @property
    def record(self):
        return self.state.senders[SENDER]


@pytest.fixture
def queue():
    return Queue()


def kinds(decisions):
    return [type(decision).__name__ for decision in decisions]


# --- tasks come -----------------------------------------------------------------------------------


def test_a_task_without_a_worker_waits_and_says_so(queue):
    assert queue.submit(1) == [c.Say(SENDER, m.Unserved(1))]
    assert queue.task(SENDER, 1).phase is Phase.QUEUED
    (assigned,) = queue.enter()
    assert (assigned.worker, assigned.number) == (WORKER, 1)


def test_a_frame_of_tasks_is_as_good_as_many():
    submits = [Submit(n, terms(priority=n % 3), b"") for n in (1, 2, 3, 7, 5)]
    one, many = Queue(), Queue()
    for queue in (one, many):
        queue.enter(capacity=2)
    together = one.said(SENDER, *submits)
    apart = [decision for submit in submits for decision in many.said(SENDER, submit)]
    assert one.digest() == many.digest()
    assert kinds(together) == kinds(apart)


def test_commands_are_not_changed(queue):
    submit = Submit(1, terms(), b"p", b"", True)
    before = msgspec.structs.replace(submit)
    queue.said(SENDER, submit, hold=True)
    assert submit == before


def test_tasks_share_one_encoding_of_their_terms(queue):
    for counter in (1, 2):
        queue.submit(counter)
    tasks = [queue.task(SENDER, counter) for counter in (1, 2)]
    assert tasks[0].submit.terms is tasks[1].submit.terms
    assert tasks[0].terms is tasks[1].terms


def test_the_expiry_of_a_task_begins_when_it_is_admitted(queue):
    assert kinds(queue.submit(1, expiry=10**9)) == ["Expiring", "Say"]


def test_malformed_terms_are_rejected_and_known(queue):
    (say,) = queue.said(SENDER, Submit(1, b"?", b""))
    assert say.message.refusal is Refusal.MALFORMED
    assert queue.said(SENDER, Submit(1, b"?", b"")) == [say]
    assert queue.state.counts.rejected == 1


def test_more_rejections_than_a_sender_may_have_open_are_not_remembered():
    queue = Queue(Policy(open_limit=2, queue_limit=1))
    for counter in range(1, 6):
        queue.submit(counter)
    assert list(queue.record.rejected) == [2, 3]


def test_ids_with_more_gaps_than_is_possible_are_ignored():
    queue = Queue(Policy(spans_limit=2))
    for counter in (10, 20, 30):
        queue.submit(counter)
    assert kinds(queue.submit(40)) == kinds(queue.said(SENDER, Closed(((50, 60),)))) == ["Ignored"]
    assert len(queue.record.known) == 3


def test_a_range_that_ends_before_it_begins_is_ignored(queue):
    queue.submit(1)
    assert kinds(queue.said(SENDER, Closed(((2, 1), (1, 1))))) == ["Ignored"]
    assert queue.task(SENDER, 1) is not None


# --- held tasks -----------------------------------------------------------------------------------


def test_tasks_that_come_again_are_held_for_claims_when_told_so(queue):
    queue.enter(capacity=9)
    assert kinds(queue.submit(1, again=True)) == ["Assigned"]
    assert kinds(queue.submit(2, hold=True)) == ["Assigned"]
    assert queue.submit(3, again=True, hold=True) == []
    assert queue.task(SENDER, 3).phase is Phase.HELD
    assert kinds(queue.apply(c.Released())) == ["Assigned"]


def test_a_held_task_can_be_closed_expire_or_succeed(queue):
    for counter in (1, 2, 3):
        queue.submit(counter, again=True, hold=True)
    queue.said(SENDER, Closed(((1, 1),)))
    queue.apply(c.Expired([(SENDER, 2)]))
    assert [queue.task(SENDER, n) and queue.task(SENDER, n).phase for n in (1, 2, 3)] == [
        None,
        Phase.ENDING,
        Phase.HELD,
    ]
    queue.enter(claims=[m.Claim(SENDER, 4, 1, Submit(3, terms(), b"p"))])
    assert kinds(queue.ended(3, 4)) == ["Settled"]


# --- losses that nobody is to blame for -----------------------------------------------------------


def lose_unheard(queue, worker, number):
    return kinds(queue.apply(c.Lost(worker, c.Loss.LEFT, [(SENDER, 1, number)])))


@pytest.fixture
def lost_once(queue):
    """A task that was lost with the first of three workers, and is at the second."""
    for worker in (WORKER, OTHER, THIRD):
        queue.enter(worker)
    queue.submit(1)
    assert lose_unheard(queue, WORKER, 1) == ["Assigned"], "the first time it goes on at once, and counts"
    assert queue.task(SENDER, 1).strikes == 1
    return queue


def test_a_second_loss_that_was_not_heard_of_is_doubted(lost_once):
    assert lose_unheard(lost_once, OTHER, 2) == ["Paused"]
    assert lost_once.task(SENDER, 1).phase is Phase.HELD
    assert kinds(lost_once.apply(c.Released([(SENDER, 1), (SENDER, 2)]))) == ["Assigned"]
    assert lost_once.task(SENDER, 1).strikes == 1
    assert kinds(lost_once.ended(1, number=3, worker=THIRD)) == ["Settled"]
    assert lost_once.state.doubted == {}


def test_but_when_another_follows_both_count(lost_once):
    lose_unheard(lost_once, OTHER, 2)
    lost_once.apply(c.Released())
    assert lose_unheard(lost_once, THIRD, 3) == ["Judged"]
    (verdict,) = lost_once.state.verdicts.values()
    assert verdict.payload == b"attempt 3, the last of 3: the worker left"
    assert lost_once.state.doubted == {}


def test_and_when_the_next_worker_heard_of_it_only_that_one_counts(lost_once):
    lose_unheard(lost_once, OTHER, 2)
    lost_once.apply(c.Released())
    assert kinds(lost_once.apply(c.Lost(THIRD, c.Loss.LEFT))) == []
    assert lost_once.task(SENDER, 1).strikes == 2
    assert lost_once.state.doubted == {}


# --- claims ---------------------------------------------------------------------------------------


def claim(counter, number=1, strikes=0, **fields):
    return m.Claim(SENDER, number, strikes, Submit(counter, terms(**fields), b"p"))


def test_a_claim_of_an_unknown_task_carries_it(queue):
    assert kinds(queue.enter(claims=[claim(1, 2, 1, expiry=10**9)])) == ["Expiring", "Adopted"]
    task = queue.task(SENDER, 1)
    assert (task.live, task.strikes, task.submit.payload) == ((2, WORKER), 1, b"p")
    queue.apply(c.Lost(WORKER, c.Loss.LEFT))
    (assigned,) = queue.enter(OTHER)
    assert assigned.number == 3


def test_a_claim_of_a_waiting_task_is_adopted(queue):
    queue.submit(1)
    assert kinds(queue.enter(claims=[claim(1)])) == ["Adopted"]
    assert queue.schedule.waiting() == {}


def test_a_claim_of_what_is_live_elsewhere_is_recorded(queue):
    queue.submit(1)
    queue.enter()
    assert queue.enter(OTHER, claims=[claim(1)]) == []
    assert queue.task(SENDER, 1).live == (1, WORKER)
    assert kinds(queue.ended(1, 1, OTHER)) == ["Say", "Settled"]


def test_a_claim_of_what_is_ending_is_recorded(queue):
    queue.submit(1)
    queue.apply(c.Expired([(SENDER, 1)]))
    assert queue.enter(claims=[claim(1)]) == []
    assert kinds(queue.ended(1)) == ["Settled"]
    assert queue.state.verdicts == {}


def test_a_claim_of_what_is_over_is_cancelled(queue):
    queue.said(SENDER, Closed(((1, 1),)))
    assert queue.enter(claims=[claim(1)]) == [c.Say(WORKER, m.Cancel(SENDER, 1, 1))]
    assert list(queue.state.workers[WORKER].slots) == [(SENDER, 1, 1)]


def test_claims_are_made_between_hello_and_ready(queue):
    assert kinds(queue.said(WORKER, claim(1))) == ["Ignored"]
    queue.enter()
    assert kinds(queue.said(WORKER, claim(1))) == ["Ignored"]


def test_one_malformed_claim_does_not_spoil_the_others(queue):
    bad = m.Claim(SENDER, 1, 0, Submit(1, b"?", b""))
    assert kinds(queue.enter(claims=[bad, claim(2)])) == ["Ignored", "Adopted"]
    assert queue.state.workers[WORKER].slots.keys() == {(SENDER, 2, 1)}


def test_so_many_attempts_are_recorded_and_no_more(queue):
    queue.submit(1)
    for number in range(1, 2 * RECORDED_LIMIT):
        worker = 1_000 + number
        queue.enter(worker)
        queue.said(worker, m.HandBack(SENDER, 1, number))
        queue.said(worker, m.Draining())
        assert len(queue.task(SENDER, 1).attempts) <= RECORDED_LIMIT
    assert queue.task(SENDER, 1).strikes == 0


# --- workers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity", "functions"), [(0, ("f",)), (10_001, ("f",)), (1, ("f" * 48 * 1024, "g"))]
)
def test_a_worker_out_of_range_is_ignored(queue, capacity, functions):
    assert kinds(queue.said(WORKER, m.WorkerHello(ABOUT, capacity, functions))) == ["Ignored"]
    assert queue.state.workers == {}


def test_what_unknown_workers_say_is_ignored_or_nothing(queue):
    queue.submit(1)
    for message in (m.Ready(), m.Draining(), m.JobOver(SENDER, 1, 1), m.HandBack(SENDER, 1, 1)):
        assert queue.said(WORKER, message) == []
    assert kinds(queue.ended(1)) == ["Ignored"]
    assert kinds(queue.said(WORKER, m.Response(SENDER, 1, 1, WORKER, 0, b"", ""))) == ["Ignored"]
    assert queue.apply(c.Lost(WORKER, c.Loss.LEFT)) == []


def test_a_worker_that_says_hello_again_is_given_nothing_until_it_entered(queue):
    queue.enter(capacity=2)
    queue.submit(1)
    queue.said(WORKER, m.WorkerHello(ABOUT, 2, ("f",)))
    assert queue.state.workers[WORKER].state is WorkerState.GREETED
    assert kinds(queue.submit(2)) == ["Say"]
    queue.said(WORKER, claim(1), claim(7))
    queue.said(WORKER, m.Ready())
    assert queue.apply(c.Entered(WORKER)) == [], "both slots are taken"
    assert kinds(queue.ended(7)) == ["Settled", "Assigned"]


def test_a_draining_worker_keeps_what_it_has_and_gets_no_more(queue):
    queue.enter(capacity=2)
    queue.submit(1)
    queue.said(WORKER, m.Draining())
    assert kinds(queue.submit(2)) == ["Say"]
    assert kinds(queue.ended(1)) == ["Settled"]
    queue.said(WORKER, m.WorkerHello(ABOUT, 2, ("f",)))
    queue.said(WORKER, m.Draining())
    queue.said(WORKER, m.Ready())
    assert queue.apply(c.Entered(WORKER)) == []


def test_an_assignment_that_is_not_possible_is_our_own_fault(queue):
    queue.submit(1)
    with pytest.raises(InvariantError, match="cannot start at"):
        queue._assign(queue.task(SENDER, 1), WorkerRecord(WORKER, 1, None), [])


# --- ends -----------------------------------------------------------------------------------------


def test_who_ran_it_is_who_says_so(queue):
    queue.enter()
    queue.submit(1)
    forged = Outcome(SENDER, 1, 1, WORKER, Status.DONE)
    assert kinds(queue.said(OTHER, forged)) == ["Ignored"]
    stolen = Outcome(SENDER, 1, 1, OTHER, Status.DONE)
    assert kinds(queue.said(WORKER, stolen)) == ["Ignored"]
    assert queue.task(SENDER, 1).live == (1, WORKER)


@pytest.mark.parametrize("status", [status for status in Status if status > Status.FAILED])
def test_a_worker_cannot_pass_a_verdict(queue, status):
    queue.enter()
    queue.submit(1)
    assert kinds(queue.ended(1, status=status)) == ["Ignored"]
    assert queue.task(SENDER, 1).live == (1, WORKER)
    assert queue.state.workers[WORKER].slots


def test_an_attempt_that_was_never_made_cannot_succeed(queue):
    queue.enter()
    queue.submit(1)
    assert kinds(queue.ended(1, number=2)) == ["Ignored"]


def test_a_slot_that_is_freed_twice_is_freed_once(queue):
    queue.enter(capacity=2)
    queue.submit(1)
    over = m.HandBack(SENDER, 1, 1)
    assert kinds(queue.said(WORKER, over, over)) == ["Assigned"]
    assert queue.said(WORKER, over) == []
    assert queue.task(SENDER, 1).live == (2, WORKER)


def test_only_the_verdict_that_was_passed_decides(queue):
    queue.enter()
    queue.submit(1)
    (judged, _) = (*queue.ended(1, status=Status.FAILED), None)
    other = msgspec.structs.replace(judged.verdict, payload=b"forged")
    assert queue.apply(c.Decided(other)) == []
    assert kinds(queue.apply(c.Decided(judged.verdict))) == ["Settled"]
    assert queue.apply(c.Decided(judged.verdict)) == []


def test_expiry_does_not_overtake_a_verdict(queue):
    queue.enter()
    queue.submit(1, expiry=10**9)
    queue.ended(1, status=Status.FAILED)
    assert queue.apply(c.Expired([(SENDER, 1)])) == []
    assert queue.apply(c.Expired([(SENDER, 99)])) == []


def test_an_overrun_counts_for_the_live_attempt_only(queue):
    queue.enter()
    queue.submit(1, run_limit=10**9)
    assert queue.apply(c.Overran(WORKER, [(SENDER, 1, 2)])) == []
    assert queue.apply(c.Overran(OTHER, [(SENDER, 1, 1)])) == []
    (cancel,) = queue.apply(c.Overran(WORKER, [(SENDER, 1, 1)]))[:1]
    assert cancel == c.Say(WORKER, m.Cancel(SENDER, 1, 1))
    assert queue.task(SENDER, 1).phase is Phase.RETURNED


# --- what is kept ---------------------------------------------------------------------------------


def test_responses_are_kept_once_by_index_and_counted(queue):
    queue.enter()
    queue.submit(1)
    response = m.Response(SENDER, 1, 1, WORKER, 0, b"r" * 100, "raw")
    queue.said(WORKER, response, response)
    assert list(queue.record.responses[1]) == [0]
    kept = queue.state.outcome_bytes
    assert kept > 100
    queue.ended(1)
    queue.said(SENDER, Closed(((1, 1),)))
    assert queue.state.outcome_bytes == 0


def test_a_forgotten_sender_without_tasks_leaves_nothing(queue):
    queue.enter()
    queue.submit(1)
    queue.ended(1, payload=b"v")
    queue.said(SENDER, Submit(2, b"?", b""))
    queue.apply(c.Forgotten(SENDER))
    assert queue.state.senders == {}
    assert queue.state.outcome_bytes == 0
    assert queue.apply(c.Forgotten(SENDER)) == []


def test_a_forgotten_sender_with_tasks_keeps_no_payload_but_answers(queue):
    queue.enter()
    queue.submit(1)
    queue.ended(1, payload=b"v" * 1_000)
    queue.said(SENDER, Submit(2, b"?", b""))
    queue.submit(3)
    for _ in range(2):
        queue.apply(c.Forgotten(SENDER))
        gone = queue.record.outcomes[1]
        assert (gone.status, gone.number, gone.worker) == (Status.EXPIRED, 1, WORKER)
        assert queue.state.outcome_bytes < 300
    assert queue.submit(1, again=True) == [c.AskedAgain(SENDER, 1)]
    assert kinds(queue.submit(2, again=True)) == ["Say"]


# --- snapshots ------------------------------------------------------------------------------------


def test_a_restored_queue_goes_on_as_before(queue):
    queue.enter(capacity=2)
    queue.enter(OTHER)
    for counter in range(1, 6):
        queue.submit(counter, priority=counter)
    queue.ended(1, status=Status.FAILED)
    queue.apply(c.Lost(OTHER, c.Loss.LEASE))
    again = TaskQueue.restore(queue.policy, queue.snapshot())
    assert again.digest() == queue.digest()
    for command in (
        c.Lost(WORKER, c.Loss.LEFT),
        c.Said(OTHER, [m.WorkerHello(ABOUT, 9, None)]),
        c.Said(OTHER, [m.Ready()]),
        c.Entered(OTHER),
    ):
        assert kinds(again.apply(command)) == kinds(queue.apply(command))
        assert again.digest() == queue.digest()
    assert len(again.digest()) == 16


@pytest.mark.parametrize("image", [b"", b"\xc1", b"\x81\xa5tasks\xa1x"])
def test_what_is_no_snapshot_is_refused(image):
    with pytest.raises(msgspec.MsgspecError):
        TaskQueue.restore(Policy(), image)


def test_a_restart_holds_what_ran_and_begins_expiries_anew(queue):
    queue.enter()
    queue.submit(1, expiry=10**9)
    queue.submit(2)
    assert kinds(queue.apply(c.Restarted())) == ["Expiring"]
    assert queue.state.workers == {}
    assert [queue.task(SENDER, n).phase for n in (1, 2)] == [Phase.HELD, Phase.QUEUED]

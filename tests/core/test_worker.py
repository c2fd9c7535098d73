"""The worker, word by word; whole conversations are in `test_conversations_workers`."""

from __future__ import annotations

import pytest

from spreadq_core import messages as m
from spreadq_core.effects import CancelJob, Exit, Join, Leave, StartJob
from spreadq_core.errors import UsageError
from spreadq_core.events import (
    Disconnected,
    JobEnded,
    JobResponded,
    StopRequested,
    Tick,
    Transition,
)
from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.messages import About, Outcome, Status, Submit
from spreadq_core.policy import Policy
from spreadq_core.terms import Terms
from spreadq_core.terms import encode as encode_terms
from spreadq_core.worker import Worker
from tests.core.puppet import Driven, frame

ABOUT = About("w", "h", 1)
MANAGER, ME, CALLER = 1, 101, 201
TERMS = encode_terms(Terms("f", "raw", 0, 3, 0, 0, True))


class DrivenWorker(Driven):
    """A worker and the manager's side of its link."""

    def __init__(self, capacity=2, **policy):
        super().__init__(Worker("q", ME, ABOUT, ("f",), capacity, Policy(**policy)))
        self.numbers = 0

    def told(self, *messages, **header):
        self.numbers += 1
        link = self.role.state.uplink.link
        fields = {"link": link.number, "number": self.numbers, "receipt": link.sent, "epoch": 1, **header}
        return self.hear("#m", frame(MANAGER, *messages, **{"target": ME, **fields}), ("#me.1#world",))

    def welcome(self):
        self.connect()
        self.told(m.Welcome(10 * SECOND))
        return self

    def assign(self, counter=1, number=1, reply_to="#caller", terms=TERMS):
        return self.told(m.Assign(CALLER, number, 0, 7, reply_to, Submit(counter, terms, b"p", b"h")))

    def end(self, counter=1, number=1, status=Status.DONE, payload=b"v"):
        return self.handle(JobEnded(CALLER, counter, number, status, payload, "raw"))


@pytest.fixture
def worker():
    return DrivenWorker().welcome()


def test_what_is_out_of_range_is_refused():
    for capacity in (0, 10_001):
        with pytest.raises(UsageError, match=f"capacity {capacity}: 1 to 10000 are allowed"):
            Worker("q", ME, ABOUT, None, capacity)
    with pytest.raises(UsageError, match="more than 49152 bytes together"):
        Worker("q", ME, ABOUT, ("f" * 255,) * 193)
    with pytest.raises(UsageError, match="a queue needs a name"):
        Worker("", ME, ABOUT, None)


def test_a_connection_is_a_join_and_a_new_link_with_a_hello():
    worker = DrivenWorker()
    assert worker.connect() == [Join("PQ_q")]
    ((groups, hello),) = worker.sent
    assert groups == ("WQ_q",)
    assert (hello.source, hello.target, hello.link, hello.number) == (ME, 0, 1, 1)
    assert hello.messages == [m.WorkerHello(ABOUT, 2, ("f",)), m.Ready()]


def test_an_assignment_is_a_job(worker):
    (start,) = worker.assign()
    assert start == StartJob(CALLER, 1, 1, "f", b"p", "raw", b"h", 7, True)
    assert worker.role.state.running == 1


def test_a_malformed_assignment_is_over_at_once(worker):
    worker.assign(terms=b"?")
    assert worker.said() == [m.JobOver(CALLER, 1, 1)]
    assert worker.role.state.jobs == {}
    assert "bad_message" in worker.notes()


def test_a_job_is_held_until_its_end_is_receipted(worker):
    worker.assign()
    worker.end()
    assert worker.role.state.jobs[CALLER, 1, 1].over
    worker.told()
    assert worker.role.state.jobs == {}


def test_the_receipt_of_a_response_does_not_end_its_job(worker):
    worker.assign()
    worker.handle(JobResponded(CALLER, 1, 1, b"r", "raw"))
    worker.told()
    assert list(worker.role.state.jobs) == [(CALLER, 1, 1)]


def test_what_the_owner_says_of_jobs_that_are_not_or_are_over_is_not_said(worker):
    worker.end(counter=9)
    worker.handle(JobResponded(CALLER, 9, 1, b"r", "raw"))
    assert worker.said() == []
    worker.assign()
    worker.end()
    for _ in range(2):
        worker.end()
        worker.handle(JobResponded(CALLER, 1, 1, b"r", "raw"))
        assert worker.said() == []


def test_responses_are_counted_and_go_where_outcomes_go(worker):
    worker.assign()
    worker.handle(JobResponded(CALLER, 1, 1, b"r", "raw"), JobResponded(CALLER, 1, 1, b"s", "raw"))
    ((groups, _),) = worker.sent
    assert groups == ("#caller", "WQ_q")
    assert [response.index for response in worker.said()] == [0, 1]
    worker.end()
    assert worker.said() == [Outcome(CALLER, 1, 1, ME, Status.DONE, 2, b"v", "raw")]


def test_cancelling_a_job_is_asked_once_and_answered_when_it_is_over(worker):
    worker.assign()
    assert worker.told(m.Cancel(CALLER, 1, 1)) == [CancelJob(CALLER, 1, 1)]
    assert worker.told(m.Cancel(CALLER, 1, 1)) == []
    assert worker.said() == []
    worker.end(status=Status.CANCELLED)
    assert worker.said() == [m.JobOver(CALLER, 1, 1)]
    assert worker.told(m.Cancel(CALLER, 1, 1)) == []


def test_cancelling_what_is_not_here_is_answered_at_once(worker):
    worker.told(m.Cancel(CALLER, 5, 1))
    assert worker.said() == [m.JobOver(CALLER, 5, 1)]


def test_a_new_link_says_claims_then_ready_then_all_that_was_said_of_them(worker):
    worker.assign(1)
    worker.assign(2, reply_to="")
    worker.handle(JobResponded(CALLER, 1, 1, b"r", "raw"))
    worker.end(2)
    worker.hear("#m2", frame(2, m.TookOver(0, ABOUT), link=0, number=0, epoch=2), ("PQ_q",))
    ((_, first),) = worker.sent
    assert [type(message).__name__ for message in first.messages] == [
        "WorkerHello",
        "Claim",
        "Claim",
        "Ready",
        "Outcome",
    ]
    assert first.link == 2
    assert first.epoch == 2
    assert list(worker.role.state.uplink.link.casts) == [("#caller", "WQ_q")], "the window is 1"


def test_a_manager_that_does_not_know_the_link_is_given_a_new_one(worker):
    worker.hear("#m", frame(MANAGER, m.TookOver(1, ABOUT), target=ME, link=0, number=0, epoch=1))
    assert worker.role.state.uplink.link.number == 2
    worker.hear("#m", frame(MANAGER, m.TookOver(1, ABOUT), target=ME, link=0, number=0, epoch=1))
    assert worker.role.state.uplink.link.number == 2, "of the old one"


def test_another_managers_frame_on_the_link_is_stale(worker):
    assert worker.hear("#x", frame(9, m.Cancel(CALLER, 1, 1), target=ME, number=2, epoch=1))
    assert worker.notes()[-1] == "stale_link"


@pytest.mark.parametrize("header", [{"link": 7}, {"target": 999}, {"link": 0}])
def test_a_frame_of_another_link_is_stale(worker, header):
    worker.told(m.Cancel(CALLER, 1, 1), **header)
    assert worker.notes()[-1] == "stale_link"


def test_a_message_that_is_not_for_workers_is_noted(worker):
    worker.told(m.Accepted(3))
    assert worker.notes()[-1] == "bad_message"


def test_events_of_no_concern_change_nothing(worker):
    before = worker.role.snapshot(worker.now)
    worker.handle(Transition("PQ_q"), Tick())
    assert worker.role.snapshot(worker.now) == before


def test_offline_nothing_is_said_and_no_lease_is_renewed(worker):
    worker.assign()
    worker.handle(Disconnected("x"))
    worker.end()
    assert worker.sent == []
    assert worker.role.deadline is None


def test_a_sign_of_life_goes_out_when_nothing_else_did(worker):
    assert worker.role.deadline == worker.now + 50 * MILLISECOND
    worker.now += 50 * MILLISECOND
    worker.handle(Tick())
    worker.now += 2_500 * MILLISECOND
    assert worker.role.deadline == worker.now
    worker.handle(Tick())
    ((groups, sign),) = worker.sent
    assert (groups, sign.number, sign.messages) == (("WQ_q",), 0, [])


def test_a_hung_worker_leaves_5_s_after_the_last_slot_was_cancelled():
    worker = DrivenWorker(capacity=2).welcome()
    for counter in (1, 2):
        worker.assign(counter)
        worker.told(m.Cancel(CALLER, counter, 1))
        worker.now += SECOND
    worker.now += 3_900 * MILLISECOND
    assert worker.handle(Tick()) == []
    worker.now += 100 * MILLISECOND
    assert worker.handle(Tick())[1:] == [
        Leave("PQ_q"),
        Exit(1, "all 2 slots are held by jobs that do not stop"),
    ]
    assert worker.handle(StopRequested()) == []


def test_a_job_that_stops_after_all_frees_its_slot():
    worker = DrivenWorker(capacity=1).welcome()
    worker.assign()
    worker.told(m.Cancel(CALLER, 1, 1))
    worker.end(status=Status.CANCELLED)
    assert worker.role._hung_at() is None


def test_after_the_drain_timeout_it_waits_for_the_receipt_of_what_it_gave_back(worker):
    worker.assign()
    worker.handle(StopRequested())
    worker.told()
    worker.now += 25 * SECOND
    assert worker.handle(Tick())[0] == CancelJob(CALLER, 1, 1)
    assert worker.said()[0] == m.HandBack(CALLER, 1, 1)
    assert worker.told()[-1] == Exit(0, "drained")


def test_what_nobody_heard_is_said_when_it_leaves(worker):
    worker.assign()
    worker.end()
    worker.handle(StopRequested())
    worker.now += 2 * SECOND
    reason = "drained; nobody has heard how 1 jobs ended, so they will run again"
    assert worker.handle(Tick())[-1] == Exit(0, reason)


def test_what_is_over_is_not_given_back(worker):
    worker.assign(1)
    worker.assign(2)
    worker.end(1)
    worker.handle(StopRequested())
    cancel, note = worker.handle(StopRequested())
    assert cancel == CancelJob(CALLER, 2, 1)
    assert note.fields == {"sender": CALLER, "counter": 2}


def test_a_restored_worker_goes_on_at_another_time(worker):
    worker.assign(1)
    image = worker.role.snapshot(worker.now)
    worker.now += 1_000 * SECOND
    worker.role = Worker.restore(image, worker.now, worker.role.policy)
    assert worker.role.snapshot(worker.now) == image
    worker.end(1)
    assert worker.said() == [Outcome(CALLER, 1, 1, ME, Status.DONE, 0, b"v", "raw")]
    assert worker.role.deadline == worker.now + 200 * MILLISECOND

"""The sender, word by word; whole conversations are in `test_conversations_senders`."""

from __future__ import annotations

import pytest

from spreadq_core import messages as m
from spreadq_core.effects import Confirmed, Deliver, Join, Resolve
from spreadq_core.errors import UsageError
from spreadq_core.events import AbandonRequested, Disconnected, Tick, Transition
from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.messages import About, Closed, Confirm, Outcome, Response, SenderHello, Status, Submit
from spreadq_core.policy import Policy
from spreadq_core.sender import RANGES_LIMIT, Sender
from spreadq_core.terms import REMEMBERED_LIMIT
from tests.core.puppet import Driven, frame
from tests.core.world import request

ABOUT = About("s", "h", 1)
MANAGER, WORKER, ME = 1, 101, 201


class DrivenSender(Driven):
    """A sender and the manager's side of its link."""

    def __init__(self, **policy):
        super().__init__(Sender("q", ME, ABOUT, Policy(**policy)))
        self.numbers = 0

    def told(self, *messages, receipt=None, window=9):
        self.numbers += 1
        link = self.role.state.uplink.link
        receipt = link.sent if receipt is None else receipt
        fields = {"link": link.number, "number": self.numbers, "receipt": receipt, "window": window}
        return self.hear("#m", frame(MANAGER, *messages, target=ME, epoch=1, **fields), ("#me.1#world",))

    def welcome(self, **header):
        self.connect()
        self.told(m.Welcome(10 * SECOND), **header)
        return self

    def submit(self, *requests, **options):
        return self.handle(*(request(r, "f", b"p", **options) for r in requests))

    def answered(self, counter, payload=b"v", status=Status.DONE, responses=0):
        outcome = Outcome(ME, counter, 1, WORKER, status, responses, payload, "raw")
        said = frame(WORKER, outcome, target=MANAGER, number=5, epoch=1)
        return self.hear("#w", said, ("#me.1#world", "WQ_q"))

    def open(self):
        return list(self.role.state.open)


@pytest.fixture
def sender():
    return DrivenSender().welcome()


def test_a_connection_is_a_join_and_a_new_link_with_a_hello():
    sender = DrivenSender()
    assert sender.connect() == [Join("SQ_q")]
    ((groups, hello),) = sender.sent
    assert groups == ("MQ_q",)
    assert hello.messages == [SenderHello(ABOUT)]


def test_an_illegal_queue_is_refused():
    with pytest.raises(UsageError):
        Sender("a b", ME, ABOUT)


def test_requests_of_one_turn_travel_in_one_frame(sender):
    sender.submit(1, 2, 3)
    ((_, said),) = sender.sent
    assert [submit.counter for submit in said.messages] == [1, 2, 3]
    assert len({submit.terms for submit in said.messages}) == 1


def test_confirm_is_asked_once_at_the_end_of_the_turn(sender):
    sender.handle(request(1, confirm=True), request(2, confirm=True))
    assert [type(message) for message in sender.said()] == [Submit, Submit, Confirm]
    sender.submit(3)
    assert Confirm not in map(type, sender.said())


def test_a_request_that_is_not_possible_changes_nothing(sender):
    before = sender.role.snapshot(sender.now)
    with pytest.raises(UsageError, match="max_attempts 1001"):
        sender.submit(1, max_attempts=1_001)
    assert sender.role.snapshot(sender.now) == before


def test_terms_are_encoded_once_and_not_remembered_for_ever(sender):
    for number in range(1, REMEMBERED_LIMIT + 10):
        sender.role.handle(request(number, expiry=number * SECOND), sender.now)
    assert len(sender.role._terms) <= REMEMBERED_LIMIT


def test_closed_ids_wait_a_moment_for_company(sender):
    sender.submit(1, 2, 3)
    for counter in (1, 2):
        sender.answered(counter)
        assert sender.said() == []
    sender.now += 50 * MILLISECOND
    assert sender.role.deadline <= sender.now
    sender.handle(Tick())
    assert sender.said() == [Closed(((1, 2),))]
    sender.answered(3)
    sender.submit(4)
    assert sender.said()[1:] == [Closed(((3, 3),))]


def test_many_gaps_are_told_in_more_than_one_message():
    sender = DrivenSender()
    for number in range(2, 2 * RANGES_LIMIT + 10, 2):
        sender.role.handle(request(number), sender.now)
    sender.connect()
    closed = [message for message in sender.role.state.uplink.link.mail if type(message) is Closed]
    in_frame = [message for message in sender.said() if type(message) is Closed]
    assert [len(message.ranges) for message in (*in_frame, *closed)] == [RANGES_LIMIT, 4]


def test_an_answer_from_a_worker_or_the_manager_is_an_answer(sender):
    sender.submit(1, 2)
    assert sender.answered(1) == [
        Resolve(1, Outcome(ME, 1, 1, WORKER, Status.DONE, 0, b"v", "raw")),
    ]
    verdict = Outcome(ME, 2, 3, WORKER, Status.BURIED, 0, b"why", "text")
    alone = frame(MANAGER, verdict, link=0, number=0, epoch=1)
    assert sender.hear("#m", alone, ("#me.1#world", "WQ_q")) == [Resolve(2, verdict)]
    assert sender.open() == []


def test_a_second_answer_is_late(sender):
    sender.submit(1)
    sender.answered(1)
    sender.answered(1, b"other")
    assert sender.notes()[-1] == "late_response"


def test_somebody_elses_answer_is_none(sender):
    sender.submit(1)
    other = frame(WORKER, Outcome(999, 1, 1, WORKER, Status.DONE), target=MANAGER, number=5, epoch=1)
    sender.hear("#w", other, ("#me.1#world", "WQ_q"))
    assert sender.open() == [1]


def test_a_status_that_never_travels_is_no_answer(sender):
    sender.submit(1)
    assert sender.answered(1, status=Status.REJECTED) == []
    assert sender.open() == [1]


def test_only_outcomes_and_responses_are_taken_from_workers(sender):
    sender.submit(1)
    sender.hear("#w", frame(WORKER, m.Rejected(1, m.Refusal.QUEUE_FULL, ""), target=MANAGER, epoch=1))
    assert sender.open() == [1]


def test_responses_out_of_order_and_twice_are_delivered_once(sender):
    sender.submit(1)
    responses = [Response(ME, 1, 1, WORKER, index, b"%d" % index, "raw") for index in (1, 1, 0)]
    said = frame(WORKER, *responses, target=MANAGER, number=5, epoch=1)
    assert sender.hear("#w", said) == [Deliver(1, b"1", "raw"), Deliver(1, b"0", "raw")]


def test_an_outcome_waits_for_its_responses(sender):
    sender.submit(1)
    assert sender.answered(1, responses=2) == []
    first, second = (Response(ME, 1, 1, WORKER, index, b"", "raw") for index in (0, 1))
    assert len(sender.hear("#w", frame(WORKER, first, target=MANAGER, epoch=1))) == 1
    assert len(sender.hear("#w", frame(WORKER, second, target=MANAGER, epoch=1))) == 2
    assert sender.open() == []


def test_acceptance_is_told_once_and_closes_one_way_tasks(sender):
    sender.submit(1, 2, reply=False)
    sender.submit(3, 4)
    assert sender.told(m.Accepted(3)) == [Confirmed([1, 2, 3])]
    assert sender.open() == [3, 4]
    assert sender.told(m.Accepted(3)) == []


def test_what_is_said_of_requests_that_are_over_changes_nothing(sender):
    sender.submit(1)
    sender.answered(1)
    for message in (m.Rejected(1, m.Refusal.QUEUE_FULL, ""), m.Unserved(1), m.Accepted(1)):
        assert sender.told(message) == []


def test_a_message_that_is_not_for_senders_is_noted(sender):
    sender.told(m.Ready())
    assert sender.notes()[-1] == "bad_message"


def test_events_of_no_concern_change_nothing(sender):
    before = sender.role.snapshot(sender.now)
    sender.handle(Transition("SQ_q"), Tick())
    assert sender.role.snapshot(sender.now) == before


def test_offline_nothing_is_said(sender):
    sender.handle(Disconnected("x"))
    sender.submit(1)
    sender.handle(AbandonRequested(1))
    assert sender.sent == []
    sender.connect("#me.2#world")
    assert sender.said() == [SenderHello(ABOUT), Closed(((1, 1),))]


# --- outcomes receipt frames ------------------------------------------------------------------------


def unreceipted(sender):
    return [sent.number for sent in sender.role.state.uplink.link.unreceipted]


def test_an_outcome_receipts_the_frame_of_its_task_and_all_before(sender):
    sender.submit(1)
    sender.submit(2, 3)
    sender.submit(4)
    assert unreceipted(sender) == [2, 3, 4]
    sender.answered(2)
    assert unreceipted(sender) == [4]
    sender.answered(1)
    sender.answered(3)
    assert unreceipted(sender) == [4]


def test_a_response_receipts_too(sender):
    sender.submit(1)
    response = Response(ME, 1, 1, WORKER, 0, b"", "raw")
    sender.hear("#w", frame(WORKER, response, target=MANAGER, epoch=1))
    assert unreceipted(sender) == []


def test_an_outcome_of_a_task_from_an_earlier_link_receipts_nothing(sender):
    sender.submit(1)
    sender.connect("#me.2#world")
    sender.numbers = 0
    sender.told(m.Welcome(10 * SECOND), receipt=0)
    sender.submit(2)
    assert sender.role.state.uplink.link.number == 2
    before = unreceipted(sender)
    sender.answered(1)
    assert unreceipted(sender) == before


def test_marks_go_with_the_receipts_of_their_frames(sender):
    for number in range(1, 50):
        sender.submit(number, reply=False)
        sender.told()
        assert len(sender.role.state.marks) <= 1
    assert sender.role.state.marks == []


def test_a_restored_sender_goes_on_at_another_time(sender):
    sender.submit(1, 2, expiry=5 * SECOND)
    image = sender.role.snapshot(sender.now)
    sender.now += 1_000 * SECOND
    sender.role = Sender.restore(image, sender.now, sender.role.policy)
    assert sender.role.snapshot(sender.now) == image
    assert len(sender.answered(1)) == 1
    sender.now += 6 * SECOND
    (resolve,) = sender.handle(Tick())
    assert resolve.outcome.payload == b"not done in 6 s"

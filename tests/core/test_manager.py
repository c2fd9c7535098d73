"""The manager, word by word; whole conversations are in `test_conversations_managers`."""

from __future__ import annotations

import msgspec
import pytest

from spreadq_core import commands as c
from spreadq_core import messages as m
from spreadq_core.effects import Exit, Join, KeepEpoch
from spreadq_core.errors import UsageError
from spreadq_core.events import Received, StopRequested, Tick, Transition
from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.manager import Manager
from spreadq_core.messages import About, Accepted, Outcome, SenderHello, Status, Submit, WorkerHello
from spreadq_core.policy import Policy
from spreadq_core.terms import Terms
from spreadq_core.terms import encode as encode_terms
from tests.core.puppet import START, Driven, frame

ABOUT = About("x", "h", 1)
ME, WORKER, SENDER = 1, 101, 201
OWN = "#me.1#world"
W, S = "#w.1#world", "#s.1#world"
CALL = encode_terms(Terms("f", "raw", 0, 3, 0, 0, True))
ONE_WAY = encode_terms(Terms("f", "raw", 0, 3, 0, 0, False))


class DrivenManager(Driven):
    """A manager, and the peers' sides of its links."""

    def __init__(self, **options):
        super().__init__(Manager("q", ME, ABOUT, START, **options))
        self.numbers = {}

    def take_over(self):
        self.connect(OWN)
        for group in ("XQ_q", "MQ_q", "WQ_q", "CQ_q"):
            self.view(group, OWN)
        self.view("PQ_q", OWN, W)
        self.view("SQ_q", OWN, S)
        return self

    def says(self, session, source, *messages, **header):
        """The next frame of a peer's link."""
        link = header.pop("link", 1)
        number = self.numbers[source, link] = self.numbers.get((source, link), 0) + 1
        target = 0 if number == 1 else ME
        peer = self.role.peers.get(source)
        receipt = peer.link.sent if peer is not None else 0
        fields = {"target": target, "number": number, "receipt": receipt, "epoch": 1, **header}
        return self.hear(session, frame(source, *messages, link=link, **fields))

    def cluster(self):
        self.take_over()
        self.says(W, WORKER, WorkerHello(ABOUT, 2, ("f",)), m.Ready())
        self.says(S, SENDER, SenderHello(ABOUT))
        return self

    def submits(self, *counters, terms=CALL):
        return self.says(S, SENDER, *(Submit(counter, terms, b"p") for counter in counters))

    def ended(self, counter, status=Status.DONE, groups=("WQ_q", S)):
        outcome = Outcome(SENDER, counter, 1, WORKER, status, 0, b"v", "raw")
        number = self.numbers[WORKER, 1] = self.numbers[WORKER, 1] + 1
        return self.hear(W, frame(WORKER, outcome, target=ME, number=number, epoch=1), groups)

    def to(self, session):
        return [message for groups, f in self.sent if groups == (session,) for message in f.messages]


@pytest.fixture
def manager():
    return DrivenManager().cluster()


def test_taking_over_is_kept_before_it_is_said():
    manager = DrivenManager()
    assert manager.connect(OWN) == [Join("XQ_q")]
    assert [effect.group for effect in manager.view("XQ_q", OWN)] == ["MQ_q", "WQ_q", "CQ_q", "PQ_q", "SQ_q"]
    for group in ("MQ_q", "WQ_q", "CQ_q", "PQ_q"):
        assert manager.view(group, OWN) == []
    effects = manager.view("SQ_q", OWN)
    assert effects[0] == KeepEpoch(1)
    ((groups, said),) = manager.sent
    assert groups == ("PQ_q", "SQ_q", "XQ_q")
    assert (said.epoch, said.link) == (1, 0)
    assert said.messages == [m.TookOver(0, ABOUT)]


def test_an_illegal_queue_or_image_is_refused():
    with pytest.raises(UsageError):
        Manager("", ME, ABOUT, START)
    with pytest.raises(msgspec.MsgspecError):
        Manager("q", ME, ABOUT, START, image=b"?")


def test_peers_are_welcome(manager):
    assert m.Welcome(10 * SECOND) in manager.to(S)
    assert manager.role.queue.state.workers.keys() == {WORKER}


def test_a_worker_is_given_tasks_when_it_is_seen_and_greeted():
    manager = DrivenManager().take_over()
    manager.view("PQ_q", OWN)
    manager.says(W, WORKER, WorkerHello(ABOUT, 2, ("f",)), m.Ready())
    manager.says(S, SENDER, SenderHello(ABOUT), Submit(1, CALL, b"p"))
    assert manager.to(W) == []
    manager.view("PQ_q", OWN, W)
    assert [type(message) for message in manager.to(W)] == [m.Assign]


def test_all_assignments_of_a_turn_travel_in_one_frame(manager):
    manager.submits(1, 2)
    frames = [f for groups, f in manager.sent if groups == (W,)]
    assert [len(f.messages) for f in frames] == [2]


def test_an_assignment_says_where_the_reply_goes(manager):
    manager.submits(1)
    manager.submits(2, terms=ONE_WAY)
    (assign,) = manager.to(W)
    assert assign.reply_to == ""
    assert manager.role.queue.task(SENDER, 2).live == (1, WORKER)


def test_before_it_manages_it_says_and_hears_nothing_of_tasks():
    manager = DrivenManager()
    manager.connect(OWN)
    manager.says(S, SENDER, SenderHello(ABOUT), Submit(1, CALL, b"p"))
    assert manager.role.queue.state.accepted == 0
    assert manager.sent == []


def test_after_it_stopped_it_hears_nothing(manager):
    assert manager.handle(StopRequested()) == [Exit(0, "stopped")]
    manager.submits(1)
    assert manager.role.queue.state.accepted == 0
    assert manager.handle(StopRequested()) == []


def test_messages_that_peers_may_not_send_are_noted_and_change_nothing(manager):
    manager.says(S, SENDER, m.Ready())
    manager.says(W, WORKER, Submit(1, CALL, b""))
    assert manager.notes()[-2:] == ["bad_message", "bad_message"]
    assert manager.role.queue.state.tasks == 0


def test_messages_that_stand_alone_and_mean_nothing_are_noted(manager):
    manager.hear(S, frame(SENDER, Submit(1, CALL, b""), link=0, number=0))
    assert manager.notes()[-1] == "bad_message"


def test_what_is_no_frame_is_noted(manager):
    manager.handle(Received(S, ("MQ_q",), 0, b"perl"))
    assert manager.effects[-1].fields == {"sender": S, "reason": "message type 0 is none of ours"}


def test_a_transition_changes_nothing(manager):
    before = manager.role.snapshot(manager.now)
    manager.handle(Transition("PQ_q"))
    assert manager.role.snapshot(manager.now) == before


# --- links ----------------------------------------------------------------------------------------


def test_a_link_that_is_not_known_is_not_heard_but_called_for(manager):
    manager.hear("#z", frame(202, Submit(1, CALL, b"p"), target=ME, link=4, number=7))
    assert manager.role.queue.state.accepted == 0
    ((groups, said),) = manager.sent
    assert groups == ("#z",)
    assert (said.link, said.target, said.messages) == (0, 202, [m.TookOver(4, ABOUT)])


@pytest.mark.parametrize(
    "header", [{"number": 2}, {"target": ME}, {"link": 1}], ids=["not first", "to us alone", "not newer"]
)
def test_a_frame_that_does_not_open_a_link_opens_none(manager, header):
    fields = {"link": 2, "number": 1, "target": 0, **header}
    before = manager.role.state.peers.senders[SENDER].link
    manager.hear("#s.2#world", frame(SENDER, SenderHello(ABOUT), **fields))
    assert manager.role.state.peers.senders[SENDER].link is before


def test_a_link_opens_with_a_hello():
    manager = DrivenManager().take_over()
    for messages in ([], [m.Ready()], [Submit(1, CALL, b"p")]):
        manager.hear(S, frame(SENDER, *messages))
        assert manager.role.state.peers.senders == {}


def test_nobody_is_a_worker_and_a_sender(manager):
    manager.hear(S, frame(SENDER, WorkerHello(ABOUT, 1, None), link=2))
    manager.hear(W, frame(WORKER, SenderHello(ABOUT), link=2))
    assert manager.role.state.peers.senders.keys() == {SENDER}
    assert manager.role.state.peers.workers.keys() == {WORKER}


def test_a_frame_of_an_older_link_is_stale(manager):
    manager.numbers.clear()
    manager.says(S, SENDER, SenderHello(ABOUT), link=2)
    manager.hear(S, frame(SENDER, Submit(1, CALL, b"p"), target=ME, link=1, number=2))
    assert manager.notes()[-1] == "stale_link"
    assert manager.sent == []
    assert manager.role.queue.state.accepted == 0


def test_a_success_counts_whatever_link_it_comes_on(manager):
    manager.submits(1)
    outcome = Outcome(SENDER, 1, 1, WORKER, Status.DONE, 0, b"v", "raw")
    manager.hear(W, frame(WORKER, outcome, target=77, link=9, number=5), ("WQ_q", S))
    assert manager.role.queue.state.counts.done == 1


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(SENDER, 1, 1, WORKER, Status.FAILED),
        Outcome(SENDER, 1, 1, 999, Status.DONE),
    ],
    ids=["a failure", "somebody else's"],
)
def test_but_only_a_success_and_only_ones_own(manager, outcome):
    manager.submits(1)
    manager.hear(W, frame(WORKER, outcome, target=77, link=9, number=5), ("WQ_q", S))
    assert manager.role.queue.task(SENDER, 1).live == (1, WORKER)


def test_a_worker_that_comes_back_out_of_range_keeps_its_old_link(manager):
    before = manager.role.state.peers.workers[WORKER].link
    manager.numbers.clear()
    manager.says(W, WORKER, WorkerHello(ABOUT, 0, None), m.Ready(), link=2)
    assert manager.role.state.peers.workers[WORKER].link is before
    assert manager.notes()[-1] == "ignored"


# --- acceptance -----------------------------------------------------------------------------------


def test_acceptance_is_told_after_5_ms(manager):
    manager.submits(1, 2)
    assert manager.to(S) == []
    assert manager.role.deadline == manager.now + 5 * MILLISECOND
    manager.now += 5 * MILLISECOND
    manager.handle(Tick())
    assert manager.to(S) == [Accepted(2)]


def test_confirm_is_answered_at_once(manager):
    manager.says(S, SENDER, Submit(1, CALL, b"p"), m.Confirm())
    assert manager.to(S) == [Accepted(1)]


def test_nothing_is_told_twice(manager):
    manager.says(S, SENDER, Submit(1, CALL, b"p"), m.Confirm())
    manager.says(S, SENDER, m.Confirm())
    assert manager.to(S) == []


def test_to_confirm_nothing_is_nothing():
    manager = DrivenManager().take_over()
    manager.says(S, SENDER, SenderHello(ABOUT), m.Confirm())
    assert manager.to(S) == [m.Welcome(10 * SECOND)]


# --- what became of it ----------------------------------------------------------------------------


def test_an_outcome_that_its_caller_did_not_hear_is_sent_at_once(manager):
    manager.submits(1)
    manager.ended(1, groups=("WQ_q",))
    assert [type(message) for message in manager.to(S)] == [Outcome]


def test_outcomes_are_sent_again_oldest_first_when_their_time_has_come(manager):
    manager.submits(1, 2, 3)
    manager.ended(1)
    manager.ended(2)
    manager.now += 200 * MILLISECOND
    manager.handle(Tick())
    assert Outcome not in map(type, manager.to(S))
    manager.ended(3)
    manager.now += 200 * MILLISECOND
    manager.handle(Tick())
    assert [message.counter for message in manager.to(S) if type(message) is Outcome] == [1, 2]
    assert manager.role.state.peers.senders[SENDER].unclosed == [3]


def test_what_was_closed_meanwhile_is_not_sent_again(manager):
    manager.submits(1)
    manager.ended(1)
    manager.says(S, SENDER, m.Closed(((1, 1),)))
    for _ in range(2):
        manager.now += 200 * MILLISECOND
        manager.handle(Tick())
    assert Outcome not in map(type, manager.to(S))
    assert manager.role.state.peers.senders[SENDER].unclosed == []


def test_what_the_queue_says_to_who_is_not_here_is_not_said(manager):
    manager.submits(1, 2)
    manager.view("SQ_q", OWN)
    manager.now += 61 * SECOND
    manager.says(W, WORKER)
    manager.handle(Tick())
    assert manager.role.state.peers.senders == {}
    manager.view("PQ_q", OWN)
    manager.says("#w.2#world", 102, WorkerHello(ABOUT, 1, ("g",)), m.Ready())
    assert manager.role.queue.schedule.waiting() == {"f": 2}
    manager.role._say(c.Say(SENDER, m.Unserved(1)))
    assert manager.role.flush(manager.now) == []


def test_a_verdict_on_a_task_whose_caller_is_gone_is_for_ourselves(manager):
    manager.submits(1)
    manager.view("SQ_q", OWN)
    manager.now += 61 * SECOND
    manager.says(W, WORKER)
    manager.handle(Tick())
    manager.ended(1, Status.FAILED, groups=("WQ_q",))
    assert [groups for groups, f in manager.sent if f.messages] == [("WQ_q",)]


def test_a_verdict_that_was_overtaken_is_not_sent(manager):
    manager.submits(1)
    outcome = Outcome(SENDER, 1, 1, WORKER, Status.FAILED, 0, b"E", "text")
    success = Outcome(SENDER, 1, 1, WORKER, Status.DONE, 0, b"v", "raw")
    manager.says(W, WORKER, outcome, success)
    assert [f.link for _, f in manager.sent if Outcome in map(type, f.messages)] == [1]
    assert manager.role.state.judged == []


def test_our_own_words_that_are_no_verdict_are_not_heard(manager):
    before = manager.role.snapshot(manager.now)
    manager.hear(OWN, frame(ME, m.TookOver(0, ABOUT), link=0, number=0, epoch=1))
    assert manager.role.snapshot(manager.now) == before


def test_nobody_takes_over_who_does_not_meet_the_managers(manager):
    manager.hear(S, frame(9, m.TookOver(0, ABOUT), link=0, number=0, epoch=99), ("XQ_q",))
    assert manager.role.primacy.manages
    assert manager.notes()[-1] == "bad_message"


# --- departures -----------------------------------------------------------------------------------


def test_presence_is_looked_for_in_the_right_group(manager):
    """Anybody can join any group: a worker among the senders is no sender, and may leave it."""
    manager.view("SQ_q", OWN, S, W)
    manager.view("SQ_q", OWN, S)
    assert manager.role.state.peers.workers.keys() == {WORKER}
    manager.view("PQ_q", OWN, W, S)
    manager.view("SQ_q", OWN)
    assert manager.role.state.absent_at.keys() == {SENDER}
    manager.view("PQ_q", OWN, W)
    manager.view("PQ_q", OWN, W, S)
    assert manager.role.state.absent_at.keys() == {SENDER}


def test_status_is_for_the_primary():
    policy = Policy()
    manager = DrivenManager(policy=policy)
    manager.connect(OWN)
    assert manager.hear("#a", frame(9, m.StatusRequest(), link=0, number=0)) == []


def test_a_restored_manager_goes_on_at_another_time(manager):
    manager.submits(1, 2, 3)
    manager.ended(1)
    image = manager.role.snapshot(manager.now)
    manager.now += 1_000 * SECOND
    manager.role = Manager.restore(image, manager.now)
    assert manager.role.snapshot(manager.now) == image
    manager.ended(2)
    assert manager.role.queue.state.counts.done == 2
    for _ in range(2):
        manager.now += 200 * MILLISECOND
        manager.handle(Tick())
    assert [message.counter for message in manager.to(S) if type(message) is Outcome] == [1, 2]

"""The sender: gets tasks accepted, and their outcomes back to whoever waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from spreadq_core import events as e
from spreadq_core import messages as m
from spreadq_core.effects import Confirmed, Deliver, Effect, Exit, Leave, Note, Resolve, Send, Service
from spreadq_core.errors import PeerError, UsageError
from spreadq_core.ids import ANYBODY, Instance, Nanos, QueueGroups, earliest
from spreadq_core.image import freeze, thaw
from spreadq_core.link import Groups, Link, Speaker
from spreadq_core.messages import About, AnyMessage, Outcome, Response, Status, Submit
from spreadq_core.notes import NoteName
from spreadq_core.policy import DEFAULT, Policy
from spreadq_core.terms import REMEMBERED_LIMIT, Terms
from spreadq_core.terms import encode as encode_terms
from spreadq_core.timers import Timeouts
from spreadq_core.uplink import Uplink

RANGES_LIMIT = 1_000
"""Ranges of closed tasks in one message."""

MAIL_SPARE = 100
"""Messages that may wait for a manager beyond two for each open task."""


class Request(msgspec.Struct, gc=False):
    """A task that is open here."""

    submit: Submit  # as it was sent
    reply: bool  # its outcome is waited for
    asked_at: Nanos  # when its owner asked for it
    unserved: bool = False  # nobody served its function when it was accepted
    answered: dict[int, None] = {}  # indexes of the responses that came
    outcome: Outcome | None = None  # that came before all of its responses


class SenderState(msgspec.Struct, gc=False):
    """All state of a sender."""

    uplink: Uplink  # its way to the manager
    last: int = 0  # the highest counter given to a task
    open: dict[int, Request] = {}  # tasks that are not resolved
    unaccepted_at: dict[int, Nanos] = {}  # those that nobody has accepted yet, and when they were asked for
    expires_at: dict[int, Nanos] = {}  # when those end that do not wait for ever
    closing: list[list[int]] = []  # ranges that the manager is to be told are closed
    # for each frame of this link with new tasks in it: the first, the last, and its number
    marks: list[tuple[int, int, int]] = []
    marked: int = 0  # no task up to this one is new on this link
    confirm: bool = False  # somebody waits for the acceptance of a task that goes out this turn
    heard_at: Nanos | None = None  # when a manager was last heard, or we were connected
    managed: bool = False  # a manager was ever heard
    stop_at: Nanos | None = None  # when it leaves, whatever is open
    left: bool = False  # it is at its end


class Sender:
    """Submits tasks to one queue.

    Args:
        queue: the queue's name.
        instance: its own identity.
        about: who it is, for people.
        policy: limits and defaults.

    Raises:
        UsageError: the queue's name is illegal.
    """

    def __init__(self, queue: str, instance: Instance, about: About, policy: Policy = DEFAULT) -> None:
        self.groups = QueueGroups.of(queue)
        self.policy = policy
        self._home: Groups = (self.groups.submit,)
        link = Link(0, self._home, Service.AGREED)
        uplink = Uplink(Speaker(queue, instance, 0), about, self._home, self.groups.senders, link)
        self.state = SenderState(uplink)
        self._expiries = Timeouts(self.state.expires_at)
        self._terms: dict[Terms, bytes] = {}
        self._handlers: dict[type, Any] = {
            e.Received: self._received,
            e.SubmitRequested: self._submit,
            e.AbandonRequested: self._abandon,
            e.Tick: self._tick,
            e.Connected: self._connected,
            e.Disconnected: self._disconnected,
            e.StopRequested: self._stop,
            m.Outcome: self._outcome,
            m.Response: self._response,
            m.Accepted: self._accepted,
            m.Rejected: self._rejected,
            m.Unserved: self._unserved,
            m.Welcome: self._welcome,
        }
        self._now: Nanos = 0
        self._effects: list[Effect] = []

    def check(self, event: e.SubmitRequested) -> None:
        """See whether a request is possible, before it is handled.

        Raises:
            UsageError: it is not; the message says what is.
        """
        size = len(event.payload) + len(event.headers)
        if size > self.policy.payload_limit:
            raise UsageError(f"payload and headers of {size} bytes, {self.policy.payload_limit} at most")
        if len(self.state.open) >= self.policy.open_limit:
            raise UsageError(
                f"{len(self.state.open)} requests are not resolved yet, and no more may be; wait for some"
            )

    # --- the role -------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: Nanos) -> list[Effect]:
        """Take an event; give what is to be done. Never raises for what peers do.

        Raises:
            UsageError: for a request that `check` refuses.
        """
        state = self.state
        self._now, self._effects = now, []
        handler = self._handlers.get(type(event))
        if handler is not None and not state.left:
            handler(event)
            if state.stop_at is not None and (not state.unaccepted_at or now >= state.stop_at):
                state.left = True
                self._effects += [Leave(self.groups.senders), Exit(0, "stopped")]
        return self._effects

    def flush(self, now: Nanos) -> list[Send]:
        """End a turn: all that is to be said, in as few frames as possible."""
        state, link = self.state, self.state.uplink.link
        if len(link.mail) > 2 * len(state.open) + MAIL_SPARE:  # nobody takes it; most may be over by now
            link.mail = [said for said in link.mail if type(said) is not Submit or said.counter in state.open]
        if not state.uplink.session:
            return []
        has_room = link.has_room
        if state.closing and has_room and (link.mail or state.left or link.is_due(now, self.policy)):
            self._say_closed(state.closing)
            state.closing = []
        if state.confirm and has_room and link.mail:
            link.mail.append(m.Confirm())
            state.confirm = False
        known = len(link.unreceipted)
        out = state.uplink.flush(now, self.policy, self._silence)
        for sent in link.unreceipted[known:]:
            self._mark(sent.number, sent.messages)
        if state.closing and link.owed_at is None:
            link.owed_at = now  # they wait for a frame to ride on, as receipts do
        return out

    @property
    def deadline(self) -> Nanos | None:
        """When it next wants a `Tick`."""
        state = self.state
        if state.left:
            return None
        return earliest(
            state.uplink.deadline(self.policy, self._silence),
            self._expiries.deadline,
            self._give_up_at(),
            state.stop_at,
        )

    @property
    def _silence(self) -> Nanos:
        """How long we may be silent: a manager that does not know what we hold open would call us."""
        return self.policy.lease if self.state.open else 0

    def snapshot(self, now: Nanos) -> bytes:
        """All state as bytes; equal situations give equal bytes."""
        return freeze(self.state, now)

    @classmethod
    def restore(cls, image: bytes, now: Nanos, policy: Policy = DEFAULT) -> Sender:
        """The sender that `snapshot` was taken of, as if the time were `now`."""
        state = thaw(SenderState, image, now)
        speaker = state.uplink.speaker
        sender = cls(speaker.queue, speaker.instance, state.uplink.about, policy)
        sender.state = state
        sender._expiries = Timeouts(state.expires_at)
        return sender

    # --- requests -------------------------------------------------------------------------------

    def _submit(self, event: e.SubmitRequested) -> None:
        state, now, counter = self.state, self._now, event.request
        terms, encoded = event.terms, self._encoded_terms(event.terms)
        if counter <= state.last:
            raise UsageError(f"request {counter} is not above {state.last}, the last one")
        if counter > state.last + 1:
            self._close(state.last + 1, counter - 1)
        state.last = counter
        submit = Submit(counter, encoded, event.payload, event.headers)
        state.open[counter] = Request(submit, terms.reply, now)
        state.unaccepted_at[counter] = now
        if terms.expiry:
            self._expiries.add(counter, now + terms.expiry)
        if event.confirm:
            state.confirm = True
        state.uplink.link.mail.append(submit)

    def _encoded_terms(self, terms: Terms) -> bytes:
        encoded = self._terms.get(terms)
        if encoded is None:
            if fault := terms.fault():
                raise UsageError(fault)
            if len(self._terms) >= REMEMBERED_LIMIT:
                self._terms.clear()
            encoded = self._terms[terms] = encode_terms(terms)
        return encoded

    def _abandon(self, event: e.AbandonRequested) -> None:
        if event.request in self.state.open:
            self._drop(event.request)

    def _drop(self, counter: int) -> None:
        """The request is not open any more."""
        state = self.state
        del state.open[counter]
        state.unaccepted_at.pop(counter, None)
        if state.expires_at:
            self._expiries.discard(counter)
        self._close(counter, counter)

    def _close(self, first: int, last: int) -> None:
        state = self.state
        if state.closing and state.closing[-1][1] == first - 1:
            state.closing[-1][1] = last
        else:
            state.closing.append([first, last])

    def _resolve(self, counter: int, outcome: Outcome) -> None:
        self._drop(counter)
        self._effects.append(Resolve(counter, outcome))

    def _fail(self, counter: int, status: Status, reason: str) -> None:
        instance = self.state.uplink.speaker.instance
        self._resolve(counter, Outcome(instance, counter, 0, ANYBODY, status, 0, reason.encode(), "text"))

    # --- connection and link --------------------------------------------------------------------

    def _connected(self, event: e.Connected) -> None:
        self.state.heard_at = self._now
        self._effects.append(self.state.uplink.connected(event))
        self._open_link()

    def _disconnected(self, _: e.Disconnected) -> None:
        self.state.uplink.session = ""

    def _open_link(self) -> None:
        """Greet whoever manages, and say what is closed and, again, what is open."""
        state = self.state
        first = state.uplink.link.number == 0
        link = state.uplink.open(m.SenderHello(state.uplink.about), self.policy, self._now)
        gaps, before = [], 0
        for counter in [*state.open, state.last + 1]:
            if counter > before + 1:
                gaps.append([before + 1, counter - 1])
            before = counter
        self._say_closed(gaps)
        state.closing = []
        for request in state.open.values():
            request.submit.again = state.managed  # who never heard a manager was hardly heard by one
            link.mail.append(request.submit)
        state.marks, state.marked = [], 0 if first else state.last
        state.confirm = bool(state.unaccepted_at)

    def _say_closed(self, ranges: list[list[int]]) -> None:
        for start in range(0, len(ranges), RANGES_LIMIT):
            some = tuple((first, last) for first, last in ranges[start : start + RANGES_LIMIT])
            self.state.uplink.link.mail.append(m.Closed(some))

    def _mark(self, number: int, messages: list[AnyMessage]) -> None:
        """Remember which new tasks a frame has: the outcome of one of them receipts the frame."""
        state = self.state
        counters = [message.counter for message in messages if type(message) is Submit]
        if counters and counters[0] > state.marked:
            state.marks.append((counters[0], counters[-1], number))
            state.marked = counters[-1]

    def _receipted_by(self, counter: int) -> None:
        """A task has an outcome: whoever assigned it had its frame, and all frames before."""
        marks, passed = self.state.marks, 0
        while passed < len(marks) and marks[passed][0] <= counter:
            passed += 1
        if passed and counter <= marks[passed - 1][1]:
            self.state.uplink.link.receipted(marks[passed - 1][2], self._now)
        del marks[:passed]

    def _received(self, event: e.Received) -> None:
        state, uplink = self.state, self.state.uplink
        messages: Sequence[AnyMessage]
        try:
            frame = uplink.read(event)
            if frame.link and frame.target != uplink.speaker.instance:  # a worker's: its outcomes are ours
                messages = [said for said in frame.messages if isinstance(said, Outcome | Response)]
            elif uplink.is_called(frame):
                self._open_link()
                return
            elif frame.link:
                receipted, messages = uplink.receive(frame, self._now)
                state.heard_at, state.managed = self._now, True
                if receipted:
                    number = receipted[-1].number
                    state.marks = [mark for mark in state.marks if mark[2] > number]
            else:  # a verdict
                messages = frame.messages
        except PeerError as error:
            self._note(error.note, sender=event.sender, reason=str(error))
            return
        for message in messages:
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(message)
            else:
                self._note(NoteName.BAD_MESSAGE, sender=event.sender, message=type(message).__name__)

    # --- answers --------------------------------------------------------------------------------

    def _outcome(self, outcome: Outcome) -> None:
        request = self._answered(outcome)
        if request is None or outcome.status > Status.CANCELLED:
            return
        if outcome.status is Status.DONE and len(request.answered) < outcome.responses:
            request.outcome = outcome
        elif outcome.status is Status.EXPIRED and not outcome.number:  # the manager was a little quicker
            self._expire(outcome.counter)
        else:
            self._resolve(outcome.counter, outcome)

    def _response(self, response: Response) -> None:
        request = self._answered(response)
        if request is None or response.index in request.answered:
            return
        request.answered[response.index] = None
        self._effects.append(Deliver(response.counter, response.payload, response.codec))
        if request.outcome is not None and len(request.answered) >= request.outcome.responses:
            self._resolve(response.counter, request.outcome)

    def _answered(self, message: Outcome | Response) -> Request | None:
        request = self.state.open.get(message.counter)
        if request is None or message.sender != self.state.uplink.speaker.instance:
            self._note(NoteName.LATE_RESPONSE, counter=message.counter)
            return None
        if self.state.marks:
            self._receipted_by(message.counter)
        return request

    # --- what the manager says ------------------------------------------------------------------

    def _welcome(self, _: m.Welcome) -> None:
        self._note(NoteName.WELCOMED, epoch=self.state.uplink.speaker.epoch)

    def _accepted(self, message: m.Accepted) -> None:
        state, confirmed = self.state, []
        for counter in state.unaccepted_at:
            if counter > message.upto:
                break
            confirmed.append(counter)
        for counter in confirmed:
            del state.unaccepted_at[counter]
            if not state.open[counter].reply:
                self._drop(counter)
        if confirmed:
            self._effects.append(Confirmed(confirmed))

    def _rejected(self, message: m.Rejected) -> None:
        if message.counter in self.state.open:
            self._fail(message.counter, Status.REJECTED, message.reason)

    def _unserved(self, message: m.Unserved) -> None:
        request = self.state.open.get(message.counter)
        if request is not None:
            request.unserved = True

    # --- the end, and time ----------------------------------------------------------------------

    def _stop(self, _: e.StopRequested) -> None:
        """What is not accepted yet has a moment to be, unless we are told twice; the rest needs us not."""
        state = self.state
        state.stop_at = self._now + (self.policy.farewell if state.stop_at is None else 0)

    def _give_up_at(self) -> Nanos | None:
        """When the request that waits longest to be accepted has waited too long for a manager."""
        state = self.state
        for asked_at in state.unaccepted_at.values():
            wait = self.policy.outage_wait if state.managed else self.policy.manager_wait
            return max(asked_at, state.heard_at or asked_at) + wait
        return None

    def _tick(self, _: e.Tick) -> None:
        state, now = self.state, self._now
        for counter in self._expiries.due(now):
            self._expire(counter)
        while (give_up_at := self._give_up_at()) is not None and now >= give_up_at:
            queue = state.uplink.speaker.queue
            reason = f"nobody manages queue {queue}; start `sqm {queue}` or `spreadq serve {queue}`"
            if not state.uplink.session:
                reason = "the connection to Spread is lost, and no new one can be made"
            self._fail(next(iter(state.unaccepted_at)), Status.NO_MANAGER, reason)

    def _expire(self, counter: int) -> None:
        request = self.state.open[counter]
        waited = f"not done in {(self._now - request.asked_at) / 1e9:.3g} s"
        if request.unserved:
            waited += ", and no worker served its function when it was accepted"
        self._fail(counter, Status.UNSERVED if request.unserved else Status.EXPIRED, waited)

    def _note(self, name: NoteName, /, **fields: Any) -> None:
        self._effects.append(Note(name, fields))

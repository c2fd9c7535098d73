"""The manager: gives its task queue ears, a voice and a clock.

It turns what peers say and what time does into commands for the `TaskQueue`, and the queue's
decisions into messages. The queue decides; the manager only proposes.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import msgspec

from spreadq_core import commands as c
from spreadq_core import events as e
from spreadq_core import messages as m
from spreadq_core.codec import decode
from spreadq_core.effects import Effect, Exit, Note, Send
from spreadq_core.errors import PeerError
from spreadq_core.ids import ANYBODY, Instance, Nanos, QueueGroups, earliest
from spreadq_core.image import freeze, thaw
from spreadq_core.link import Speaker
from spreadq_core.messages import About, AnyMessage, Frame, Outcome, Status
from spreadq_core.notes import NoteName
from spreadq_core.peers import Peer, Peers, PeersState, SenderPeer, WorkerPeer
from spreadq_core.policy import Policy
from spreadq_core.primacy import Primacy, PrimacyState, Stage
from spreadq_core.records import AttemptKey
from spreadq_core.report import AgeMarks, report
from spreadq_core.task_queue import TaskQueue
from spreadq_core.timers import Timeouts

TaskKey = tuple[Instance, int]


class ManagerState(msgspec.Struct, gc=False):
    """All state of a manager, beside its queue's.

    Args:
        speaker: who it is.
        about: for people.
        started_at: when it was made.
        primacy: whether it manages.
        peers: who has a link.
        marks: how old tasks are.
        expires_at: when tasks expire.
        limit_at: when attempts pass their run limit.
        verdict_at: when each verdict was last sent.
        hold_at: until when tasks that come again are held for claims.
        remembers: it knows all that is accepted.
        queue: image of the task queue; only in a snapshot.
    """

    speaker: Speaker
    about: About
    started_at: Nanos
    primacy: PrimacyState
    remembers: bool
    peers: PeersState = msgspec.field(default_factory=PeersState)
    marks: AgeMarks = msgspec.field(default_factory=AgeMarks)
    expires_at: dict[TaskKey, Nanos] = {}
    limit_at: dict[AttemptKey, Nanos] = {}
    verdict_at: dict[TaskKey, Nanos] = {}
    hold_at: Nanos | None = None
    queue: bytes = b""


class Manager:
    """Manages one queue.

    Args:
        queue: the queue's name.
        instance: its own identity.
        about: who it is, for people.
        now: the time.
        policy: limits and defaults.
        epoch: the highest that was kept for this queue, 0 for none.
        image: what `image()` of an earlier manager of this queue gave when it stopped.

    Raises:
        UsageError: the queue's name is illegal.
        msgspec.MsgspecError: the image is none.
    """

    def __init__(
        self,
        queue: str,
        instance: Instance,
        about: About,
        now: Nanos,
        policy: Policy = Policy(),
        epoch: int = 0,
        image: bytes | None = None,
    ) -> None:
        speaker = Speaker(queue, instance, epoch)
        state = ManagerState(speaker, about, now, PrimacyState(heard=epoch), image is not None)
        self._set_up(state, TaskQueue(policy) if image is None else TaskQueue.restore(policy, image), policy)
        for worker in self.queue.state.workers.values():  # what it holds waits for its claims
            self.queue.apply(c.GreetWorker(worker.instance, worker.capacity, worker.functions))
            self.peers.await_worker(worker.instance, now)
        self._judged = list(self.queue.state.verdicts.values())

    def _set_up(self, state: ManagerState, queue: TaskQueue, policy: Policy) -> None:
        self.state, self.queue, self.policy = state, queue, policy
        self.groups = QueueGroups.of(state.speaker.queue)
        self.primacy = Primacy(self.groups, state.speaker, state.about, policy, state.primacy)
        self.peers = Peers(self.groups, policy, state.peers)
        self._expiries = Timeouts(state.expires_at)
        self._limits = Timeouts(state.limit_at)
        self._judged: list[Outcome] = []  # verdicts that go out at the end of the turn
        self._strays: list[Send] = []  # other frames that belong to no link
        self._now: Nanos = state.started_at
        self._effects: list[Effect] = []
        self._heard_by: tuple[str, ...] = ()  # who else got the frame that is being handled
        self._events: dict[type, Any] = {
            e.Received: self._received,
            e.Tick: self._tick,
            e.ViewChanged: self._view_changed,
            e.Connected: self._connected,
            e.Disconnected: self._disconnected,
            e.StopRequested: self._stop,
        }
        self._from_sender: dict[type, Any] = {
            m.Submit: self._submits,
            m.Closed: self._closed,
            m.Confirm: self._confirm,
            m.SenderHello: _nothing,
        }
        self._from_worker: dict[type, Any] = {
            m.Outcome: self._outcomes,
            m.Response: self._responses,
            m.JobOver: self._jobs_over,
            m.HandBack: self._handed_back,
            m.Claim: self._claims,
            m.Ready: self._ready,
            m.Draining: self._draining,
            m.WorkerHello: _nothing,
        }
        self._decisions: dict[type, Any] = {
            c.Assigned: self._assigned,
            c.Settled: self._settled,
            c.Expiring: self._expiring,
            c.Stranded: self._stranded,
            c.Refused: self._refused,
            c.Judged: self._judge,
            c.AskedAgain: self._asked_again,
            c.Revoked: self._revoked,
            c.Ignored: self._ignored,
        }

    # --- the role -------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: Nanos) -> list[Effect]:
        """Take an event; give what is to be done. Never raises for what peers do."""
        self._now, self._effects, self._heard_by = now, [], ()
        handler = self._events.get(type(event))
        if handler is not None and self.primacy.stage is not Stage.STOPPED:
            handler(event)
        return self._effects

    def flush(self, now: Nanos) -> list[Send]:
        """End a turn: all that waits for each peer, in as few frames as possible."""
        out = self._strays + self.primacy.take_said()
        self._strays = []
        if self._judged and self.primacy.manages:
            self._send_verdicts(now, out)
        for instance, peer in self.peers.touched:
            if isinstance(peer, SenderPeer) and peer.accept_at is not None and now >= peer.accept_at:
                self._tell_accepted(instance, peer)
        self.peers.flush(self.state.speaker, now, out)
        return out

    @property
    def deadline(self) -> Nanos | None:
        """When it next wants a `Tick`."""
        state = self.state
        verdict_at = min(state.verdict_at.values(), default=None)
        return earliest(
            self.peers.deadline,
            self._expiries.deadline,
            self._limits.deadline,
            self.primacy.deadline,
            state.hold_at,
            None if verdict_at is None else verdict_at + self.policy.resend_after,
        )

    def image(self) -> bytes:
        """What the next manager of this queue must know: all tasks and outcomes."""
        return self.queue.snapshot()

    def snapshot(self, now: Nanos) -> bytes:
        """All state as bytes; equal situations give equal bytes."""
        return freeze(msgspec.structs.replace(self.state, queue=self.queue.snapshot()), now)

    @classmethod
    def restore(cls, image: bytes, now: Nanos, policy: Policy = Policy()) -> Manager:
        """The manager that `snapshot` was taken of, as if the time were `now`."""
        state = thaw(ManagerState, image, now)
        manager = cls.__new__(cls)
        manager._set_up(state, TaskQueue.restore(policy, state.queue), policy)
        return manager

    # --- connection and views -------------------------------------------------------------------

    def _connected(self, event: e.Connected) -> None:
        self.peers.reconnected()
        self._effects += self.primacy.connected(event.session)

    def _disconnected(self, _: e.Disconnected) -> None:
        self.primacy.disconnected()

    def _view_changed(self, event: e.ViewChanged) -> None:
        gone, come = self.peers.view_changed(event)
        for instance in gone:
            self._left(instance)
        for instance in come:
            self._came(instance)
        managed = self.primacy.manages
        self._effects += self.primacy.view(event, self._now)
        if self.primacy.manages and not managed:
            self._took_over()

    def _took_over(self) -> None:
        """Everybody has a whole lease from now. Without memory, what comes again waits for claims."""
        for peer in self.peers.workers.values():
            peer.lease_at = self._now + self.policy.lease
        if not self.state.remembers:
            self.state.remembers = True
            self.state.hold_at = self._now + self.policy.claim_grace

    def _came(self, instance: Instance) -> None:
        peer = self.peers.get(instance)
        if isinstance(peer, WorkerPeer):
            peer.present = True
            self._enter(instance, peer)
        elif peer is not None:
            peer.present, peer.away_at = True, None

    def _left(self, instance: Instance) -> None:
        peer = self.peers.get(instance)
        if isinstance(peer, WorkerPeer):
            self._lose(instance, c.Loss.LEFT)
        elif peer is not None:
            peer.present, peer.away_at = False, self._now
            self.peers.touch(instance, peer)
            self._note(NoteName.SENDER_LEFT, sender=instance)

    def _lose(self, instance: Instance, loss: c.Loss) -> None:
        peer = self.peers.remove(instance)
        self._note(NoteName.WORKER_LOST, worker=instance, name=peer.about.name, loss=loss.value)
        self._apply(c.LoseWorker(instance, loss))

    def _stop(self, _: e.StopRequested) -> None:
        self.primacy.stop()
        self._effects.append(Exit(0, "stopped"))

    # --- frames ---------------------------------------------------------------------------------

    def _received(self, event: e.Received) -> None:
        speaker = self.state.speaker
        try:
            frame = decode(event.kind, event.body, speaker.queue)
        except PeerError as error:
            self._note(error.note, sender=event.sender, reason=str(error))
            return
        self._heard_by = event.groups
        if frame.source == speaker.instance:
            self._own(frame)
        elif not frame.link:
            self._stray(event, frame)
        elif self.primacy.manages:
            if frame.epoch > speaker.epoch:
                self._effects += self.primacy.heard(frame.epoch)
            self._linked(event, frame)

    def _own(self, frame: Frame) -> None:
        """Verdicts of ours have their place in the total order now."""
        for message in frame.messages:
            if type(message) is Outcome:
                self.state.verdict_at.pop((message.sender, message.counter), None)
                self._apply(c.ApplyVerdict(message))

    def _stray(self, event: e.Received, frame: Frame) -> None:
        for message in frame.messages:
            if type(message) is m.Who:
                self.primacy.asked(event.sender)
            elif type(message) is m.TookOver:
                other = (frame.epoch, frame.source)
                self._effects += self.primacy.other_took_over(other, event.sender, message.about)
            elif type(message) is m.StatusRequest:
                self._report(event.sender)
            else:
                self._bad(event.sender, message)

    def _linked(self, event: e.Received, frame: Frame) -> None:
        instance = frame.source
        peer = self.peers.get(instance)
        mine = frame.target in (self.state.speaker.instance, ANYBODY)
        if peer is None or frame.link != peer.link.number or event.sender != peer.session or not mine:
            peer = self._other_link(peer, event, frame)
            if peer is None:
                return
        self.peers.touch(instance, peer)
        link, now = peer.link, self._now
        if link.unreceipted:
            link.receipted(frame.receipt, now)
        handlers = self._from_sender
        if isinstance(peer, WorkerPeer):
            peer.lease_at = now + self.policy.lease
            handlers = self._from_worker
        for kind, messages in groupby(link.receive(frame, now, link.grant), type):
            handler = handlers.get(kind)
            if handler is not None:
                handler(instance, peer, list(messages))
            else:
                self._bad(event.sender, next(messages))

    def _other_link(self, peer: Peer | None, event: e.Received, frame: Frame) -> Peer | None:
        """A frame of a link that we do not have: it may open one. A success in it counts anyway."""
        if self.peers.opens_link(frame, peer):
            return self._open(event.sender, frame)
        successes = [
            message
            for message in frame.messages
            if type(message) is Outcome and message.status is Status.DONE and message.worker == frame.source
        ]
        if successes:
            self._apply(c.EndAttempts(frame.source, successes))
        if peer is not None and frame.link <= peer.link.number and frame.link != peer.link.number:
            self._note(NoteName.STALE_LINK, peer=frame.source)
        else:
            self._note(NoteName.UNKNOWN_LINK, peer=frame.source)
            took_over = m.TookOver(frame.link, self.state.about)
            self._strays.append(self.state.speaker.alone((event.sender,), [took_over], frame.source))
        return None

    def _open(self, session: str, frame: Frame) -> Peer | None:
        hello, instance = frame.messages[0], frame.source
        if isinstance(hello, m.WorkerHello):
            names = sum(len(name.encode()) for name in hello.functions or ())
            if not 1 <= hello.capacity <= self.policy.capacity_limit or names > self.policy.functions_limit:
                self._bad(session, hello)
                return None
            self._note(NoteName.WORKER_HELLO, worker=instance, name=hello.about.name)
            self._apply(c.GreetWorker(instance, hello.capacity, hello.functions))
            return self.peers.open(session, frame, hello, self._now)
        self._note(NoteName.SENDER_HELLO, sender=instance, name=hello.about.name)
        peer = self.peers.open(session, frame, hello, self._now)
        record = self.queue.state.senders.get(instance)
        if record is not None:
            peer.finished_at = dict.fromkeys(record.outcomes, self._now)
        return peer

    # --- what senders say -----------------------------------------------------------------------

    def _submits(self, instance: Instance, peer: SenderPeer, messages: list[m.Submit]) -> None:
        self._apply(c.SubmitTasks(instance, messages, self.state.hold_at is not None))
        self.state.marks.accepted(self.queue.state.accepted, self._now)
        if peer.accept_at is None:
            peer.accept_at = self._now + self.policy.accept_delay

    def _closed(self, instance: Instance, _: SenderPeer, messages: list[m.Closed]) -> None:
        for message in messages:
            self._apply(c.CloseTasks(instance, message.ranges))

    def _confirm(self, _: Instance, peer: SenderPeer, __: list[m.Confirm]) -> None:
        peer.accept_at = self._now

    def _tell_accepted(self, instance: Instance, peer: SenderPeer) -> None:
        peer.accept_at = None
        record = self.queue.state.senders.get(instance)
        if record is not None and record.known.upto > peer.told:
            peer.told = record.known.upto
            self.peers.say(instance, peer, m.Accepted(peer.told))

    # --- what workers say -----------------------------------------------------------------------

    def _outcomes(self, instance: Instance, peer: WorkerPeer, messages: list[Outcome]) -> None:
        peer.rested_at = self._now
        honest = [message for message in messages if message.worker == instance]
        self._apply(c.EndAttempts(instance, honest))

    def _responses(self, instance: Instance, _: WorkerPeer, messages: list[m.Response]) -> None:
        self._apply(c.KeepResponses(instance, messages))

    def _jobs_over(self, instance: Instance, peer: WorkerPeer, messages: list[m.JobOver]) -> None:
        peer.rested_at = self._now
        keys = [(message.sender, message.counter, message.number) for message in messages]
        self._apply(c.FreeSlots(instance, keys, returned=False))

    def _handed_back(self, instance: Instance, _: WorkerPeer, messages: list[m.HandBack]) -> None:
        keys = [(message.sender, message.counter, message.number) for message in messages]
        self._note(NoteName.HANDED_BACK, worker=instance, attempts=len(keys))
        self._apply(c.FreeSlots(instance, keys, returned=True))

    def _claims(self, instance: Instance, peer: WorkerPeer, messages: list[m.Claim]) -> None:
        for message in messages:
            try:
                self.queue.terms.read(message.task.terms)
            except PeerError:
                self._bad(peer.session, message)
                continue
            if peer.ready:
                self._bad(peer.session, message)
            else:
                self._apply(c.ClaimAttempt(instance, message))

    def _ready(self, instance: Instance, peer: WorkerPeer, _: list[m.Ready]) -> None:
        peer.ready = True
        self._enter(instance, peer)

    def _enter(self, instance: Instance, peer: WorkerPeer) -> None:
        if peer.present and peer.ready and not peer.entered:
            peer.entered, peer.rested_at = True, self._now
            self._note(NoteName.WORKER_ENTERED, worker=instance, name=peer.about.name)
            self._apply(c.EnterWorker(instance))

    def _draining(self, instance: Instance, _: WorkerPeer, __: list[m.Draining]) -> None:
        self._note(NoteName.WORKER_DRAINING, worker=instance)
        self._apply(c.DrainWorker(instance))

    # --- what the queue decides -----------------------------------------------------------------

    def _apply(self, command: c.AnyCommand) -> None:
        decisions = self._decisions
        for decision in self.queue.apply(command):
            decisions[type(decision)](decision)

    def _assigned(self, decision: c.Assigned) -> None:
        task, worker, number = decision.task, decision.worker, decision.number
        sender, terms, submit = task.sender, task.terms, task.submit
        reply_to, expires_in = "", 0
        if terms.reply:
            caller = self.peers.senders.get(sender)
            if caller is not None:
                reply_to = caller.session
        if terms.expiry:
            expires_in = max(1, self.state.expires_at[sender, submit.counter] - self._now)
        if terms.run_limit:
            self._limits.add((sender, submit.counter, number), self._now + terms.run_limit)
        assign = m.Assign(sender, number, task.strikes, expires_in, reply_to, submit)
        self.peers.say(worker, self.peers.workers[worker], assign)

    def _expiring(self, decision: c.Expiring) -> None:
        task = decision.task
        self._expiries.add((task.sender, task.submit.counter), self._now + task.terms.expiry)

    def _stranded(self, decision: c.Stranded) -> None:
        sender = self.peers.senders.get(decision.task.sender)
        if sender is not None:
            self.peers.say(decision.task.sender, sender, m.Unserved(decision.task.submit.counter))

    def _refused(self, decision: c.Refused) -> None:
        rejected = decision.rejected
        self._note(NoteName.REJECTED, sender=decision.sender, reason=rejected.reason)
        self.peers.say(decision.sender, self.peers.senders[decision.sender], rejected)

    def _judge(self, decision: c.Judged) -> None:
        outcome = decision.outcome
        self._note(
            NoteName.JUDGED, sender=outcome.sender, counter=outcome.counter, status=outcome.status.name
        )
        self._limits.discard((outcome.sender, outcome.counter, outcome.number))
        self._judged.append(outcome)

    def _settled(self, decision: c.Settled) -> None:
        task, outcome = decision.task, decision.outcome
        terms, counter = task.terms, task.submit.counter
        if terms.expiry:
            self._expiries.discard((task.sender, counter))
        if terms.run_limit and task.live is not None:
            self._limits.discard((task.sender, counter, task.live[0]))
        if outcome is None or not terms.reply:
            return
        caller = self.peers.senders.get(task.sender)
        if caller is None:
            return
        if caller.session in self._heard_by:  # it will close it soon, or be told again
            caller.finished_at[counter] = self._now
            if len(caller.finished_at) == 1:
                self.peers.arm(task.sender, caller)
        else:
            self._answer(task.sender, caller, counter)

    def _asked_again(self, decision: c.AskedAgain) -> None:
        self._answer(decision.sender, self.peers.senders[decision.sender], decision.counter)

    def _answer(self, sender: Instance, caller: SenderPeer, counter: int) -> None:
        """Send an outcome that is kept, with its responses: the caller does not have it from a worker."""
        caller.finished_at.pop(counter, None)
        record = self.queue.state.senders[sender]
        self._note(NoteName.ANSWERED_AGAIN, sender=sender, counter=counter)
        for response in record.responses.get(counter, {}).values():
            self.peers.say(sender, caller, response)
        self.peers.say(sender, caller, record.outcomes[counter])

    def _revoked(self, decision: c.Revoked) -> None:
        self._limits.discard(decision.key)
        self._note(NoteName.ATTEMPT_REVOKED, worker=decision.worker, key=decision.key)
        peer = self.peers.workers.get(decision.worker)
        if peer is not None:
            self.peers.say(decision.worker, peer, m.Cancel(*decision.key))

    def _ignored(self, decision: c.Ignored) -> None:
        self._note(NoteName.IGNORED, what=decision.what, key=decision.key)

    # --- verdicts and reports -------------------------------------------------------------------

    def _send_verdicts(self, now: Nanos, out: list[Send]) -> None:
        """Multicast verdicts to their callers and to ourselves: they hold where that is ordered."""
        by_groups: dict[tuple[str, ...], list[AnyMessage]] = {}
        for outcome in self._judged:
            self.state.verdict_at[outcome.sender, outcome.counter] = now
            task = self.queue.task(outcome.sender, outcome.counter)
            caller = self.peers.senders.get(outcome.sender)
            groups: tuple[str, ...] = (self.groups.work,)
            if task is not None and task.terms.reply and caller is not None:
                groups = (caller.session, self.groups.work)
            by_groups.setdefault(groups, []).append(outcome)
        self._judged = []
        out += [self.state.speaker.alone(groups, verdicts) for groups, verdicts in by_groups.items()]

    def _report(self, asker: str) -> None:
        if self.primacy.manages:
            state = self.state
            uptime = self._now - state.started_at
            parts = report(self.queue, self.peers, state.speaker, state.about, state.marks, uptime, self._now)
            self._strays += [state.speaker.alone((asker,), [part]) for part in parts]

    # --- time -----------------------------------------------------------------------------------

    def _tick(self, _: e.Tick) -> None:
        state, now, deadline = self.state, self._now, self.deadline
        late = 0 if deadline is None else max(0, now - deadline)
        self._effects += self.primacy.tick(now)
        for instance, peer in self.peers.ring(now):
            self.peers.touch(instance, peer)
            if isinstance(peer, SenderPeer):
                self._attend_sender(instance, peer)
            elif now >= peer.lease_at and self.primacy.manages:
                self._end_lease(instance, peer, late)
        if not self.primacy.manages:
            return
        if state.hold_at is not None and now >= state.hold_at:
            state.hold_at = None
            self._apply(c.ReleaseHeld())
        overrun = self._limits.due(now)
        if overrun:
            self._apply(c.OverrunAttempts(overrun))
        expired = self._expiries.due(now)
        if expired:
            self._apply(c.ExpireTasks(expired))
        for key, sent_at in list(state.verdict_at.items()):
            if now >= sent_at + self.policy.resend_after:
                del state.verdict_at[key]
                if key in self.queue.state.verdicts:
                    self._judged.append(self.queue.state.verdicts[key])

    def _end_lease(self, instance: Instance, peer: WorkerPeer, late: Nanos) -> None:
        if late > self.policy.tick_slack:  # it was us who slept
            peer.lease_at = self._now + late
            self._note(NoteName.LEASE_EXTENDED, worker=instance, by=late)
        else:
            self._lose(instance, c.Loss.LEASE)

    def _attend_sender(self, instance: Instance, peer: SenderPeer) -> None:
        now, record = self._now, self.queue.state.senders.get(instance)
        due = [n for n, at in peer.finished_at.items() if now >= at + self.policy.outcome_delay]
        for counter in due:
            if record is not None and counter in record.outcomes:
                self._answer(instance, peer, counter)
            else:
                del peer.finished_at[counter]
        if peer.accept_at is not None and now >= peer.accept_at and not (record and record.tasks):
            peer.accept_at = None  # every call has its outcome, which says more
        if peer.away_at is not None and now >= peer.away_at + self.policy.departed_keep:
            self._apply(c.ForgetSender(instance))
            peer.away_at, peer.finished_at = now, {}
            if instance not in self.queue.state.senders:
                self.peers.remove(instance)

    # --- notes ----------------------------------------------------------------------------------

    def _note(self, name: NoteName, /, **fields: Any) -> None:
        self._effects.append(Note(name, fields))

    def _bad(self, sender: str, message: AnyMessage) -> None:
        self._note(NoteName.BAD_MESSAGE, sender=sender, message=type(message).__name__)


def _nothing(_: Instance, __: Peer, ___: list[AnyMessage]) -> None:
    """A hello has done its work when it opened the link."""

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
from spreadq_core.ages import Ages
from spreadq_core.codec import decode
from spreadq_core.effects import Effect, Exit, Note, Report, Send
from spreadq_core.errors import PeerError
from spreadq_core.ids import ANYBODY, Instance, Nanos, QueueGroups, earliest
from spreadq_core.image import freeze, thaw
from spreadq_core.lifecycle import WorkerState
from spreadq_core.link import Speaker
from spreadq_core.messages import About, AnyMessage, Frame, Outcome, Status
from spreadq_core.notes import NoteName
from spreadq_core.peers import Peer, Peers, PeersState, SenderPeer, WorkerPeer
from spreadq_core.policy import DEFAULT, Policy
from spreadq_core.primacy import Primacy, PrimacyState, Stage
from spreadq_core.records import AttemptKey, TaskKey
from spreadq_core.task_queue import TaskQueue
from spreadq_core.timers import Timeouts, due

FROM_SENDER = frozenset({m.Submit, m.Closed})
FROM_WORKER = frozenset({m.Outcome, m.Response, m.JobOver, m.HandBack, m.Claim, m.Ready, m.Draining})
"""What the queue hears of peers. An outcome is a worker's last word on an attempt."""


class ManagerState(msgspec.Struct, gc=False):
    """All state of a manager, beside its queue's."""

    speaker: Speaker  # who it is
    about: About  # for people
    started_at: Nanos  # when it was made
    primacy: PrimacyState  # whether it manages
    remembers: bool  # it began with what an earlier manager knew
    started: bool = False  # it took over once
    peers: PeersState = msgspec.field(default_factory=PeersState)  # who has a link
    ages: Ages = msgspec.field(default_factory=Ages)  # how old tasks are
    # since when senders of which something is kept are not here; longest first
    absent_at: dict[Instance, Nanos] = {}
    expires_at: dict[TaskKey, Nanos] = {}  # when tasks expire
    limit_at: dict[TaskKey, Nanos] = {}  # when live attempts pass their run limit, by task
    # tasks whose verdict is to be sent at the end of the turn, or when we manage again
    judged: list[TaskKey] = []
    paused_at: dict[TaskKey, Nanos] = {}  # since when tasks are held for a moment; longest first
    verdict_at: dict[TaskKey, Nanos] = {}  # when each verdict was last sent; longest ago first
    hold_at: Nanos | None = None  # until when tasks that come again are held for claims
    queue: bytes = b""  # image of the task queue; only in a snapshot


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
        policy: Policy = DEFAULT,
        epoch: int = 0,
        image: bytes | None = None,
    ) -> None:
        speaker = Speaker(queue, instance, epoch)
        state = ManagerState(speaker, about, now, PrimacyState(heard=epoch), image is not None)
        self._set_up(state, TaskQueue(policy) if image is None else TaskQueue.restore(policy, image), policy)
        self._apply(c.Restarted())
        state.judged += self.queue.state.verdicts
        state.absent_at |= dict.fromkeys(self.queue.state.senders, now)

    def _set_up(self, state: ManagerState, queue: TaskQueue, policy: Policy) -> None:
        self.state, self.queue, self.policy = state, queue, policy
        self.groups = QueueGroups.of(state.speaker.queue)
        self.primacy = Primacy(self.groups, state.speaker, state.about, policy, state.primacy)
        self.peers = Peers(self.groups, policy, state.peers)
        self._expiries = Timeouts(state.expires_at)
        self._limits = Timeouts(state.limit_at)
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
        self._decisions: dict[type, Any] = {
            c.Assigned: self._assigned,
            c.Adopted: self._adopted,
            c.Settled: self._settled,
            c.Say: self._say,
            c.Expiring: self._expiring,
            c.Paused: self._pause,
            c.Judged: self._judge,
            c.AskedAgain: self._asked_again,
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
        if self.state.judged and self.primacy.manages:
            self._send_verdicts(now, out)
        self.peers.flush(self.state.speaker, now, out)
        return out

    @property
    def deadline(self) -> Nanos | None:
        """When it next wants a `Tick`."""
        state, policy = self.state, self.policy
        if not self.primacy.manages:
            return self.primacy.deadline
        times = [self.peers.deadline, self._expiries.deadline, self._limits.deadline, state.hold_at]
        times.append(self.primacy.deadline)
        for since, delay in (
            (state.verdict_at, policy.resend_after),
            (state.absent_at, policy.departed_keep),
            (state.paused_at, policy.loss_pause),
        ):
            if since:
                times.append(next(iter(since.values())) + delay)
        return earliest(*times)

    def image(self) -> bytes:
        """What the next manager of this queue must know: all tasks and outcomes."""
        return self.queue.snapshot()

    def snapshot(self, now: Nanos) -> bytes:
        """All state as bytes; equal situations give equal bytes."""
        return freeze(msgspec.structs.replace(self.state, queue=self.queue.snapshot()), now)

    @classmethod
    def restore(cls, image: bytes, now: Nanos, policy: Policy = DEFAULT) -> Manager:
        """The manager that `snapshot` was taken of, as if the time were `now`."""
        state = thaw(ManagerState, image, now)
        manager = cls.__new__(cls)
        manager._set_up(state, TaskQueue.restore(policy, state.queue), policy)  # noqa: SLF001 -- our own
        return manager

    # --- connection and views -------------------------------------------------------------------

    def _connected(self, event: e.Connected) -> None:
        self.peers.reconnected()
        for instance in self.peers.senders:  # until it is seen
            self.state.absent_at.setdefault(instance, self._now)
        self._effects += self.primacy.connected(event.session)

    def _disconnected(self, _: e.Disconnected) -> None:
        self.primacy.disconnected()

    def _view_changed(self, event: e.ViewChanged) -> None:
        gone, come = self.peers.view_changed(event)
        managed = self.primacy.manages
        peers = self.peers.workers if event.group == self.groups.workers else self.peers.senders
        for session in gone:
            instance = self.peers.at(session)
            if instance is not None and instance in peers:
                self._left(instance)
        for session in come:
            instance = self.peers.at(session)
            if instance is not None and instance in peers:
                self._came(instance)
            elif event.cause is e.Cause.NETWORK and session != self.primacy.state.session:
                self.primacy.asked(session)  # we have forgotten it, and it does not know
        self._effects += self.primacy.view(event, self._now)
        if self.primacy.manages and not managed:
            self._took_over()

    def _took_over(self) -> None:
        """Everybody has a whole lease from now. A new manager gives workers time to claim what they hold."""
        state, policy = self.state, self.policy
        for peer in self.peers.workers.values():
            peer.lease_at = self._now + policy.lease
        if not state.started:
            state.started = True
            state.hold_at = self._now + (policy.lease if state.remembers else policy.claim_grace)

    def _came(self, instance: Instance) -> None:
        peer = self.peers.get(instance)
        if isinstance(peer, WorkerPeer):
            self._enter(instance, peer)
        else:
            self.state.absent_at.pop(instance, None)

    def _left(self, instance: Instance) -> None:
        if instance in self.peers.workers:
            self._lose(instance, c.Loss.LEFT)
        else:
            self.state.absent_at[instance] = self._now
            self._note(NoteName.SENDER_LEFT, sender=instance)

    def _lose(self, instance: Instance, loss: c.Loss) -> None:
        peer, worker = self.peers.remove(instance), self.queue.state.workers.get(instance)
        if worker is not None and worker.state is WorkerState.DRAINING and not worker.slots:
            self._note(NoteName.WORKER_LEFT, worker=instance, name=peer.about.name)
        else:
            self._note(NoteName.WORKER_LOST, worker=instance, name=peer.about.name, loss=loss.value)
        said = [*peer.link.mail, *(message for sent in peer.link.unreceipted for message in sent.messages)]
        unheard = [(it.sender, it.task.counter, it.number) for it in said if isinstance(it, m.Assign)]
        self._apply(c.Lost(instance, loss, unheard))

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
                self._effects += self.primacy.heard(frame.epoch, self._now)
            self._linked(event, frame)

    def _own(self, frame: Frame) -> None:
        """Verdicts of ours have their place in the total order now."""
        for message in frame.messages:
            if type(message) is Outcome:
                self.state.verdict_at.pop((message.sender, message.counter), None)
                self._apply(c.Decided(message))

    def _stray(self, event: e.Received, frame: Frame) -> None:
        """A frame of no link. Only who meets the managers can be one."""
        for message in frame.messages:
            if type(message) is m.Who:
                self.primacy.asked(event.sender)
            elif type(message) is m.TookOver and event.sender in self.primacy.state.met:
                other = (frame.epoch, frame.source)
                self._effects += self.primacy.other_took_over(other, event.sender, message.about)
            elif type(message) is m.StatusRequest:
                if self.primacy.manages:
                    self._effects.append(Report(event.sender))
            else:
                self._note(NoteName.BAD_MESSAGE, source=frame.source, message=type(message).__name__)

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
        messages = link.receive(frame, now, link.grant)
        if isinstance(peer, WorkerPeer):
            peer.lease_at = now + self.policy.lease
            if messages:
                peer.rested_at = now
                self._hear(instance, messages, FROM_WORKER)
                self._enter(instance, peer)
        elif messages:
            self._hear(instance, messages, FROM_SENDER)
            if type(messages[-1]) is m.Confirm:
                self._tell_accepted(instance, peer)
            elif peer.accept_at is None:
                peer.accept_at = now + self.policy.accept_delay

    def _hear(self, instance: Instance, messages: list[AnyMessage], allowed: frozenset[type]) -> None:
        """Let the queue hear messages in runs of one type; a hello or Confirm concerns us alone."""
        hold = self.state.hold_at is not None and not self.state.remembers
        runs = [(type(messages[0]), messages)] if len(messages) == 1 else groupby(messages, type)
        for kind, run in runs:
            if kind in allowed:
                self._apply(c.Said(instance, list(run), hold))
                if kind is m.Draining:
                    self._note(NoteName.WORKER_DRAINING, worker=instance)
            elif kind not in (m.SenderHello, m.WorkerHello, m.Confirm):
                self._note(NoteName.BAD_MESSAGE, source=instance, message=kind.__name__)
        self.state.ages.accepted(self.queue.state.accepted, self._now)

    def _other_link(self, peer: Peer | None, event: e.Received, frame: Frame) -> Peer | None:
        """A frame of a link that we do not have: it may open one. A success in it counts anyway."""
        if self.peers.opens_link(frame, peer):
            return self._open(event.sender, frame)
        successes: list[AnyMessage] = [
            message
            for message in frame.messages
            if type(message) is Outcome and message.status is Status.DONE and message.worker == frame.source
        ]
        if successes:
            self._apply(c.Said(frame.source, successes))
        if peer is not None and frame.link <= peer.link.number and frame.link != peer.link.number:
            self._note(NoteName.STALE_LINK, peer=frame.source)
        else:
            self._note(NoteName.UNKNOWN_LINK, peer=frame.source)
            if frame.target not in (ANYBODY, self.state.speaker.instance):
                self.primacy.contest()
            took_over = m.TookOver(frame.link, self.state.about)
            self._strays.append(self.state.speaker.alone((event.sender,), [took_over], frame.source))
        return None

    def _open(self, session: str, frame: Frame) -> Peer | None:
        hello, instance = frame.messages[0], frame.source
        if isinstance(hello, m.WorkerHello):
            if self._apply(c.Said(instance, [hello])):  # it is out of range
                return None
            self._note(NoteName.WORKER_HELLO, worker=instance, name=hello.about.name)
            return self.peers.open(session, frame, hello, self._now)
        assert isinstance(hello, m.SenderHello)
        self._note(NoteName.SENDER_HELLO, sender=instance, name=hello.about.name)
        peer = self.peers.open(session, frame, hello, self._now)
        self.state.absent_at.pop(instance, None)
        if not self.peers.is_present(session, self.groups.senders):
            self.state.absent_at[instance] = self._now  # until it is
        record = self.queue.state.senders.get(instance)
        if record is not None and isinstance(peer, SenderPeer):
            peer.unclosed, peer.check_at = list(record.outcomes), self._now + self.policy.outcome_delay
        return peer

    def _enter(self, instance: Instance, peer: WorkerPeer) -> None:
        """A worker may be assigned tasks when it is in the view *and* has made its claims."""
        ready = not peer.entered and self.queue.state.workers[instance].ready
        if ready and self.peers.is_present(peer.session, self.groups.workers):
            peer.entered = True
            self._note(NoteName.WORKER_ENTERED, worker=instance, name=peer.about.name)
            self._apply(c.Entered(instance))

    def _tell_accepted(self, instance: Instance, peer: SenderPeer) -> None:
        peer.accept_at, peer.owed = None, False
        record = self.queue.state.senders.get(instance)
        if record is not None and record.known.upto > peer.told:
            peer.told = record.known.upto
            self.peers.say(instance, peer, m.Accepted(peer.told))

    # --- what the queue decides -----------------------------------------------------------------

    def _apply(self, command: c.AnyCommand) -> list[c.AnyDecision]:
        handlers, decisions = self._decisions, self.queue.apply(command)
        for decision in decisions:
            handlers[type(decision)](decision)
        return decisions

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
            self._limits.add((sender, submit.counter), self._now + terms.run_limit)
        assign = m.Assign(sender, number, task.strikes, expires_in, reply_to, submit)
        self.peers.say(worker, self.peers.workers[worker], assign)

    def _adopted(self, decision: c.Adopted) -> None:
        """An attempt of which we knew nothing runs: its limit begins anew."""
        task = decision.task
        if task.terms.run_limit:
            self._limits.add((task.sender, task.submit.counter), self._now + task.terms.run_limit)
        if task.sender not in self.peers.senders:
            self.state.absent_at.setdefault(task.sender, self._now)

    def _expiring(self, decision: c.Expiring) -> None:
        task = decision.task
        self._expiries.add((task.sender, task.submit.counter), self._now + task.terms.expiry)

    def _pause(self, decision: c.Paused) -> None:
        key = (decision.task.sender, decision.task.submit.counter)
        self.state.paused_at[key] = self._now

    def _say(self, decision: c.Say) -> None:
        to, message = decision.to, decision.message
        if isinstance(message, m.Cancel):
            self._note(NoteName.ATTEMPT_REVOKED, worker=to, sender=message.sender, counter=message.counter)
        elif isinstance(message, m.Rejected):
            self._note(NoteName.REJECTED, sender=to, reason=message.reason)
        peer = self.peers.get(to)
        if peer is not None:
            self.peers.say(to, peer, message)

    def _judge(self, decision: c.Judged) -> None:
        verdict = decision.verdict
        self._note(
            NoteName.JUDGED, sender=verdict.sender, counter=verdict.counter, status=verdict.status.name
        )
        self.state.judged.append((verdict.sender, verdict.counter))

    def _settled(self, decision: c.Settled) -> None:
        task, outcome = decision.task, decision.outcome
        terms, counter = task.terms, task.submit.counter
        if terms.expiry:
            self._expiries.discard((task.sender, counter))
        if terms.run_limit:
            self._limits.discard((task.sender, counter))
        caller = self.peers.senders.get(task.sender)
        if outcome is None or caller is None:
            return
        if not terms.reply:
            caller.owed = True
        elif caller.session in self._heard_by:  # it will close it soon, or be told again
            caller.finished.append(counter)
            if caller.check_at is None:
                caller.check_at = self._now + self.policy.outcome_delay
                self.peers.arm(task.sender, caller)
        else:
            self._answer(task.sender, caller, counter)

    def _asked_again(self, decision: c.AskedAgain) -> None:
        self._answer(decision.sender, self.peers.senders[decision.sender], decision.counter)

    def _answer(self, sender: Instance, caller: SenderPeer, counter: int) -> None:
        """Send an outcome that is kept, with its responses: the caller does not have it from a worker."""
        record = self.queue.state.senders[sender]
        outcome, responses = record.outcomes[counter], record.responses.get(counter, {})
        self._note(NoteName.ANSWERED_AGAIN, sender=sender, counter=counter)
        for response in responses.values():
            self.peers.say(sender, caller, response)
        if outcome.responses > len(responses):  # nobody has the others any more: they need not be waited for
            outcome = msgspec.structs.replace(outcome, responses=len(responses))
        self.peers.say(sender, caller, outcome)

    def _ignored(self, decision: c.Ignored) -> None:
        kind = type(decision.message).__name__
        self._note(NoteName.IGNORED, source=decision.source, message=kind)

    def _send_verdicts(self, now: Nanos, out: list[Send]) -> None:
        """Multicast verdicts to their callers and to ourselves: they hold where that is ordered."""
        by_groups: dict[tuple[str, ...], list[AnyMessage]] = {}
        for key in self.state.judged:
            task, verdict = self.queue.task(*key), self.queue.state.verdicts.get(key)
            if task is None or verdict is None:
                continue
            self.state.verdict_at[key] = now
            caller = self.peers.senders.get(verdict.sender)
            groups: tuple[str, ...] = (self.groups.work,)
            if task.terms.reply and caller is not None:
                groups = (caller.session, self.groups.work)
            by_groups.setdefault(groups, []).append(verdict)
        self.state.judged = []
        out += [self.state.speaker.alone(groups, verdicts) for groups, verdicts in by_groups.items()]

    # --- time -----------------------------------------------------------------------------------

    def _tick(self, _: e.Tick) -> None:
        managed = self.primacy.manages
        self._effects += self.primacy.tick(self._now)
        if not managed:
            return
        state, now, deadline = self.state, self._now, self.deadline
        late = 0 if deadline is None else max(0, now - deadline)
        for instance, peer in self.peers.ring(now):
            self.peers.touch(instance, peer)
            if isinstance(peer, SenderPeer):
                self._attend_sender(instance, peer)
            elif now >= peer.lease_at:
                self._end_lease(instance, peer, late)
        if state.hold_at is not None and now >= state.hold_at:
            state.hold_at = None
            self._apply(c.Released())
        paused = due(state.paused_at, now - self.policy.loss_pause)
        if paused:
            for key in paused:
                del state.paused_at[key]
            self._apply(c.Released(paused))
        self._stop_overruns()
        expired = self._expiries.due(now)
        if expired:
            self._apply(c.Expired(expired))
        self._forget_absent()
        for key in due(state.verdict_at, now - self.policy.resend_after):
            del state.verdict_at[key]
            state.judged.append(key)

    def _stop_overruns(self) -> None:
        overran: dict[Instance, list[AttemptKey]] = {}
        for sender, counter in self._limits.due(self._now):
            task = self.queue.task(sender, counter)
            if task is not None and task.live is not None:
                number, worker = task.live
                overran.setdefault(worker, []).append((sender, counter, number))
        for worker, keys in overran.items():
            self._apply(c.Overran(worker, keys))

    def _end_lease(self, instance: Instance, peer: WorkerPeer, late: Nanos) -> None:
        if late > self.policy.tick_slack:  # it was us who slept
            peer.lease_at = self._now + late
            self._note(NoteName.LEASE_EXTENDED, worker=instance, by=late)
        else:
            self._lose(instance, c.Loss.LEASE)

    def _attend_sender(self, instance: Instance, peer: SenderPeer) -> None:
        now, record = self._now, self.queue.state.senders.get(instance)
        if peer.check_at is not None and now >= peer.check_at:
            outcomes = record.outcomes if record is not None else {}
            for counter in peer.unclosed:
                if counter in outcomes:
                    self._answer(instance, peer, counter)
            peer.unclosed = [counter for counter in peer.finished if counter in outcomes]
            peer.finished = []
            peer.check_at = now + self.policy.outcome_delay if peer.unclosed else None
        if peer.accept_at is not None and now >= peer.accept_at:
            if peer.owed or (record is not None and record.tasks):
                self._tell_accepted(instance, peer)
            else:
                peer.accept_at = None  # every call has its outcome, which says more

    def _forget_absent(self) -> None:
        """Senders that are away for long: what is kept for them goes, what is to be done stays."""
        absent, now = self.state.absent_at, self._now
        for instance in due(absent, now - self.policy.departed_keep):
            del absent[instance]
            if instance in self.peers.senders:
                self.peers.remove(instance)
            self._apply(c.Forgotten(instance))
            if instance in self.queue.state.senders:
                absent[instance] = now

    # --- notes ----------------------------------------------------------------------------------

    def _note(self, name: NoteName, /, **fields: Any) -> None:
        self._effects.append(Note(name, fields))

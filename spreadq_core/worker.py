"""The worker: takes attempts up to its capacity, says how their jobs ended, and keeps its lease."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from spreadq_core import events as e
from spreadq_core import messages as m
from spreadq_core.effects import CancelJob, Effect, Exit, Leave, Note, Send, Service, StartJob
from spreadq_core.errors import PeerError, UsageError
from spreadq_core.ids import Instance, Nanos, QueueGroups, earliest
from spreadq_core.image import freeze, thaw
from spreadq_core.link import Groups, Link, Speaker
from spreadq_core.messages import About, Outcome, Status
from spreadq_core.notes import NoteName
from spreadq_core.policy import DEFAULT, Policy
from spreadq_core.records import AttemptKey
from spreadq_core.terms import TermsTable
from spreadq_core.uplink import Uplink

End: TypeAlias = Outcome | m.JobOver | m.HandBack


class Job(msgspec.Struct, gc=False):
    """An attempt that the worker holds until its end is receipted."""

    assign: m.Assign  # what was assigned
    said: list[m.Response | End] = []  # its responses and its end, to be said again on a new link
    over: bool = False  # its end is said
    cancelled_at: Nanos | None = None  # when it was told to stop


class WorkerState(msgspec.Struct, gc=False):
    """All state of a worker."""

    uplink: Uplink  # its way to the manager
    capacity: int  # attempts at a time
    functions: tuple[str, ...] | None  # that it serves, None for all
    jobs: dict[AttemptKey, Job] = {}  # that it holds
    running: int = 0  # how many of them are not over
    cancelled: int = 0  # how many of those were told to stop
    # after how long a silence the manager must hear of us, so that our lease does not end; 0 before we are
    # welcome
    renewal: Nanos = 0
    stops: int = 0  # how often it was asked to stop
    # when it gives back what runs or, when nothing runs, leaves whatever is unreceipted
    stop_at: Nanos | None = None
    left: bool = False  # it is at its end


class Worker:
    """Serves one queue.

    Args:
        queue: the queue's name.
        instance: its own identity.
        about: who it is, for people.
        functions: names that it serves; None for all.
        capacity: how many attempts it takes at a time.
        policy: limits and defaults.

    Raises:
        UsageError: a name or number is out of range.
    """

    def __init__(
        self,
        queue: str,
        instance: Instance,
        about: About,
        functions: tuple[str, ...] | None,
        capacity: int = 1,
        policy: Policy = DEFAULT,
    ) -> None:
        self.groups = QueueGroups.of(queue)
        if not 1 <= capacity <= policy.capacity_limit:
            raise UsageError(f"capacity {capacity}: 1 to {policy.capacity_limit} are allowed")
        if sum(len(name.encode()) for name in functions or ()) > policy.functions_limit:
            raise UsageError(f"the function names have more than {policy.functions_limit} bytes together")
        self.policy = policy
        self._home: Groups = (self.groups.work,)
        link = Link(0, self._home, Service.AGREED)
        uplink = Uplink(Speaker(queue, instance, 0), about, self._home, self.groups.workers, link)
        self.state = WorkerState(uplink, capacity, functions)
        self._terms = TermsTable()
        self._handlers: dict[type, Any] = {
            e.Received: self._received,
            e.Tick: self._tick,
            e.JobEnded: self._job_ended,
            e.JobResponded: self._job_responded,
            e.Connected: self._connected,
            e.Disconnected: self._disconnected,
            e.StopRequested: self._stop,
            m.Assign: self._assign,
            m.Cancel: self._cancel,
            m.Welcome: self._welcome,
        }
        self._now: Nanos = 0
        self._effects: list[Effect] = []

    # --- the role -------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: Nanos) -> list[Effect]:
        """Take an event; give what is to be done. Never raises for what peers do."""
        self._now, self._effects = now, []
        handler = self._handlers.get(type(event))
        if handler is not None and not self.state.left:
            handler(event)
            if self.state.stops:
                self._leave_if_done()
        return self._effects

    def flush(self, now: Nanos) -> list[Send]:
        """End a turn: all that is to be said, in as few frames as possible."""
        return self.state.uplink.flush(now, self.policy, self.state.renewal)

    @property
    def deadline(self) -> Nanos | None:
        """When it next wants a `Tick`."""
        state = self.state
        if state.left:
            return None
        link_at = state.uplink.deadline(self.policy, state.renewal)
        if not state.cancelled and state.stop_at is None:
            return link_at
        return earliest(link_at, state.stop_at, self._hung_at())

    def snapshot(self, now: Nanos) -> bytes:
        """All state as bytes; equal situations give equal bytes."""
        return freeze(self.state, now)

    @classmethod
    def restore(cls, image: bytes, now: Nanos, policy: Policy = DEFAULT) -> Worker:
        """The worker that `snapshot` was taken of, as if the time were `now`."""
        state = thaw(WorkerState, image, now)
        speaker = state.uplink.speaker
        worker = cls(speaker.queue, speaker.instance, state.uplink.about, state.functions, policy=policy)
        worker.state = state
        return worker

    # --- connection and link --------------------------------------------------------------------

    def _connected(self, event: e.Connected) -> None:
        self._effects.append(self.state.uplink.connected(event))
        self._open_link()

    def _disconnected(self, _: e.Disconnected) -> None:
        self.state.uplink.session = ""

    def _open_link(self) -> None:
        """Greet whoever manages, and say all that it may not know: claims first, then how they ended."""
        state = self.state
        hello = m.WorkerHello(state.uplink.about, state.capacity, state.functions)
        link = state.uplink.open(hello, self.policy, self._now)
        for job in state.jobs.values():
            assign = job.assign
            link.mail.append(m.Claim(assign.sender, assign.number, assign.strikes, assign.task))
        link.mail.append(m.Ready())
        if state.stops:
            link.mail.append(m.Draining())
        for job in state.jobs.values():
            for message in job.said:
                self._tell(job, message)
        state.renewal = 0

    def _received(self, event: e.Received) -> None:
        state, uplink = self.state, self.state.uplink
        try:
            frame = uplink.read(event)
            if uplink.is_called(frame):
                self._open_link()
                return
            receipted, messages = uplink.receive(frame, self._now)
        except PeerError as error:
            self._note(error.note, sender=event.sender, reason=str(error))
            return
        for sent in receipted:
            for message in sent.messages:
                if isinstance(message, End):
                    state.jobs.pop((message.sender, message.counter, message.number), None)
        for message in messages:
            handler = self._handlers.get(type(message))
            if handler is not None:
                handler(message)
            else:
                self._note(NoteName.BAD_MESSAGE, sender=event.sender, message=type(message).__name__)

    def _welcome(self, message: m.Welcome) -> None:
        self.state.renewal = message.lease // (self.policy.renewals + 1)
        self._note(NoteName.WELCOMED, epoch=self.state.uplink.speaker.epoch)

    # --- jobs -----------------------------------------------------------------------------------

    def _assign(self, assign: m.Assign) -> None:
        state, task = self.state, assign.task
        key = (assign.sender, task.counter, assign.number)
        if key in state.jobs:
            return
        try:
            task.terms, terms = self._terms.read(task.terms)
        except PeerError as error:
            self._note(NoteName.BAD_MESSAGE, sender="the manager", message="Assign", reason=str(error))
            state.uplink.link.mail.append(m.JobOver(*key))
            return
        job = state.jobs[key] = Job(assign)
        state.running += 1
        if state.stops or state.running > state.capacity:
            self._hand_back(key, job)
            return
        if assign.strikes:  # it may kill us: the manager should know that it was here
            state.uplink.link.owe(self._now, at_once=True)
        payload, codec, headers = task.payload, terms.codec, task.headers
        start = StartJob(*key, terms.function, payload, codec, headers, assign.expires_in, terms.reply)
        self._effects.append(start)

    def _cancel(self, cancel: m.Cancel) -> None:
        key = (cancel.sender, cancel.counter, cancel.number)
        job = self.state.jobs.get(key)
        if job is None:
            self.state.uplink.link.mail.append(m.JobOver(*key))
        elif not job.over and job.cancelled_at is None:
            job.cancelled_at = self._now
            self.state.cancelled += 1
            self._effects.append(CancelJob(*key))

    def _job_responded(self, event: e.JobResponded) -> None:
        key = (event.sender, event.counter, event.number)
        job = self.state.jobs.get(key)
        if job is not None and not job.over:
            worker = self.state.uplink.speaker.instance
            self._say(job, m.Response(*key, worker, len(job.said), event.payload, event.codec))

    def _job_ended(self, event: e.JobEnded) -> None:
        key = (event.sender, event.counter, event.number)
        job = self.state.jobs.get(key)
        if job is None or job.over:
            return
        if event.status is Status.CANCELLED:
            self._end(job, m.JobOver(*key))
            return
        worker = self.state.uplink.speaker.instance
        outcome = Outcome(*key, worker, event.status, len(job.said), event.payload, event.codec)
        self._end(job, outcome)

    def _end(self, job: Job, message: End) -> None:
        job.over = True
        self.state.running -= 1
        if job.cancelled_at is not None:
            self.state.cancelled -= 1
        self._say(job, message)

    def _say(self, job: Job, message: m.Response | End) -> None:
        job.said.append(message)
        self._tell(job, message)

    def _tell(self, job: Job, message: m.Response | End) -> None:
        """Responses and successes go to the caller, too; how an attempt failed concerns the managers."""
        link, caller = self.state.uplink.link, job.assign.reply_to
        if caller and (
            isinstance(message, m.Response)
            or (isinstance(message, Outcome) and message.status is Status.DONE)
        ):
            link.casts.setdefault((caller, self.groups.work), []).append(message)
        else:
            link.mail.append(message)

    # --- the end, and time ----------------------------------------------------------------------

    def _stop(self, _: e.StopRequested) -> None:
        state = self.state
        state.stops += 1
        if state.stops == 1:
            state.stop_at = self._now + self.policy.drain_timeout
            state.uplink.link.mail.append(m.Draining())
        else:
            self._give_back()

    def _give_back(self) -> None:
        """What runs is given back: that does not count as an attempt."""
        for key, job in self.state.jobs.items():
            if not job.over:
                self._effects.append(CancelJob(*key))
                self._hand_back(key, job)

    def _hand_back(self, key: AttemptKey, job: Job) -> None:
        self._note(NoteName.HANDED_BACK, sender=key[0], counter=key[1])
        self._end(job, m.HandBack(*key))

    def _leave_if_done(self) -> None:
        """Nothing runs, and our last words are receipted: so nothing that was assigned meanwhile is lost."""
        state, now, link = self.state, self._now, self.state.uplink.link
        if state.running:
            return
        latest = now + self.policy.farewell
        if state.stop_at is None or state.stop_at > latest:
            state.stop_at = latest
        unheard = state.jobs or (state.renewal and (link.mail or link.unreceipted))
        if not unheard or now >= state.stop_at:
            status, reason = (0, "drained") if state.stops == 1 else (1, "told to stop at once")
            if state.jobs:
                reason += f"; nobody has heard how {len(state.jobs)} jobs ended, so they will run again"
            self._leave(status, reason)

    def _leave(self, status: int, reason: str) -> None:
        self.state.left = True
        self._effects += [Leave(self.groups.workers), Exit(status, reason)]

    def _hung_at(self) -> Nanos | None:
        """When all slots will have been held for too long by jobs that do not stop."""
        state = self.state
        if not state.capacity <= state.running <= state.cancelled:
            return None
        cancelled = [job.cancelled_at or 0 for job in state.jobs.values() if not job.over]
        return max(cancelled) + self.policy.hung_grace

    def _tick(self, _: e.Tick) -> None:
        state, hung_at = self.state, self._hung_at()
        if hung_at is not None and self._now >= hung_at:
            self._note(NoteName.JOB_HUNG, jobs=state.running)
            self._leave(1, f"all {state.capacity} slots are held by jobs that do not stop")
        elif state.running and state.stop_at is not None and self._now >= state.stop_at:
            self._give_back()
            state.stop_at = self._now + self.policy.farewell

    def _note(self, name: NoteName, /, **fields: Any) -> None:
        self._effects.append(Note(name, fields))

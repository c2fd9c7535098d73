"""The task queue: which task is where, and who runs it. A pure function of its commands, without time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from spreadq_core import commands as c
from spreadq_core import messages as m
from spreadq_core.admission import refusal
from spreadq_core.commands import AnyCommand, AnyDecision
from spreadq_core.errors import InvariantError, PeerError
from spreadq_core.ids import ANYBODY, Instance
from spreadq_core.lifecycle import ASSIGNABLE, WorkerInput, WorkerState, after
from spreadq_core.messages import Outcome, Refusal, Rejected, Status, Submit
from spreadq_core.policy import Policy
from spreadq_core.records import (
    RECORDED_LIMIT,
    Attempt,
    AttemptKey,
    Phase,
    QueueState,
    SenderRecord,
    TaskRecord,
    WorkerRecord,
    kept_size,
    rank_of,
)
from spreadq_core.schedule import Schedule
from spreadq_core.terms import Terms, TermsTable

# An enum's member costs a look-up in its class each time; these are on the assignment path.
QUEUED, RETURNED, HELD, RUNNING, ENDING, OVER = Phase
WORKING = WorkerState.WORKING
DONE, FAILED = Status.DONE, Status.FAILED

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(QueueState).decode


class TaskQueue:
    """All tasks of one queue.

    `apply` never fails for what peers say: what is wrong, late or repeated gives an `Ignored` or
    nothing. It raises `InvariantError` where we broke a rule of our own.
    """

    def __init__(self, policy: Policy, state: QueueState | None = None) -> None:
        self.policy = policy
        self.state = QueueState() if state is None else state
        self.schedule = Schedule()
        self.terms = TermsTable()
        self._handlers: dict[type, Any] = {
            c.Said: self._said,
            c.Entered: self._enter,
            c.Lost: self._lose,
            c.Forgotten: self._forget,
            c.Overran: self._overrun,
            c.Expired: self._expire,
            c.Decided: self._decide,
            c.Restarted: self._restart,
            c.Released: self._release,
        }
        self._listeners: dict[type, Any] = {
            m.Submit: self._submits,
            m.Closed: self._closes,
            m.WorkerHello: self._hellos,
            m.Claim: self._claims,
            m.Ready: self._readies,
            m.Draining: self._drains,
            m.Outcome: self._outcomes,
            m.Response: self._responses,
            m.JobOver: self._slots_freed,
            m.HandBack: self._slots_freed,
        }
        workers = [worker for worker in self.state.workers.values() if worker.state in ASSIGNABLE]
        for worker in sorted(workers, key=lambda worker: worker.idle_since):
            self.schedule.enlist(worker)
            if len(worker.slots) < worker.capacity:
                self.schedule.rest(worker)
        for task in self._tasks():
            task.submit.terms, task.terms = self.terms.read(task.submit.terms)
            if task.phase in (QUEUED, RETURNED):
                self.schedule.enqueue(task)

    def apply(self, command: AnyCommand) -> list[AnyDecision]:
        """Change by `command`; give what follows from it, in order."""
        decisions: list[AnyDecision] = []
        self._handlers[type(command)](command, decisions)
        return decisions

    def snapshot(self) -> bytes:
        """All state, as bytes that `restore` takes; equal histories give equal bytes."""
        return _encode(self.state)

    @classmethod
    def restore(cls, policy: Policy, image: bytes) -> TaskQueue:
        """The queue that a snapshot was taken of.

        Raises:
            msgspec.MsgspecError: the bytes are no such snapshot.
        """
        return cls(policy, _decode(image))

    def digest(self) -> bytes:
        """16 bytes that are equal for equal histories."""
        return hashlib.blake2b(self.snapshot(), digest_size=16).digest()

    def task(self, sender: Instance, counter: int) -> TaskRecord | None:
        """The task of this id, if it is here and has no outcome."""
        record = self.state.senders.get(sender)
        return record.tasks.get(counter) if record is not None else None

    def _tasks(self) -> list[TaskRecord]:
        tasks = [task for sender in self.state.senders.values() for task in sender.tasks.values()]
        return sorted(tasks, key=lambda task: task.rank)

    def _sender(self, instance: Instance) -> SenderRecord:
        sender = self.state.senders.get(instance)
        if sender is None:
            sender = self.state.senders[instance] = SenderRecord()
        return sender

    def _said(self, command: c.Said[m.AnyMessage], out: list[AnyDecision]) -> None:
        self._listeners[type(command.messages[0])](command, out)

    # --- tasks come -----------------------------------------------------------------------------

    def _submits(self, command: c.Said[m.Submit], out: list[AnyDecision]) -> None:
        instance, state = command.source, self.state
        sender = self._sender(instance)
        known, read = sender.known, self.terms.read
        for submit in command.messages:
            counter = submit.counter
            if counter == known.upto + 1 and not known.firsts:
                known.upto = counter  # nearly always
            elif not self._is_new(instance, sender, submit, out):
                continue
            try:
                submit.terms, terms = read(submit.terms)
            except PeerError as error:
                self._reject(instance, sender, Rejected(counter, Refusal.MALFORMED, str(error)), out)
                continue
            rejected = refusal(submit, terms, sender, state, self.policy)
            if rejected is not None:
                self._reject(instance, sender, rejected, out)
                continue
            task = self._admit(instance, sender, submit, terms, out)
            if command.hold and submit.again:
                task.phase = HELD
                continue
            self._place(task, out)
            if task.phase is QUEUED and terms.reply and not self.schedule.is_served(terms.function):
                out.append(c.Say(instance, m.Unserved(counter)))

    def _is_new(
        self, instance: Instance, sender: SenderRecord, submit: Submit, out: list[AnyDecision]
    ) -> bool:
        """Whether a task that does not follow the sender's last one was never here; else answer it."""
        counter = submit.counter
        if counter in sender.outcomes:
            out.append(c.AskedAgain(instance, counter))
        elif counter in sender.rejected:
            out.append(c.Say(instance, sender.rejected[counter]))
        elif counter not in sender.known:
            if len(sender.known) <= self.policy.spans_limit:
                sender.known.add(counter, counter)
                return True
            out.append(c.Ignored(instance, submit))
        return False

    def _reject(
        self, instance: Instance, sender: SenderRecord, rejected: Rejected, out: list[AnyDecision]
    ) -> None:
        if len(sender.rejected) < self.policy.open_limit:
            sender.rejected[rejected.counter] = rejected
        self.state.counts.rejected += 1
        out.append(c.Say(instance, rejected))

    def _admit(
        self, instance: Instance, sender: SenderRecord, submit: Submit, terms: Terms, out: list[AnyDecision]
    ) -> TaskRecord:
        self.state.tasks += 1
        place = self.state.accepted = self.state.accepted + 1
        rank = rank_of(terms.priority, place)
        task = sender.tasks[submit.counter] = TaskRecord(instance, rank, submit, terms)
        if terms.expiry:
            out.append(c.Expiring(task))
        return task

    def _restart(self, _: c.Restarted, out: list[AnyDecision]) -> None:
        for worker in self.state.workers.values():
            if worker.state in ASSIGNABLE:
                self.schedule.dismiss(worker)
        self.state.workers.clear()
        for task in self._tasks():
            if task.phase is RUNNING:
                task.phase, task.live = HELD, None
            if task.terms.expiry:
                out.append(c.Expiring(task))

    def _release(self, command: c.Released, out: list[AnyDecision]) -> None:
        if command.keys is None:
            tasks = self._tasks()
        else:
            tasks = [task for key in command.keys if (task := self.task(*key)) is not None]
        for task in tasks:
            if task.phase is HELD:
                self._put_back(task, out)

    # --- tasks are assigned ---------------------------------------------------------------------

    def _place(self, task: TaskRecord, out: list[AnyDecision]) -> None:
        """Give a waiting task to a worker, or let it wait."""
        terms, schedule = task.terms, self.schedule
        worker = schedule.longest_idle(terms.function)
        if worker is not None:
            self._assign(task, worker, out)
            if len(worker.slots) < worker.capacity:
                self._rest(worker)
            else:
                schedule.fill(worker)
            return
        schedule.enqueue(task)

    def _put_back(self, task: TaskRecord, out: list[AnyDecision]) -> None:
        task.live, task.phase = None, RETURNED
        self._place(task, out)

    def _assign(self, task: TaskRecord, worker: WorkerRecord, out: list[AnyDecision]) -> None:
        slots, number = worker.slots, 1
        if task.live is not None or len(slots) >= worker.capacity or worker.state not in ASSIGNABLE:
            raise InvariantError(f"{task!r} cannot start at {worker!r}")
        if task.attempts:
            number = max(task.attempts)[0] + 1
            self.state.counts.reassigned += 1
        task.live = attempt = (number, worker.instance)
        task.attempts = (*task.attempts[1 - RECORDED_LIMIT :], attempt) if number > 1 else (attempt,)
        task.phase = RUNNING
        slots[task.sender, task.submit.counter, number] = True
        if worker.state is not WORKING:
            worker.state = after(worker.state, WorkerInput.ASSIGNED)
        out.append(c.Assigned(task, worker.instance, number))

    def _feed(self, worker: WorkerRecord, out: list[AnyDecision]) -> None:
        """Slots of the worker are free: give it tasks until it is full or there are none."""
        schedule, slots, took = self.schedule, worker.slots, False
        if worker.state in ASSIGNABLE:
            while len(slots) < worker.capacity:
                task = schedule.next_for(worker)
                if task is None:
                    if took or not schedule.is_idle(worker):
                        self._rest(worker)
                    break
                self._assign(task, worker, out)
                took = True
            else:
                schedule.fill(worker)
            if not slots and worker.state is WORKING:
                worker.state = after(WORKING, WorkerInput.EMPTIED)

    def _rest(self, worker: WorkerRecord) -> None:
        self.state.turns += 1
        worker.idle_since = self.state.turns
        self.schedule.rest(worker)

    # --- attempts end ---------------------------------------------------------------------------

    def _outcomes(self, command: c.Said[m.Outcome], out: list[AnyDecision]) -> None:
        instance, senders = command.source, self.state.senders
        worker = self.state.workers.get(instance)
        for outcome in command.messages:
            attempt, status = (outcome.number, outcome.worker), outcome.status
            if outcome.worker != instance or status > FAILED:  # no worker may say that
                out.append(c.Ignored(instance, outcome))
                continue
            sender = senders.get(outcome.sender)
            task = sender.tasks.get(outcome.counter) if sender is not None else None
            if task is not None and status is DONE and attempt in task.attempts:
                self._settle(task, outcome, out)
            elif task is not None and status is FAILED and attempt == task.live:
                self._judge(task, outcome, out)
            else:
                out.append(c.Ignored(instance, outcome))
            key = (outcome.sender, outcome.counter, outcome.number)
            if worker is not None and worker.slots.pop(key, None) is not None:
                worker.done += 1
        if worker is not None:  # a lost one may still have succeeded
            self._feed(worker, out)

    def _strike(self, task: TaskRecord, why: str, out: list[AnyDecision]) -> None:
        """The live attempt is over and counts: the task goes back to its place, or is buried."""
        attempt = task.live
        assert attempt is not None
        self.state.doubted.pop((task.sender, task.submit.counter), None)
        task.strikes += 1
        if task.strikes < task.terms.max_attempts:
            self._put_back(task, out)
        else:
            reason = f"attempt {attempt[0]}, the last of {task.terms.max_attempts}: {why}"
            verdict = _verdict(task.sender, task.submit.counter, Status.BURIED, reason, attempt)
            self._judge(task, verdict, out)

    def _overrun(self, command: c.Overran, out: list[AnyDecision]) -> None:
        for task in self._live(command.worker, command.keys):
            self._revoke(task, out)
            self._strike(task, f"it ran longer than its limit of {task.terms.run_limit / 1e9:g} s", out)

    def _slots_freed(self, command: c.Said[m.JobOver | m.HandBack], out: list[AnyDecision]) -> None:
        worker, messages = self.state.workers.get(command.source), command.messages
        if worker is None:
            return
        keys = [(message.sender, message.counter, message.number) for message in messages]
        freed = [key for key in keys if worker.slots.pop(key, None) is not None]
        worker.done += len(freed)
        for task in self._live(worker.instance, freed):
            if type(messages[0]) is m.HandBack:
                self._put_back(task, out)
            else:
                self._strike(task, "its job was stopped", out)
        self._feed(worker, out)

    def _live(self, worker: Instance, keys: Iterable[AttemptKey]) -> list[TaskRecord]:
        """Tasks of which one of these attempts of `worker` is live, in the order in which they go next."""
        tasks = []
        for sender, counter, number in keys:
            task = self.task(sender, counter)
            if task is not None and task.live == (number, worker):
                tasks.append(task)
        return sorted(tasks, key=lambda task: task.rank)

    # --- tasks end ------------------------------------------------------------------------------

    def _judge(self, task: TaskRecord, outcome: Outcome, out: list[AnyDecision]) -> None:
        """The task is to end with `outcome`, unless a success is ordered before it."""
        phase, task.phase, task.live = task.phase, ENDING, None
        if phase in (QUEUED, RETURNED):
            self.schedule.withdraw(task)
        self.state.verdicts[task.sender, task.submit.counter] = outcome
        out.append(c.Judged(outcome))

    def _decide(self, command: c.Decided, out: list[AnyDecision]) -> None:
        verdict = command.verdict
        task = self.task(verdict.sender, verdict.counter)
        if task is not None and self.state.verdicts.get((verdict.sender, verdict.counter)) == verdict:
            self._settle(task, verdict, out)

    def _settle(self, task: TaskRecord, outcome: Outcome | None, out: list[AnyDecision]) -> None:
        """The task is over: with `outcome`, or with None because nobody waits for one."""
        state, counter = self.state, task.submit.counter
        sender = state.senders[task.sender]
        del sender.tasks[counter]
        state.tasks -= 1
        phase, task.phase = task.phase, OVER
        if state.doubted:
            state.doubted.pop((task.sender, counter), None)
        if phase is RUNNING:
            if outcome is None or (outcome.number, outcome.worker) != task.live:
                self._revoke(task, out)
        elif phase is ENDING:
            del state.verdicts[task.sender, counter]
        elif phase is not HELD:
            self.schedule.withdraw(task)
        if outcome is not None and outcome.status is DONE:
            state.counts.done += 1
        else:
            state.counts.ended(Status.CANCELLED if outcome is None else outcome.status)
        if task.terms.reply:
            if outcome is not None:
                sender.outcomes[counter] = outcome
                state.outcome_bytes += kept_size(outcome)
            else:
                state.outcome_bytes -= sender.drop(counter)
        out.append(c.Settled(task, outcome))

    def _revoke(self, task: TaskRecord, out: list[AnyDecision]) -> None:
        """Whoever runs the task is to stop."""
        if task.live is not None:
            number, worker = task.live
            out.append(c.Say(worker, m.Cancel(task.sender, task.submit.counter, number)))

    def _expire(self, command: c.Expired, out: list[AnyDecision]) -> None:
        for sender, counter in command.keys:
            task = self.task(sender, counter)
            if task is not None and task.phase is not ENDING:
                self._revoke(task, out)
                verdict = _verdict(sender, counter, Status.EXPIRED, "it was not done before its expiry")
                self._judge(task, verdict, out)

    # --- what is kept for senders ---------------------------------------------------------------

    def _responses(self, command: c.Said[m.Response], out: list[AnyDecision]) -> None:
        state = self.state
        for response in command.messages:
            task = self.task(response.sender, response.counter)
            attempt = (response.number, command.source)
            room = state.outcome_bytes < self.policy.outcome_bytes_limit
            if task is None or attempt not in task.attempts or not task.terms.reply or not room:
                out.append(c.Ignored(command.source, response))
                continue
            responses = state.senders[response.sender].responses.setdefault(response.counter, {})
            if response.index not in responses:
                responses[response.index] = response
                state.outcome_bytes += kept_size(response)

    def _closes(self, command: c.Said[m.Closed], out: list[AnyDecision]) -> None:
        sender = self._sender(command.source)
        for message in command.messages:
            for first, last in message.ranges:
                if first > last or len(sender.known) > self.policy.spans_limit:
                    out.append(c.Ignored(command.source, message))
                    break
                sender.known.add(first, last)
                for counter in sender.here(first, last):
                    task = sender.tasks.get(counter)
                    if task is None:
                        self.state.outcome_bytes -= sender.drop(counter)
                    elif task.terms.reply:  # a one-way task is closed as soon as it is accepted
                        self._settle(task, None, out)

    def _forget(self, command: c.Forgotten, out: list[AnyDecision]) -> None:
        instance, sender = command.sender, self.state.senders.get(command.sender)
        if sender is None:
            return
        for counter, outcome in list(sender.outcomes.items()):
            self.state.outcome_bytes -= sender.drop(counter)
            if sender.tasks:
                attempt, reason = (outcome.number, outcome.worker), "its outcome was not fetched in time"
                gone = _verdict(instance, counter, Status.EXPIRED, reason, attempt)
                sender.outcomes[counter] = gone
                self.state.outcome_bytes += kept_size(gone)
        if not sender.tasks:
            del self.state.senders[instance]

    # --- workers --------------------------------------------------------------------------------

    def _hellos(self, command: c.Said[m.WorkerHello], out: list[AnyDecision]) -> None:
        hello, instance, policy = command.messages[0], command.source, self.policy
        names = sum(len(name.encode()) for name in hello.functions or ())
        if not 1 <= hello.capacity <= policy.capacity_limit or names > policy.functions_limit:
            out.append(c.Ignored(instance, hello))
            return
        worker = self.state.workers.get(instance)
        if worker is None:
            self.state.workers[instance] = WorkerRecord(instance, hello.capacity, hello.functions)
            return
        if worker.state in ASSIGNABLE:
            self.schedule.dismiss(worker)
        worker.state = after(worker.state, WorkerInput.HELLO)
        worker.capacity, worker.functions, worker.ready = hello.capacity, hello.functions, False
        worker.slots = dict.fromkeys(worker.slots, False)

    def _claims(self, command: c.Said[m.Claim], out: list[AnyDecision]) -> None:
        worker = self.state.workers.get(command.source)
        for claim in command.messages:
            try:
                claim.task.terms, terms = self.terms.read(claim.task.terms)
            except PeerError:
                out.append(c.Ignored(command.source, claim))
                continue
            if worker is None or worker.ready:
                out.append(c.Ignored(command.source, claim))
            else:
                self._claim(worker, claim, terms, out)

    def _claim(self, worker: WorkerRecord, claim: m.Claim, terms: Terms, out: list[AnyDecision]) -> None:
        sender, counter = self._sender(claim.sender), claim.task.counter
        worker.slots[claim.sender, counter, claim.number] = True
        task = sender.tasks.get(counter)
        if task is None:
            if counter in sender.known:  # it was closed, or has its outcome
                out.append(c.Say(worker.instance, m.Cancel(claim.sender, counter, claim.number)))
                return
            sender.known.add(counter, counter)
            task = self._admit(claim.sender, sender, claim.task, terms, out)
            task.phase, task.strikes = HELD, claim.strikes
        attempt = (claim.number, worker.instance)
        if attempt not in task.attempts:
            task.attempts = (*task.attempts[1 - RECORDED_LIMIT :], attempt)
        if task.live is None and task.phase is not ENDING:  # else it is recorded only
            phase, task.phase, task.live = task.phase, RUNNING, attempt
            if phase is not HELD:
                self.schedule.withdraw(task)
            out.append(c.Adopted(task))

    def _readies(self, command: c.Said[m.Ready], out: list[AnyDecision]) -> None:
        worker = self.state.workers.get(command.source)
        if worker is not None:
            worker.ready = True

    def _enter(self, command: c.Entered, out: list[AnyDecision]) -> None:
        worker = self.state.workers[command.worker]
        worker.state = after(worker.state, WorkerInput.ENTERED)
        if worker.state in ASSIGNABLE:
            if worker.slots:
                worker.state = after(worker.state, WorkerInput.ASSIGNED)
            self.schedule.enlist(worker)
        unclaimed = [key for key, claimed in worker.slots.items() if not claimed]
        for key in unclaimed:
            del worker.slots[key]
        for task in self._live(worker.instance, unclaimed):  # its Assign never arrived
            self._put_back(task, out)
        self._feed(worker, out)

    def _drains(self, command: c.Said[m.Draining], out: list[AnyDecision]) -> None:
        worker = self.state.workers.get(command.source)
        if worker is not None:
            if worker.state in ASSIGNABLE:
                self.schedule.dismiss(worker)
            worker.state = after(worker.state, WorkerInput.DRAINED)

    def _lose(self, command: c.Lost, out: list[AnyDecision]) -> None:
        worker = self.state.workers.pop(command.worker, None)
        if worker is None:
            return
        if worker.state in ASSIGNABLE:
            self.schedule.dismiss(worker)
        worker.state = after(worker.state, WorkerInput.LOST)
        unheard = set(command.unheard)
        for task in self._live(worker.instance, worker.slots):
            assert task.live is not None
            heard = (task.sender, task.submit.counter, task.live[0]) not in unheard
            self._lose_attempt(task, command.loss.value, out, heard=heard)

    def _lose_attempt(self, task: TaskRecord, why: str, out: list[AnyDecision], *, heard: bool) -> None:
        """The live attempt is lost with its worker, which had `heard` of it or not.

        Where many workers die at once, a task goes from one that is dead to others whose death is not
        known yet. So from the second strike on, an unheard loss counts only if another one follows it
        after a pause, in which all deaths become known. Workers say at once that they have such a task.
        """
        doubted, key = self.state.doubted, (task.sender, task.submit.counter)
        if key in doubted:
            task.strikes += not heard and task.strikes + 1 < task.terms.max_attempts
        elif task.strikes and not heard:
            doubted[key] = None
            task.live, task.phase = None, HELD
            out.append(c.Paused(task))
            return
        self._strike(task, why, out)


def _verdict(
    sender: Instance, counter: int, status: Status, reason: str, attempt: Attempt = (0, ANYBODY)
) -> Outcome:
    return Outcome(sender, counter, *attempt, status, 0, reason.encode(), "text")

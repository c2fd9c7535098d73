"""The task queue: which task is where, and who runs it. A pure function of its commands, without time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from spreadq_core import commands as c
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
    rank_of,
)
from spreadq_core.schedule import Schedule
from spreadq_core.terms import Terms, TermsTable

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(QueueState)

_WAITING = (Phase.QUEUED, Phase.RETURNED)

# An enum's member costs a look-up in its class each time; these are on the assignment path.
RUNNING, OVER = Phase.RUNNING, Phase.OVER
WORKING, ASSIGNED = WorkerState.WORKING, WorkerInput.ASSIGNED
DONE = Status.DONE


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
        self._handlers: dict[type, Callable[[Any, list[AnyDecision]], None]] = {
            c.SubmitTasks: self._submit,
            c.CloseTasks: self._close,
            c.ForgetSender: self._forget,
            c.ReleaseHeld: self._release,
            c.GreetWorker: self._greet,
            c.ClaimAttempt: self._claim,
            c.EnterWorker: self._enter,
            c.DrainWorker: self._drain,
            c.LoseWorker: self._lose,
            c.EndAttempts: self._end_attempts,
            c.KeepResponses: self._keep_responses,
            c.FreeSlots: self._free_slots,
            c.OverrunAttempts: self._overrun,
            c.ExpireTasks: self._expire,
            c.ApplyVerdict: self._apply_verdict,
        }
        self._rebuild_schedule()

    def apply(self, command: AnyCommand) -> list[AnyDecision]:
        """Change by `command`; give what follows from it, in order."""
        decisions: list[AnyDecision] = []
        self._handlers[type(command)](command, decisions)
        return decisions

    # --- state as a whole -----------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All state, as bytes that `restore` takes; equal histories give equal bytes."""
        return _encoder.encode(self.state)

    @classmethod
    def restore(cls, policy: Policy, image: bytes) -> TaskQueue:
        """The queue that a snapshot was taken of.

        Raises:
            msgspec.MsgspecError: the bytes are no such snapshot.
        """
        return cls(policy, _decoder.decode(image))

    def digest(self) -> bytes:
        """16 bytes that are equal for equal histories."""
        return hashlib.blake2b(self.snapshot(), digest_size=16).digest()

    def task(self, sender: Instance, counter: int) -> TaskRecord | None:
        """The task of this id, if it is here and has no outcome."""
        record = self.state.senders.get(sender)
        return record.tasks.get(counter) if record is not None else None

    def _rebuild_schedule(self) -> None:
        state, schedule = self.state, self.schedule
        workers = [worker for worker in state.workers.values() if worker.state in ASSIGNABLE]
        for worker in workers:
            schedule.enlist(worker)
        for worker in sorted(workers, key=lambda worker: worker.idle_since):
            if worker.free > 0:
                schedule.rest(worker)
        tasks = [task for sender in state.senders.values() for task in sender.tasks.values()]
        for task in sorted(tasks, key=lambda task: task.rank):
            task.submit.terms, task.terms = self.terms.read(task.submit.terms)
            if task.phase in _WAITING:
                schedule.enqueue(task)

    def _sender(self, instance: Instance) -> SenderRecord:
        sender = self.state.senders.get(instance)
        if sender is None:
            sender = self.state.senders[instance] = SenderRecord()
        return sender

    # --- tasks come -----------------------------------------------------------------------------

    def _submit(self, command: c.SubmitTasks, out: list[AnyDecision]) -> None:
        instance = command.sender
        sender = self._sender(instance)
        known, read = sender.known, self.terms.read
        for submit in command.submits:
            counter = submit.counter
            if counter != known.upto + 1 and counter in known:
                self._submitted_again(instance, sender, counter, out)
                continue
            known.add(counter, counter)
            try:
                submit.terms, terms = read(submit.terms)
            except PeerError as error:
                self._reject(instance, sender, Rejected(counter, Refusal.MALFORMED, str(error)), out)
                continue
            rejected = refusal(submit, terms, sender, self.state, self.policy)
            if rejected is not None:
                self._reject(instance, sender, rejected, out)
                continue
            task = self._admit(instance, sender, submit, terms, out)
            if submit.again:
                submit.again = False
                if command.hold:
                    task.phase = Phase.HELD
                    continue
            self._place(task, out)

    def _submitted_again(
        self, instance: Instance, sender: SenderRecord, counter: int, out: list[AnyDecision]
    ) -> None:
        if counter in sender.outcomes:
            out.append(c.AskedAgain(instance, counter))
        elif counter in sender.rejected:
            out.append(c.Refused(instance, sender.rejected[counter]))

    def _reject(
        self, instance: Instance, sender: SenderRecord, rejected: Rejected, out: list[AnyDecision]
    ) -> None:
        if len(sender.rejected) < self.policy.open_limit:
            sender.rejected[rejected.counter] = rejected
        self.state.counts.rejected += 1
        out.append(c.Refused(instance, rejected))

    def _admit(
        self, instance: Instance, sender: SenderRecord, submit: Submit, terms: Terms, out: list[AnyDecision]
    ) -> TaskRecord:
        state = self.state
        state.tasks += 1
        place = state.accepted = state.accepted + 1
        task = TaskRecord(instance, rank_of(terms.priority, place), submit, terms)
        sender.tasks[submit.counter] = task
        if terms.expiry:
            out.append(c.Expiring(task))
        return task

    def _release(self, _: c.ReleaseHeld, out: list[AnyDecision]) -> None:
        senders = self.state.senders.values()
        held = [task for sender in senders for task in sender.tasks.values() if task.phase is Phase.HELD]
        for task in sorted(held, key=lambda task: task.rank):
            self._put_back(task, out)

    # --- tasks are assigned ---------------------------------------------------------------------

    def _place(self, task: TaskRecord, out: list[AnyDecision]) -> None:
        """Give a waiting task to a worker, or let it wait."""
        terms = task.terms
        worker = self.schedule.longest_idle(terms.function)
        if worker is not None:
            self._assign(task, worker, out)
            if len(worker.slots) < worker.capacity:
                self._rest(worker)
            else:
                self.schedule.fill(worker)
            return
        self.schedule.enqueue(task)
        if terms.reply and not self.schedule.is_served(terms.function):
            out.append(c.Stranded(task))

    def _put_back(self, task: TaskRecord, out: list[AnyDecision]) -> None:
        task.live = None
        task.phase = Phase.RETURNED
        self._place(task, out)

    def _assign(self, task: TaskRecord, worker: WorkerRecord, out: list[AnyDecision]) -> None:
        slots = worker.slots
        if task.live is not None or len(slots) >= worker.capacity or worker.state not in ASSIGNABLE:
            raise InvariantError(f"{task!r} cannot start at {worker!r}")
        number = 1
        if task.attempts:
            number = max(task.attempts)[0] + 1
            self.state.counts.reassigned += 1
        task.live = attempt = (number, worker.instance)
        task.attempts = (*task.attempts[1 - RECORDED_LIMIT :], attempt) if number > 1 else (attempt,)
        task.phase = RUNNING
        slots[task.sender, task.submit.counter, number] = True
        if worker.state is not WORKING:
            worker.state = after(worker.state, ASSIGNED)
        out.append(c.Assigned(task, worker.instance, number))

    def _feed(self, worker: WorkerRecord, out: list[AnyDecision]) -> None:
        """Give a worker tasks until it is full or there are none; it is the last in turn then."""
        schedule, slots, took = self.schedule, worker.slots, False
        while len(slots) < worker.capacity:
            task = schedule.next_for(worker)
            if task is None:
                if took or not schedule.is_idle(worker):
                    self._rest(worker)
                return
            self._assign(task, worker, out)
            took = True
        schedule.fill(worker)

    def _rest(self, worker: WorkerRecord) -> None:
        self.state.turns += 1
        worker.idle_since = self.state.turns
        self.schedule.rest(worker)

    # --- attempts end ---------------------------------------------------------------------------

    def _end_attempts(self, command: c.EndAttempts, out: list[AnyDecision]) -> None:
        worker = self.state.workers.get(command.worker)
        senders = self.state.senders
        for outcome in command.outcomes:
            key = (outcome.sender, outcome.counter, outcome.number)
            attempt = (outcome.number, command.worker)
            sender = senders.get(outcome.sender)
            task = sender.tasks.get(outcome.counter) if sender is not None else None
            if task is None or attempt not in task.attempts:
                out.append(c.Ignored("outcome", key))
            elif outcome.status is DONE:
                self._settle(task, outcome, out)
            elif task.live == attempt:
                self._judge(task, outcome, out)
            else:
                out.append(c.Ignored("failure", key))
            if worker is not None:  # a lost one may still have succeeded
                self._free(worker, key, out)

    def _end_attempt(self, task: TaskRecord, why: str, out: list[AnyDecision]) -> None:
        """The live attempt is over and counts: the task goes back to its place, or is buried."""
        task.strikes += 1
        if task.strikes < task.terms.max_attempts:
            self._put_back(task, out)
        elif task.live is not None:
            number, worker = task.live
            reason = f"attempt {number}, the last of {task.terms.max_attempts}: {why}"
            self._judge(task, _verdict(task, number, worker, Status.BURIED, reason), out)

    def _overrun(self, command: c.OverrunAttempts, out: list[AnyDecision]) -> None:
        for sender, counter, number in command.keys:
            task = self.task(sender, counter)
            if task is not None and task.live is not None and task.live[0] == number:
                out.append(c.Revoked(task.live[1], (sender, counter, number)))
                limit = task.terms.run_limit / 1e9
                self._end_attempt(task, f"it ran longer than its limit of {limit:g} s", out)

    def _free_slots(self, command: c.FreeSlots, out: list[AnyDecision]) -> None:
        worker = self.state.workers.get(command.worker)
        if worker is None:
            return
        for key in command.keys:
            if command.returned:
                self._give_back(worker, key, out)
            self._free(worker, key, out)

    def _give_back(self, worker: WorkerRecord, key: AttemptKey, out: list[AnyDecision]) -> None:
        """The worker does not run this attempt, through no fault of the task."""
        task = self.task(key[0], key[1])
        if task is not None and task.live == (key[2], worker.instance):
            self._put_back(task, out)

    def _free(self, worker: WorkerRecord, key: AttemptKey, out: list[AnyDecision]) -> None:
        """The job of an attempt is over; whatever became of its task, the slot is free."""
        if worker.slots.pop(key, None) is None:
            return
        worker.done += 1
        if worker.state in ASSIGNABLE:
            self._feed(worker, out)
        if not worker.slots:
            worker.state = after(worker.state, WorkerInput.EMPTIED)

    # --- tasks end ------------------------------------------------------------------------------

    def _judge(self, task: TaskRecord, outcome: Outcome, out: list[AnyDecision]) -> None:
        """The task is to end with `outcome`, unless a success is ordered before it."""
        phase, task.phase = task.phase, Phase.ENDING
        if phase in _WAITING:
            self.schedule.withdraw(task)
        task.live = None
        self.state.verdicts[task.sender, task.submit.counter] = outcome
        out.append(c.Judged(outcome))

    def _apply_verdict(self, command: c.ApplyVerdict, out: list[AnyDecision]) -> None:
        outcome = command.outcome
        task = self.task(outcome.sender, outcome.counter)
        if task is not None and self.state.verdicts.get((outcome.sender, outcome.counter)) == outcome:
            self._settle(task, outcome, out)

    def _settle(self, task: TaskRecord, outcome: Outcome | None, out: list[AnyDecision]) -> None:
        """The task is over: with `outcome`, or with None because nobody waits for one."""
        state, counter = self.state, task.submit.counter
        sender = state.senders[task.sender]
        del sender.tasks[counter]
        state.tasks -= 1
        phase, task.phase = task.phase, OVER
        if phase is RUNNING:
            if outcome is None or (outcome.number, outcome.worker) != task.live:
                self._revoke(task, out)
        elif phase is Phase.ENDING:
            del state.verdicts[task.sender, counter]
        elif phase in _WAITING:
            self.schedule.withdraw(task)
        state.counts.ended(Status.CANCELLED if outcome is None else outcome.status)
        if task.terms.reply:
            if outcome is not None:
                sender.outcomes[counter] = outcome
                state.outcome_bytes += len(outcome.payload)
            else:
                state.outcome_bytes -= sender.drop(counter)
        out.append(c.Settled(task, outcome))

    def _revoke(self, task: TaskRecord, out: list[AnyDecision]) -> None:
        """Whoever runs the task is to stop."""
        if task.live is not None:
            number, worker = task.live
            out.append(c.Revoked(worker, (task.sender, task.submit.counter, number)))
            task.live = None

    def _expire(self, command: c.ExpireTasks, out: list[AnyDecision]) -> None:
        for instance, counter in command.ids:
            task = self.task(instance, counter)
            if task is not None and task.phase is not Phase.ENDING:
                self._revoke(task, out)
                reason = "it was not done before its expiry"
                self._judge(task, _verdict(task, 0, ANYBODY, Status.EXPIRED, reason), out)

    # --- what is kept for senders ---------------------------------------------------------------

    def _keep_responses(self, command: c.KeepResponses, out: list[AnyDecision]) -> None:
        state = self.state
        for response in command.responses:
            task = self.task(response.sender, response.counter)
            attempt = (response.number, command.worker)
            room = state.outcome_bytes < self.policy.outcome_bytes_limit
            if task is None or attempt not in task.attempts or not task.terms.reply or not room:
                out.append(c.Ignored("response", (response.sender, response.counter, response.number)))
                continue
            responses = state.senders[response.sender].responses.setdefault(response.counter, {})
            if response.index not in responses:
                responses[response.index] = response
                state.outcome_bytes += len(response.payload)

    def _close(self, command: c.CloseTasks, out: list[AnyDecision]) -> None:
        sender = self._sender(command.sender)
        for first, last in command.ranges:
            if not 0 < first <= last or len(sender.known) > self.policy.spans_limit:
                out.append(c.Ignored("range", (command.sender, first, last)))
                continue
            sender.known.add(first, last)
            for counter in sender.kept(first, last):
                task = sender.tasks.get(counter)
                if task is None:
                    self.state.outcome_bytes -= sender.drop(counter)
                elif task.terms.reply:  # a one-way task is closed as soon as it is accepted
                    self._settle(task, None, out)

    def _forget(self, command: c.ForgetSender, out: list[AnyDecision]) -> None:
        sender = self.state.senders.get(command.sender)
        if sender is None:
            return
        for counter in [*sender.outcomes, *sender.rejected]:
            self.state.outcome_bytes -= sender.drop(counter)
        if not sender.tasks:
            del self.state.senders[command.sender]

    # --- workers --------------------------------------------------------------------------------

    def _greet(self, command: c.GreetWorker, out: list[AnyDecision]) -> None:
        worker = self.state.workers.get(command.worker)
        if worker is None:
            worker = WorkerRecord(command.worker, command.capacity, command.functions)
            self.state.workers[command.worker] = worker
            return
        if worker.state in ASSIGNABLE:
            self.schedule.dismiss(worker)
        worker.state = after(worker.state, WorkerInput.HELLO)
        worker.capacity = command.capacity
        worker.functions = command.functions
        worker.slots = dict.fromkeys(worker.slots, False)

    def _claim(self, command: c.ClaimAttempt, out: list[AnyDecision]) -> None:
        worker = self.state.workers[command.worker]
        claim, submit = command.claim, command.claim.task
        counter = submit.counter
        key = (claim.sender, counter, claim.number)
        worker.slots[key] = True
        sender = self._sender(claim.sender)
        task = sender.tasks.get(counter)
        if task is None:
            if counter in sender.known:
                out.append(c.Revoked(worker.instance, key))  # it was closed, or has its outcome
                return
            submit.terms, terms = self.terms.read(submit.terms)
            sender.known.add(counter, counter)
            task = self._admit(claim.sender, sender, submit, terms, out)
            task.phase = Phase.HELD  # until it runs, a few lines below: it never was in a lane
            task.strikes = claim.strikes
        self._adopt(task, (claim.number, worker.instance))

    def _adopt(self, task: TaskRecord, attempt: Attempt) -> None:
        """A claimed attempt is live if none is, else recorded."""
        if attempt not in task.attempts:
            task.attempts = (*task.attempts[1 - RECORDED_LIMIT :], attempt)
        if task.live is None and task.phase is not Phase.ENDING:
            phase, task.phase = task.phase, Phase.RUNNING
            task.live = attempt
            if phase in _WAITING:
                self.schedule.withdraw(task)

    def _enter(self, command: c.EnterWorker, out: list[AnyDecision]) -> None:
        worker = self.state.workers[command.worker]
        unclaimed = [key for key, claimed in worker.slots.items() if not claimed]
        worker.state = after(worker.state, WorkerInput.ENTERED)
        if worker.state in ASSIGNABLE:
            if worker.slots:
                worker.state = after(worker.state, WorkerInput.ASSIGNED)
            self.schedule.enlist(worker)
        for key in unclaimed:  # their Assign never arrived
            self._give_back(worker, key, out)
            self._free(worker, key, out)
        if worker.state in ASSIGNABLE:
            self._feed(worker, out)

    def _drain(self, command: c.DrainWorker, out: list[AnyDecision]) -> None:
        worker = self.state.workers[command.worker]
        if worker.state in ASSIGNABLE:
            self.schedule.dismiss(worker)
        worker.state = after(worker.state, WorkerInput.DRAINED)

    def _lose(self, command: c.LoseWorker, out: list[AnyDecision]) -> None:
        worker = self.state.workers.pop(command.worker, None)
        if worker is None:
            return
        if worker.state in ASSIGNABLE:
            self.schedule.dismiss(worker)
        worker.state = after(worker.state, WorkerInput.LOST)
        for sender, counter, number in sorted(worker.slots):
            task = self.task(sender, counter)
            if task is not None and task.live == (number, worker.instance):
                self._end_attempt(task, command.loss.value, out)


def _verdict(task: TaskRecord, number: int, worker: Instance, status: Status, reason: str) -> Outcome:
    return Outcome(task.sender, task.submit.counter, number, worker, status, 0, reason.encode(), "text")

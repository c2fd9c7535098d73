"""Any history of a task queue, against what is promised (RELIABILITY.md, S1-S6, S9, S10, S13)."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spreadq_core import commands as c
from spreadq_core import messages as m
from spreadq_core.lifecycle import WorkerState
from spreadq_core.messages import About, Outcome, Status, Submit
from spreadq_core.policy import Policy
from spreadq_core.records import Phase, place_of
from spreadq_core.task_queue import TaskQueue
from spreadq_core.terms import Terms
from spreadq_core.terms import encode as encode_terms
from tests.core.invariants import WAITING, check_queue

POLICY = Policy(queue_limit=12, sender_limit=8, outcome_bytes_limit=1_500, open_limit=6)
SENDERS = [201, 202]
ABOUT = About("w", "h", 1)


class History(RuleBasedStateMachine):
    """Honest workers and senders, who may be lost, late or repeat themselves at any time."""

    def __init__(self):
        super().__init__()
        self.queue = TaskQueue(POLICY)
        self.replica = TaskQueue(POLICY)
        self.last = dict.fromkeys(SENDERS, 0)
        self.submits = {}
        self.closed = set()
        self.rejected = set()
        self.forgotten = set()
        self.settled = {}
        self.numbers = {}
        self.held = {}  # by worker: attempts whose job is not over, each with the task
        self.known_workers = set()
        self.cancelled = set()
        self.verdicts = []
        self.produced = {}

    # --- every command goes through here ---

    def apply(self, command):
        before = self.queue.state.accepted
        decisions = self.queue.apply(command)
        journaled = msgspec.msgpack.decode(msgspec.msgpack.encode(command), type=c.AnyCommand)
        self.replica.apply(journaled)
        for decision in decisions:
            if isinstance(decision, c.Assigned):
                self.assigned(decision, before)
            elif isinstance(decision, c.Settled):
                self.settle(decision)
            elif isinstance(decision, c.Judged):
                self.verdicts.append(decision.verdict)
            elif isinstance(decision, c.Say) and isinstance(decision.message, m.Cancel):
                cancel = decision.message
                key = (cancel.sender, cancel.counter, cancel.number)
                if key in self.held.get(decision.to, {}):
                    self.cancelled.add((decision.to, key))
            elif isinstance(decision, c.Say) and isinstance(decision.message, m.Rejected):
                self.rejected.add((decision.to, decision.message.counter))
        return decisions

    def assigned(self, decision, before):
        task, key = decision.task, (decision.task.sender, decision.task.submit.counter)
        assert key not in self.settled, "S2"
        assert decision.number == self.numbers.get(key, 0) + 1, "S4"
        self.numbers[key] = decision.number
        worker = self.queue.state.workers[decision.worker]
        assert worker.functions is None or task.terms.function in worker.functions
        self.held.setdefault(decision.worker, {})[(*key, decision.number)] = task.submit
        assert len(worker.slots) <= worker.capacity, "S9"
        place = place_of(task.rank)
        for better in self.tasks():
            if better.phase in WAITING and better.rank < task.rank:
                served = worker.functions is None or better.terms.function in worker.functions
                assert not served or place_of(better.rank) > max(before, place), f"S6: {better}"

    def settle(self, decision):
        key = (decision.task.sender, decision.task.submit.counter)
        assert key not in self.settled, "S2: one outcome"
        self.settled[key] = decision.outcome
        if decision.outcome is not None and decision.outcome.status is Status.DONE:
            outcome = decision.outcome
            assert (outcome.number, outcome.worker) in self.produced[key], "S8"

    def tasks(self):
        return [task for sender in self.queue.state.senders.values() for task in sender.tasks.values()]

    def choose(self, data, choices):
        return data.draw(st.sampled_from(sorted(choices)))

    # --- senders ---

    @rule(
        sender=st.sampled_from(SENDERS),
        count=st.integers(1, 4),
        terms=st.builds(
            Terms,
            function=st.sampled_from("fg"),
            codec=st.just("raw"),
            priority=st.sampled_from([0, 9]),
            max_attempts=st.integers(1, 3),
            run_limit=st.just(10**9),
            expiry=st.just(10**9),
            reply=st.booleans(),
        ),
        hold=st.booleans(),
        again=st.booleans(),
        skip=st.sampled_from([0, 0, 0, 2]),
    )
    def submit(self, sender, count, terms, hold, again, skip):
        self.last[sender] += skip
        submits = []
        for _ in range(count):
            self.last[sender] += 1
            submit = Submit(self.last[sender], encode_terms(terms), b"p", b"", again)
            self.submits[sender, submit.counter] = msgspec.structs.replace(submit)
            submits.append(submit)
        self.apply(c.Said(sender, submits, hold))

    @precondition(lambda self: self.submits)
    @rule(data=st.data(), hold=st.booleans())
    def submit_again(self, data, hold):
        key = self.choose(data, self.submits)
        if key in self.closed:
            return
        record = self.queue.state.senders.get(key[0])
        known = record is not None and key[1] in record.known
        submit = msgspec.structs.replace(self.submits[key], again=True)
        decisions = self.apply(c.Said(key[0], [submit], hold))
        if known and record.tasks.get(key[1]) is None and key in self.settled and self.wants_reply(key):
            assert [type(d) for d in decisions] == [c.AskedAgain], "an open call is always answered"

    def wants_reply(self, key):
        return msgspec.msgpack.decode(self.submits[key].terms, type=Terms).reply

    @precondition(lambda self: self.submits)
    @rule(data=st.data(), width=st.integers(0, 3))
    def close(self, data, width):
        sender, first = self.choose(data, self.submits)
        last = min(first + width, self.last[sender])
        self.closed |= {(sender, counter) for counter in range(first, last + 1)}
        self.apply(c.Said(sender, [m.Closed(((first, last),))]))

    @rule(sender=st.sampled_from(SENDERS))
    def forget(self, sender):
        """It is away; when it comes back it says again what is open."""
        self.apply(c.Forgotten(sender))
        if sender not in self.queue.state.senders:
            for key in [key for key in self.submits if key[0] == sender]:
                self.closed.add(key)
            self.forgotten.add(sender)

    # --- workers ---

    @rule(
        number=st.integers(101, 103),
        functions=st.sampled_from([("f",), ("f", "g"), None]),
        capacity=st.integers(1, 3),
        data=st.data(),
    )
    def hello(self, number, functions, capacity, data):
        """A new worker, or an old one's new link; it claims all that it holds and got."""
        held = self.held.setdefault(number, {})
        got = [key for key in held if data.draw(st.integers(0, 4))]
        capacity = max(capacity, len(got))
        self.apply(c.Said(number, [m.WorkerHello(ABOUT, capacity, functions)]))
        claims = [m.Claim(key[0], key[2], 0, msgspec.structs.replace(held[key])) for key in got]
        for key in set(held) - set(got):
            del held[key]
        if claims:
            self.apply(c.Said(number, claims))
            for claim in claims:
                key = (claim.sender, claim.task.counter)
                self.numbers[key] = max(claim.number, self.numbers.get(key, 0))
                if self.queue.task(*key) is not None:
                    self.settled.pop(key, None)  # its sender was forgotten, so it runs anew
        if data.draw(st.booleans()):
            self.apply(c.Said(number, [m.Ready()]))
            self.apply(c.Entered(number))

    def enterable(self):
        workers = self.queue.state.workers.values()
        return [w.instance for w in workers if w.state is WorkerState.GREETED]

    @precondition(enterable)
    @rule(data=st.data())
    def ready(self, data):
        number = self.choose(data, self.enterable())
        self.apply(c.Said(number, [m.Ready()]))
        self.apply(c.Entered(number))

    @precondition(lambda self: self.queue.state.workers)
    @rule(data=st.data())
    def drain(self, data):
        self.apply(c.Said(self.choose(data, self.queue.state.workers), [m.Draining()]))

    @precondition(lambda self: self.queue.state.workers)
    @rule(data=st.data(), loss=st.sampled_from(c.Loss))
    def lose(self, data, loss):
        worker = self.queue.state.workers[self.choose(data, self.queue.state.workers)]
        unheard = [key for key in worker.slots if data.draw(st.booleans())]
        self.apply(c.Lost(worker.instance, loss, unheard))

    def jobs(self):
        return [(worker, key) for worker, held in self.held.items() for key in held]

    @precondition(jobs)
    @rule(
        data=st.data(),
        status=st.sampled_from([Status.DONE, Status.DONE, Status.FAILED]),
        size=st.sampled_from([0, 300]),
    )
    def end(self, data, status, size):
        """A job ends, perhaps at a worker that is lost meanwhile; its outcome may come twice."""
        worker, key = self.choose(data, self.jobs())
        del self.held[worker][key]
        if status is Status.DONE:
            self.produced.setdefault(key[:2], set()).add((key[2], worker))
        for _ in range(data.draw(st.integers(1, 2))):
            self.apply(c.Said(worker, [Outcome(*key, worker, status, 0, b"v" * size)]))

    @precondition(lambda self: self.cancelled)
    @rule(data=st.data(), kind=st.sampled_from([m.JobOver, m.HandBack]))
    def stop_cancelled(self, data, kind):
        worker, key = self.choose(data, self.cancelled)
        self.cancelled.remove((worker, key))
        if self.held[worker].pop(key, None):
            self.apply(c.Said(worker, [kind(*key)]))

    @precondition(jobs)
    @rule(data=st.data(), kind=st.sampled_from([m.JobOver, m.HandBack]), all_=st.booleans())
    def stop_unasked(self, data, kind, all_):
        worker, key = self.choose(data, self.jobs())
        keys = list(self.held[worker]) if all_ else [key, key]
        self.held[worker] = {k: v for k, v in self.held[worker].items() if k not in keys}
        self.apply(c.Said(worker, [kind(*k) for k in keys]))

    @precondition(jobs)
    @rule(data=st.data(), index=st.integers(0, 2))
    def respond(self, data, index):
        worker, key = self.choose(data, self.jobs())
        self.apply(c.Said(worker, [m.Response(*key, worker, index, b"r", "raw")]))

    # --- time ---

    def live(self):
        return [(*task.live, task.sender, task.submit.counter) for task in self.tasks() if task.live]

    @precondition(live)
    @rule(data=st.data())
    def overrun(self, data):
        number, worker, sender, counter = self.choose(data, self.live())
        self.apply(c.Overran(worker, [(sender, counter, number)]))

    @precondition(tasks)
    @rule(data=st.data())
    def expire(self, data):
        key = self.choose(data, [(task.sender, task.submit.counter) for task in self.tasks()])
        self.apply(c.Expired([key, key]))

    @precondition(lambda self: self.verdicts)
    @rule(data=st.data(), keep=st.booleans())
    def decide(self, data, keep):
        """A verdict comes back, perhaps more than once."""
        index = data.draw(st.integers(0, len(self.verdicts) - 1))
        verdict = self.verdicts[index] if keep else self.verdicts.pop(index)
        self.apply(c.Decided(verdict))

    @rule()
    def restart(self):
        """A new manager with an image of the old one's queue."""
        image = self.queue.snapshot()
        self.queue, self.replica = TaskQueue.restore(POLICY, image), TaskQueue.restore(POLICY, image)
        self.apply(c.Restarted())
        self.verdicts = list(self.queue.state.verdicts.values())

    @rule()
    def release(self):
        self.apply(c.Released())
        assert not any(task.phase is Phase.HELD for task in self.tasks())

    @precondition(tasks)
    @rule(data=st.data())
    def release_one(self, data):
        key = self.choose(data, [(task.sender, task.submit.counter) for task in self.tasks()])
        self.apply(c.Released([key, (key[0], 10**6)]))
        task = self.queue.task(*key)
        assert task is None or task.phase is not Phase.HELD

    @rule()
    def swap(self):
        """The replica goes on, restored from its own snapshot."""
        self.queue, self.replica = self.replica, TaskQueue.restore(POLICY, self.queue.snapshot())

    # --- what must hold ---

    @invariant()
    def lawful(self):
        check_queue(self.queue)

    @invariant()
    def replicas_agree(self):
        assert self.queue.digest() == self.replica.digest(), "S10"

    @invariant()
    def nothing_is_lost(self):
        """S1 and S13: whatever was submitted is here, or has its outcome, or was rejected or closed."""
        here = {(task.sender, task.submit.counter) for task in self.tasks()}
        for key in self.submits:
            assert key in here or key in self.settled or key in self.rejected or key in self.closed
        for (sender, counter), outcome in self.settled.items():
            key = (sender, counter)
            if outcome is not None and key not in self.closed | here and self.wants_reply(key):
                assert counter in self.queue.state.senders[sender].outcomes

    @invariant()
    def limits_are_kept(self):
        state = self.queue.state
        claimed = 3 * 3  # claims are not rejected
        assert state.tasks <= POLICY.queue_limit + claimed
        assert all(len(sender.rejected) <= POLICY.open_limit for sender in state.senders.values())


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)

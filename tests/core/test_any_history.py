"""Any history of a whole world, then healing: what was promised is kept and nothing is left over."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from spreadq_core.effects import Note
from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.manager import Manager
from spreadq_core.messages import Status
from spreadq_core.notes import NoteName
from spreadq_core.policy import Policy
from spreadq_core.sender import Sender
from spreadq_core.worker import Worker
from tests.core.invariants import check, check_quiet
from tests.core.world import World, instance_of

NEVER_RUN = (Status.REJECTED, Status.NO_MANAGER, Status.UNSERVED, Status.EXPIRED)


class AnyHistory(RuleBasedStateMachine):
    """Senders and workers and managers to whom anything happens."""

    def __init__(self):
        super().__init__()
        self.world = World(Policy(queue_limit=60, sender_limit=40))
        self.values = 0
        self.failures = {}
        self.everybody = []
        self.abandoned = set()
        self.one_way = set()
        self.excused = set()
        self.image = None  # of the last manager that stopped, with the manager
        self.memory = None  # the manager that took over last

    # --- who is there ---

    def nodes(self, kind=object, *, frozen=None):
        return [
            node
            for node in self.world.nodes
            if isinstance(node.role, kind) and (frozen is None or node.frozen == frozen)
        ]

    def choose(self, data, nodes):
        return data.draw(st.sampled_from(sorted(nodes, key=lambda node: node.name)), "who")

    def added(self, node):
        self.everybody.append(node)
        return node

    @initialize()
    def begin(self):
        self.start_manager()
        self.added(self.world.worker(("f", "g"), 2))
        self.added(self.world.sender())
        self.world.advance(SECOND)

    @precondition(lambda self: len(self.nodes(Worker)) < 4)
    @rule(functions=st.sampled_from([("f",), ("g",), None]), capacity=st.integers(1, 3))
    def add_worker(self, functions, capacity):
        self.added(self.world.worker(functions, capacity))

    @precondition(lambda self: len(self.nodes(Sender)) < 3)
    @rule()
    def add_sender(self):
        self.added(self.world.sender())

    @precondition(lambda self: len(self.nodes(Manager)) < 3)
    @rule()
    def start_manager(self):
        image, author = self.image or (None, None)
        node = self.added(self.world.manager(image=image, connect=False))
        node.image, self.image = self.image, None

        def note(effect):
            node.note(effect)
            if effect.name is NoteName.TOOK_OVER:
                if self.memory not in (node, author):
                    self.excuse()
                self.memory, node.image = node, None

        node.performers = {**node.performers, Note: note}
        self.world.connect(node)

    def excuse(self):
        """What was accepted so far may be forgotten: only calls come again."""
        self.excused |= self.one_way

    # --- work ---

    @precondition(lambda self: self.nodes(Sender, frozen=False))
    @rule(
        data=st.data(),
        count=st.integers(1, 4),
        function=st.sampled_from("fg"),
        reply=st.booleans(),
        confirm=st.booleans(),
        priority=st.integers(0, 1),
        expiry=st.sampled_from([0, 0, 3 * SECOND]),
        run_limit=st.sampled_from([0, 0, 2 * SECOND]),
        max_attempts=st.integers(1, 3),
    )
    def submit(self, data, count, function, reply, **options):
        sender = self.choose(data, self.nodes(Sender, frozen=False))
        for _ in range(count):
            request = sender.submit(function, reply=reply, **options)
            if not reply and not options["expiry"]:
                self.one_way.add((instance_of(sender), request))

    @precondition(lambda self: self.open_requests())
    @rule(data=st.data())
    def abandon(self, data):
        name, request = data.draw(st.sampled_from(self.open_requests()))
        (sender,) = [node for node in self.nodes(Sender) if node.name == name]
        if not sender.frozen:
            sender.abandon(request)
            self.abandoned.add((name, request))
            self.one_way.discard((instance_of(sender), request))

    def open_requests(self):
        return [(node.name, request) for node in self.nodes(Sender) for request in node.role.state.open]

    def jobs(self):
        return [(node.name, key) for node in self.nodes(Worker, frozen=False) for key in node.jobs]

    @precondition(jobs)
    @rule(data=st.data(), status=st.sampled_from([Status.DONE, Status.DONE, Status.DONE, Status.FAILED]))
    def end_job(self, data, status):
        name, key = data.draw(st.sampled_from(self.jobs()))
        (worker,) = [node for node in self.nodes(Worker) if node.name == name]
        self.end(worker, key, status)

    def end(self, worker, key, status):
        if key in {(c.sender, c.counter, c.number) for c in worker.cancelled} and self.values % 2:
            status = Status.CANCELLED
        self.values += 1
        value = b"%d" % self.values
        if status is Status.FAILED:
            self.failures.setdefault(key[:2], []).append(value)
        worker.end(value, key=key, status=status)

    @precondition(jobs)
    @rule(data=st.data())
    def respond(self, data):
        name, key = data.draw(st.sampled_from(self.jobs()))
        (worker,) = [node for node in self.nodes(Worker) if node.name == name]
        worker.respond(b"r", key)

    # --- time and order ---

    @rule(steps=st.integers(1, 30))
    def deliver_some(self, steps):
        for _ in range(min(steps, len(self.world.queue))):
            self.world.step()

    @rule(
        duration=st.sampled_from([MILLISECOND, 60 * MILLISECOND, 300 * MILLISECOND, 3 * SECOND, 12 * SECOND])
    )
    def advance(self, duration):
        self.world.advance(duration)

    # --- what goes wrong ---

    @precondition(lambda self: self.nodes(frozen=False))
    @rule(data=st.data())
    def freeze(self, data):
        self.world.freeze(self.choose(data, self.nodes(frozen=False)))

    @precondition(lambda self: self.nodes(frozen=True))
    @rule(data=st.data())
    def thaw(self, data):
        self.world.thaw(self.choose(data, self.nodes(frozen=True)))

    @precondition(nodes)
    @rule(data=st.data(), how=st.sampled_from(["cut", "reconnect", "swap"]))
    def cut(self, data, how):
        node = self.choose(data, self.nodes())
        if how == "cut" or not node.session or node.frozen:
            self.world.disconnect(node)
        elif how == "swap" and not isinstance(node.role, Manager):
            self.world.swap(node)
        else:
            self.world.reconnect(node)

    def offline(self):
        return [node for node in self.nodes(frozen=False) if not node.session]

    @precondition(offline)
    @rule(data=st.data())
    def connect(self, data):
        self.world.connect(self.choose(data, self.offline()))

    @precondition(lambda self: self.nodes(Worker))
    @rule(data=st.data())
    def kill_worker(self, data):
        self.world.kill(self.choose(data, self.nodes(Worker)))

    @precondition(lambda self: len(self.nodes(Sender)) > 1)
    @rule(data=st.data())
    def kill_sender(self, data):
        self.bury(self.choose(data, self.nodes(Sender)))

    def bury(self, sender):
        self.one_way -= {key for key in self.one_way if key[0] == instance_of(sender)}
        self.world.kill(sender)

    @precondition(lambda self: self.nodes(Manager))
    @rule(data=st.data())
    def kill_manager(self, data):
        node = self.choose(data, self.nodes(Manager))
        self.manager_ends(node)
        self.world.kill(node)

    @precondition(lambda self: self.nodes(Manager, frozen=False))
    @rule(data=st.data())
    def stop_manager(self, data):
        node = self.choose(data, self.nodes(Manager, frozen=False))
        node.stop()
        if node.role.primacy.state.held:
            self.image = (node.role.image(), node)

    @precondition(lambda self: self.nodes(Worker, frozen=False))
    @rule(data=st.data())
    def stop_worker(self, data):
        self.choose(data, self.nodes(Worker, frozen=False)).stop()

    @rule(seed=st.integers(0, 100), loss=st.sampled_from([0.0, 0.1, 0.5]))
    def disturb(self, seed, loss):
        """Frames are lost, late and repeated from now on; 0: no more."""
        rng = random.Random(seed)

        def fate(receiver, event):
            chance = rng.random()
            if chance < loss:
                return ()
            return (0, 7 * MILLISECOND) if chance < 1.5 * loss else (0,)

        self.world.fate = fate

    @precondition(nodes)
    @rule(data=st.data())
    def split(self, data):
        self.world.split(self.choose(data, self.nodes()))

    @rule()
    def merge(self):
        self.world.merge()

    # --- what must hold ---

    @invariant()
    def roles_are_lawful(self):
        for node in list(self.world.nodes):
            if node.exited is not None:
                if isinstance(node.role, Manager) and node.exited.status:
                    self.manager_ends(node)
                if node in self.world.nodes:
                    self.world.kill(node)
            elif not node.frozen:
                check(node.role)

    def manager_ends(self, node):
        """It is killed or replaced, or it was one too many."""
        if node.role.primacy.state.held:
            self.excuse()
        elif self.image is None:  # the file that it was to begin with is still there
            self.image = node.image

    @invariant()
    def outcomes_are_true(self):
        """S7 and S8; a second `Resolve` of a request fails at once."""
        for node in self.everybody:
            if isinstance(node.role, Sender):
                for request, outcome in node.resolved.items():
                    assert (node.name, request) not in self.abandoned
                    key = (instance_of(node), request)
                    assert (outcome.sender, outcome.counter) == key
                    if outcome.status is Status.DONE:
                        assert outcome.payload in self.world.produced[key]
                    elif outcome.status is Status.FAILED:
                        assert outcome.payload in self.failures[key]
                    else:
                        assert outcome.status is Status.BURIED or outcome.status in NEVER_RUN

    def teardown(self):
        self.heal()
        for _ in range(60):
            self.world.advance(SECOND)
            for worker in self.nodes(Worker):
                for key in list(worker.jobs):
                    self.end(worker, key, Status.DONE)
            self.roles_are_lawful()
        self.world.advance(130 * SECOND)  # departed senders are forgotten
        self.outcomes_are_true()
        for sender in self.nodes(Sender):
            assert sender.role.state.open == {}, "L2: every open request is resolved"
            self.check_one_way(sender)
        check_quiet(self.world)

    def heal(self):
        world = self.world
        world.fate = lambda receiver, event: (0,)
        world.merge()
        for node in self.nodes(frozen=True):
            world.thaw(node)
        for node in self.nodes():
            if not node.session:
                world.connect(node)
        self.roles_are_lawful()
        world.advance(5 * SECOND)
        self.roles_are_lawful()
        if not self.nodes(Manager):
            self.start_manager()
        self.added(world.worker(None, 10))

    def check_one_way(self, sender):
        done = {(job.sender, job.counter) for node in self.everybody for job in node.started}
        for node in self.everybody:  # or the only worker that got it was lost before it could begin
            done |= {(note["sender"], note["counter"]) for note in node.noted(NoteName.JUDGED)}
        for request in sender.confirmed:
            key = (instance_of(sender), request)
            assert key not in self.one_way - self.excused or key in done, "S1: accepted and lost"


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)

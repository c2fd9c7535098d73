"""Who runs what next, against lists that are searched from end to end."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spreadq_core import schedule as module
from spreadq_core.messages import Submit
from spreadq_core.records import Phase, TaskRecord, WorkerRecord, place_of, rank_of
from spreadq_core.schedule import SERVING_LIMIT, STALE_LIMIT, Schedule
from spreadq_core.terms import Terms

FUNCTIONS = ["f", "g", "h"]
CREWS = [("f",), ("f", "g"), ("g", "h"), ("h",), None]


def task_of(place, function="f", priority=0, phase=Phase.QUEUED):
    terms = Terms(function, "", priority, 3, 0, 0, True)
    return TaskRecord(1, rank_of(priority, place), Submit(place, b"", b""), terms, phase)


def serves(worker, task):
    return worker.functions is None or task.terms.function in worker.functions


class AgainstLists(RuleBasedStateMachine):
    """Any history of tasks and workers."""

    def __init__(self):
        super().__init__()
        self.schedule = Schedule()
        self.ready = []
        self.taken = []
        self.workers = []
        self.idle = []
        self.places = self.turns = self.instances = 0

    # --- workers ---

    @rule(functions=st.sampled_from(CREWS))
    def enlist(self, functions):
        self.instances += 1
        worker = WorkerRecord(self.instances, 1, functions)
        self.schedule.enlist(worker)
        self.workers.append(worker)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def dismiss(self, data):
        worker = data.draw(st.sampled_from(self.workers))
        self.schedule.dismiss(worker)
        self.workers.remove(worker)
        if worker in self.idle:
            self.idle.remove(worker)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def rest(self, data):
        worker = data.draw(st.sampled_from(self.workers))
        self.turns += 1
        worker.idle_since = self.turns
        self.schedule.rest(worker)
        if worker in self.idle:
            self.idle.remove(worker)
        self.idle.append(worker)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def fill(self, data):
        worker = data.draw(st.sampled_from(self.workers))
        self.schedule.fill(worker)
        if worker in self.idle:
            self.idle.remove(worker)

    # --- tasks ---

    @rule(function=st.sampled_from(FUNCTIONS), priority=st.sampled_from([0, 5, 9]))
    def enqueue(self, function, priority):
        self.places += 1
        task = task_of(self.places, function, priority)
        self.schedule.enqueue(task)
        self.ready.append(task)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def put_back(self, data):
        task = data.draw(st.sampled_from(self.taken))
        self.taken.remove(task)
        task.phase = Phase.RETURNED
        self.schedule.enqueue(task)
        self.ready.append(task)

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def withdraw(self, data):
        task = data.draw(st.sampled_from(self.ready))
        self.ready.remove(task)
        self.taken.append(task)
        task.phase = Phase.RUNNING
        self.schedule.withdraw(task)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def take(self, data):
        worker = data.draw(st.sampled_from(self.workers))
        served = [task for task in self.ready if serves(worker, task)]
        expected = min(served, key=lambda task: task.rank, default=None)
        task = self.schedule.next_for(worker)
        assert task is expected, "S6"
        if task is not None:
            self.ready.remove(task)
            self.taken.append(task)
            task.phase = Phase.RUNNING

    # --- what must hold ---

    @invariant()
    def waiting(self):
        waiting = {}
        for task in self.ready:
            waiting[task.terms.function] = waiting.get(task.terms.function, 0) + 1
        assert self.schedule.waiting() == waiting
        assert self.schedule.oldest_place() == min((place_of(task.rank) for task in self.ready), default=None)

    @invariant()
    def longest_idle(self):
        for function in FUNCTIONS:
            task = task_of(0, function)
            able = [worker for worker in self.idle if serves(worker, task)]
            assert self.schedule.longest_idle(function) is (able[0] if able else None)
            assert self.schedule.is_served(function) == any(serves(w, task) for w in self.workers)
        for worker in self.workers:
            assert self.schedule.is_idle(worker) == (worker in self.idle)


TestAgainstLists = AgainstLists.TestCase
TestAgainstLists.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)


def test_tasks_that_are_withdrawn_do_not_pile_up():
    schedule = Schedule()
    first = task_of(1)
    schedule.enqueue(first)
    for place in range(2, 5_000):
        task = task_of(place)
        schedule.enqueue(task)
        task.phase = Phase.OVER
        schedule.withdraw(task)
        (tasks,) = schedule._lanes["f"]._levels.values()
        assert len(tasks) <= STALE_LIMIT + 2
    assert schedule.waiting() == {"f": 1}


def test_functions_that_peers_make_up_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(module, "SERVING_LIMIT", 10)
    schedule = Schedule()
    for number in range(100):
        assert not schedule.is_served(f"f{number}")
        assert len(schedule._serving) <= 10
    assert SERVING_LIMIT > 10


def test_announcements_of_functions_that_are_done_do_not_pile_up():
    schedule = Schedule()
    worker = WorkerRecord(1, 1, None)
    schedule.enlist(worker)
    for place in range(1, 1_000):
        schedule.enqueue(task_of(place, f"f{place}"))
        assert schedule.next_for(worker) is not None
    assert schedule.next_for(worker) is None
    crew = schedule._crews[None]
    assert len(crew._best) <= 1
    assert len(crew._heads) <= 1
    assert schedule._lanes == {}

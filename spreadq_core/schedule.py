"""Who runs what next: ready tasks in lanes by function, workers in crews by the functions they serve.

All of it follows from the tasks and workers themselves. Nothing here grows with the number of workers
or of queued tasks; only with the number of *different* sets of functions that workers declare.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import heappop, heappush, heapreplace
from itertools import islice

from spreadq_core.records import PLACE_BITS, Phase, TaskRecord, WorkerRecord, place_of

Functions = tuple[str, ...] | None

STALE_LIMIT = 64
"""A lane is swept when it holds this many withdrawn tasks more than ready ones."""

SERVING_LIMIT = 4096
"""Functions for which the serving crews are remembered; peers can name any function."""

QUEUED = Phase.QUEUED


class Lane:
    """The ready tasks of one function, in order of rank: priority, then acceptance."""

    __slots__ = ("_levels", "_mask", "_order", "_returned", "_stale", "function", "head", "ready")

    def __init__(self, function: str) -> None:
        self.function = function
        self.ready = 0
        self.head: TaskRecord | None = None
        """The first ready task."""
        self._levels: dict[int, deque[TaskRecord]] = {}
        self._mask = 0  # bit i: the deque of tasks i below the highest priority may not be empty
        self._stale = 0  # tasks in the deques that were withdrawn
        self._returned: dict[int, TaskRecord] = {}
        self._order: list[int] = []  # heap of ranks; one counts only if it is in `_returned`

    def put(self, task: TaskRecord) -> None:
        """Queue a task: at the end of its priority if it is QUEUED, in its old place if RETURNED."""
        rank = task.rank
        if task.phase is QUEUED:
            level = rank >> PLACE_BITS
            if level not in self._levels:
                self._levels[level] = deque()
            self._levels[level].append(task)
            self._mask |= 1 << level
        else:
            self._returned[rank] = task
            heappush(self._order, rank)
        self.ready += 1
        if self.head is None or rank < self.head.rank:
            self.head = task

    def take(self) -> TaskRecord:
        """Take out the head, of which there must be one."""
        task = self.head
        assert task is not None
        if not self._returned or self._returned.pop(task.rank, None) is None:
            first = self._levels[task.rank >> PLACE_BITS].popleft()
            assert first is task  # what was withdrawn before it went when the head was found
        self.ready -= 1
        self.head = self._find_head() if self.ready else None
        return task

    def withdraw(self, task: TaskRecord) -> None:
        """A task that is queued here has just left its phase."""
        self.ready -= 1
        if self._returned.pop(task.rank, None) is None:  # it stays in its deque until its turn comes
            self._stale += 1
            if self._stale > self.ready + STALE_LIMIT:
                self._sweep()
        if task is self.head:
            self.head = self._find_head() if self.ready else None

    def places(self) -> list[int]:
        """Acceptance places of the oldest tasks: the first of each priority, and all that were returned."""
        queued = ((task.rank for task in tasks if task.phase is QUEUED) for tasks in self._levels.values())
        first = [rank for ranks in queued for rank in islice(ranks, 1)]
        return [place_of(rank) for rank in [*self._returned, *first]]

    def _find_head(self) -> TaskRecord | None:
        first = self._first_queued()
        returned, order = self._returned, self._order
        while order and order[0] not in returned:
            heappop(order)
        return returned[order[0]] if order and (first is None or order[0] < first.rank) else first

    def _first_queued(self) -> TaskRecord | None:
        while self._mask:
            tasks = self._levels[(self._mask & -self._mask).bit_length() - 1]
            while tasks:
                if tasks[0].phase is QUEUED:
                    return tasks[0]
                tasks.popleft()
                self._stale -= 1
            self._mask &= self._mask - 1
        return None

    def _sweep(self) -> None:
        for level, tasks in self._levels.items():
            self._levels[level] = deque(task for task in tasks if task.phase is QUEUED)
        self._stale = 0


class Crew:
    """The workers that declare the same functions, and where their next task may be."""

    __slots__ = ("_best", "_heads", "functions", "idle", "workers")

    def __init__(self, functions: Functions) -> None:
        self.functions = frozenset(functions) if functions is not None else None
        self.workers = 0
        self.idle: OrderedDict[int, WorkerRecord] = OrderedDict()
        """Those with capacity left, longest without work first."""
        self._best: dict[str, int] = {}  # the lowest rank that was announced for a function
        self._heads: list[tuple[int, str]] = []  # heap of (rank, function); counts only if in `_best`

    def serves(self, function: str) -> bool:
        """Whether its workers run `function`."""
        return self.functions is None or function in self.functions

    def announce(self, function: str, rank: int) -> None:
        """The lane of `function` has this rank at its head, unless a lower one is announced."""
        best = self._best.get(function)
        if best is None or rank < best:
            self._best[function] = rank
            heappush(self._heads, (rank, function))

    def take(self, lanes: dict[str, Lane]) -> TaskRecord | None:
        """Take the first ready task of all lanes that the crew serves."""
        heads, best = self._heads, self._best
        while heads:
            rank, function = heads[0]
            lane = lanes.get(function)
            head = lane.head if lane is not None else None
            if best.get(function) != rank or lane is None or head is None:
                heappop(heads)
                if best.get(function) == rank:
                    del best[function]
                continue
            task = lane.take() if head.rank == rank else None  # None: another crew was here
            following = lane.head
            if following is not None:
                best[function] = following.rank
                heapreplace(heads, (following.rank, function))
            else:
                heappop(heads)
                del best[function], lanes[function]
            if task is not None:
                return task
        return None


class Schedule:
    """Pairs ready tasks with workers that have capacity left."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._crews: dict[Functions, Crew] = {}
        self._crew_of: dict[int, Crew] = {}
        self._serving: dict[str, list[Crew]] = {}

    def enlist(self, worker: WorkerRecord) -> None:
        """A worker may be given tasks; it is not idle yet."""
        crew = self._crews.get(worker.functions)
        if crew is None:
            crew = self._crews[worker.functions] = Crew(worker.functions)
            self._serving.clear()
            for lane in self._lanes.values():
                if lane.head is not None and crew.serves(lane.function):
                    crew.announce(lane.function, lane.head.rank)
        crew.workers += 1
        self._crew_of[worker.instance] = crew

    def dismiss(self, worker: WorkerRecord) -> None:
        """A worker is given no more tasks."""
        crew = self._crew_of.pop(worker.instance)
        crew.idle.pop(worker.instance, None)
        crew.workers -= 1
        if not crew.workers:
            del self._crews[worker.functions]
            self._serving.clear()

    def rest(self, worker: WorkerRecord) -> None:
        """A worker has capacity left: it is the last among the idle."""
        idle = self._crew_of[worker.instance].idle
        idle[worker.instance] = worker
        idle.move_to_end(worker.instance)

    def fill(self, worker: WorkerRecord) -> None:
        """A worker has no capacity left."""
        self._crew_of[worker.instance].idle.pop(worker.instance, None)

    def is_idle(self, worker: WorkerRecord) -> bool:
        """Whether a worker has its place among the idle."""
        return worker.instance in self._crew_of[worker.instance].idle

    def longest_idle(self, function: str) -> WorkerRecord | None:
        """The worker for a new task of `function`: longest without work first, as in Spread::Queue."""
        best: WorkerRecord | None = None
        for crew in self._serving.get(function) or self._crews_serving(function):
            if crew.idle:
                worker = next(iter(crew.idle.values()))
                if best is None or worker.idle_since < best.idle_since:
                    best = worker
        return best

    def is_served(self, function: str) -> bool:
        """Whether any enlisted worker serves `function`."""
        return bool(self._crews_serving(function))

    def _crews_serving(self, function: str) -> list[Crew]:
        crews = self._serving.get(function)
        if crews is None:
            if len(self._serving) >= SERVING_LIMIT:
                self._serving.clear()
            crews = self._serving[function] = [c for c in self._crews.values() if c.serves(function)]
        return crews

    def enqueue(self, task: TaskRecord) -> None:
        """A task waits for a worker."""
        function = task.terms.function
        lane = self._lanes.get(function)
        if lane is None:
            lane = self._lanes[function] = Lane(function)
        lane.put(task)
        if lane.head is task:
            for crew in self._crews_serving(function):
                crew.announce(function, task.rank)

    def withdraw(self, task: TaskRecord) -> None:
        """A task that waited has just left the phase in which it did."""
        lane = self._lanes[task.terms.function]
        lane.withdraw(task)
        if not lane.ready:
            del self._lanes[lane.function]

    def next_for(self, worker: WorkerRecord) -> TaskRecord | None:
        """Take the first ready task that the worker can run."""
        return self._crew_of[worker.instance].take(self._lanes) if self._lanes else None

    def waiting(self) -> dict[str, int]:
        """How many tasks wait, by function."""
        return {function: lane.ready for function, lane in self._lanes.items()}

    def oldest_place(self) -> int | None:
        """The acceptance place of the ready task that waits longest."""
        return min((place for lane in self._lanes.values() for place in lane.places()), default=None)

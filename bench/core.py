"""The assignment path of the core, fed with the frames that peers send: no socket, no process."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections import deque

from bench.figures import Figure, Goal
from spreadq_core import messages as m
from spreadq_core.codec import KIND, decode, encode
from spreadq_core.effects import Send
from spreadq_core.events import Cause, Connected, Received, ViewChanged
from spreadq_core.ids import QueueGroups
from spreadq_core.manager import Manager
from spreadq_core.messages import About, Assign, Frame, Outcome, SenderHello, Status, Submit, WorkerHello
from spreadq_core.policy import Policy
from spreadq_core.terms import Terms
from spreadq_core.terms import encode as encode_terms

TASKS = 64_000
FRAME = 64
"""Tasks in a frame, where several go at a time."""

REPEATS = 5
QUEUED = 1_000_000
WEIGHED = 200_000
MANAGER, SENDER, FIRST_WORKER = 1, 2, 100


class _Bench:
    """A manager, and all that its peers would say."""

    def __init__(self, workers: int, capacity: int, *, reply: bool) -> None:
        self.now = 10**9
        policy = Policy(queue_limit=10**8, sender_limit=10**8)
        self.manager = Manager("q", MANAGER, About("m", "h", 1), self.now, policy)
        self.groups = QueueGroups.of("q")
        self._terms = encode_terms(Terms("f", "msgpack", 0, 3, 0, 0, reply))
        self._numbers: dict[int, int] = {}
        self.counter = 0
        self.running: deque[tuple[int, int, int]] = deque()
        self._begin(workers, capacity)

    def _begin(self, workers: int, capacity: int) -> None:
        own = "#m#d"
        self.manager.handle(Connected(own), self.now)
        groups = self.groups
        for group in (groups.managers, groups.submit, groups.work, groups.control, groups.senders):
            self.manager.handle(ViewChanged(group, (own,), Cause.JOIN, (own,)), self.now)
        members = tuple(sorted([own, *(f"#w{number}#d" for number in range(workers))]))
        self.manager.handle(ViewChanged(groups.workers, members, Cause.JOIN, members), self.now)
        self.manager.state.hold_at = None
        for number in range(workers):
            hello = WorkerHello(About("w", "h", 1), capacity, ("f",))
            self.handle(self.frame(FIRST_WORKER + number, f"#w{number}#d", groups.work, [hello, m.Ready()]))
        self.handle(self.frame(SENDER, "#s#d", groups.submit, [SenderHello(About("s", "h", 1))]))

    def frame(self, source: int, session: str, group: str, messages: list[m.AnyMessage]) -> Received:
        """What a peer sends; it has received all that was sent to it."""
        number = self._numbers[source] = self._numbers.get(source, 0) + 1
        target = 0 if number == 1 else MANAGER
        receipt = 0 if number == 1 else 10**9
        body = encode(Frame("q", source, target, 1, number, receipt, 0, 100, messages))
        return Received(session, (group, "#s#d"), KIND, body)

    def submits(self, count: int) -> Received:
        """A frame with so many new tasks of 100 bytes."""
        first = self.counter + 1
        self.counter += count
        tasks = [Submit(counter, self._terms, bytes(100)) for counter in range(first, self.counter + 1)]
        return self.frame(SENDER, "#s#d", self.groups.submit, list(tasks))

    def outcomes(self, count: int) -> list[Received]:
        """Frames that end the attempts that run longest, one for each worker concerned."""
        by_worker: dict[int, list[m.AnyMessage]] = {}
        for _ in range(min(count, len(self.running))):
            worker, counter, number = self.running.popleft()
            outcome = Outcome(SENDER, counter, number, worker, Status.DONE)
            by_worker.setdefault(worker, []).append(outcome)
        return [
            self.frame(worker, f"#w{worker - FIRST_WORKER}#d", self.groups.work, messages)
            for worker, messages in by_worker.items()
        ]

    def handle(self, *events: Received) -> float:
        """A turn; how long it took, in seconds."""
        self.now += 10_000
        start = time.perf_counter()
        for event in events:
            self.manager.handle(event, self.now)
        sends = self.manager.flush(self.now)
        _ = self.manager.deadline
        seconds = time.perf_counter() - start
        self._note_assignments(sends)
        return seconds

    def _note_assignments(self, sends: list[Send]) -> None:
        for send in sends:
            frame = decode(send.kind, send.body, "q")
            for message in frame.messages:
                if type(message) is Assign:
                    self.running.append((frame.target, message.task.counter, message.number))


def _cost(workers: int, capacity: int, queued: int, frame: int, *, reply: bool = False) -> float:
    """Microseconds from submit to done, per task, in a steady state."""
    bench = _Bench(workers, capacity, reply=reply)
    while bench.counter < queued:
        bench.handle(bench.submits(1000))
    gc.collect()
    gc.freeze()
    seconds, rounds = 0.0, TASKS // frame
    for _ in range(rounds):
        seconds += bench.handle(bench.submits(frame))
        seconds += bench.handle(*bench.outcomes(frame))
    gc.unfreeze()
    return seconds / (rounds * frame) * 1e6


def hot_path(_: str | None) -> list[Figure]:
    """Submit, assign, done: with codec, links, leases and notes; and how it grows."""
    growth = Goal("<=", 1.4, "ratio")
    absolute = min(_cost(4, 16, 0, FRAME) for _repeat in range(REPEATS))
    # Growth with one task a turn, so that frames are the same whatever the number of workers is.
    few, many, deep = [], [], []
    for _repeat in range(3):
        few.append(_cost(10, 1, 0, 1))
        many.append(_cost(10_000, 1, 0, 1))
        deep.append(_cost(10, 1, QUEUED, 1))
    return [
        Figure("core_submit_assign_done", absolute, "us", goal=Goal("<=", 3.5), note="codec included"),
        Figure("core_10000_workers", min(many), "us", min(few), growth, "floor: 10 workers"),
        Figure("core_1000000_queued", min(deep), "us", min(few), growth, "floor: none queued"),
    ]


def memory(_: str | None) -> list[Figure]:
    """What a queued one-way task of 100 bytes takes."""
    bench = _Bench(0, 1, reply=False)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _frame in range(WEIGHED // 1000):
        bench.handle(bench.submits(1000))
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return [Figure("memory_queued_task", (after - before) / WEIGHED, "bytes", goal=Goal("<=", 400))]

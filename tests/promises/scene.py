"""The programs of one queue, the load on it, and what can be counted afterwards."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import attrs

from spreadq import AsyncSender
from spreadq.programs.cluster import Cluster
from spreadq.status import ask_status
from spreadq_core.policy import DEFAULT, Policy
from tests.brokers import TIMEOUT, Background, wait_until
from tests.promises.jobs import TRACE_VARIABLE

T = TypeVar("T")

ROOT = Path(__file__).parents[2]

JOBS = "tests.promises.jobs:app"
"""What workers serve."""

CALL_TIMEOUT = "40s"
"""Of calls that are to be answered whatever happens."""


@attrs.frozen
class Run:
    """One execution of a job. Times are the system's monotonic ones, in nanoseconds."""

    label: str
    task: str
    pid: int
    start: int
    end: float
    """When it ended, or its process was killed; infinite: it did not end."""
    complete: bool


class Scene(Cluster):
    """Programs of one queue that are killed, stopped and started again; killed all at the end.

    Args:
        queue: the queue's name.
        scratch: an empty directory.
        spread: address of a daemon that runs; None: an embedded one is started.
    """

    def __init__(self, queue: str, scratch: Path, spread: str | None = None) -> None:
        self.trace = scratch / "trace"
        self.trace.touch()
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
        super().__init__(queue, scratch, spread, {TRACE_VARIABLE: str(self.trace), "PYTHONPATH": path})
        self.scratch = scratch
        self.logs: dict[int, Path] = {}
        """Of each process."""
        self._killed_at: dict[int, int] = {}

    def __exit__(self, *_: object) -> None:
        for program in self._programs:
            program.kill()
        for program in self._programs:
            program.wait()

    # --- programs -------------------------------------------------------------------------------

    def start_python(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = self.scratch / f"{len(self.logs)}.log"
        program = super().start_python(*arguments)
        self.logs[program.pid] = log
        return program

    def start_hasty_manager(self, state: Path | None = None, **times: float) -> subprocess.Popen[bytes]:
        """Start a manager with times of its own, in milliseconds, such as `lease=500`."""
        where = str(state or self.state)
        return self.start_python(
            "-m", "tests.promises.manager", self.queue, self.address, where, json.dumps(times)
        )

    def start_workers(self, count: int, *options: str, target: str = JOBS) -> list[subprocess.Popen[bytes]]:
        """Start so many workers, and wait until they can be given tasks."""
        names = [f"worker-{len(self.logs)}-{number}" for number in range(count)]
        workers = [self.start_worker(target, name, *options) for name in names]
        pids = {worker.pid for worker in workers}

        def ready(status: dict[str, Any]) -> bool:
            return pids <= {worker["pid"] for worker in status["workers"] if worker["state"] != "greeted"}

        self.wait_for(ready)
        return workers

    def kill(self, program: subprocess.Popen[bytes]) -> int:
        """`kill -9`; gives the time."""
        at = self._killed_at[program.pid] = time.monotonic_ns()
        program.kill()
        program.wait()
        return at

    def terminate(self, program: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
        """Tell a program to stop, and wait for its exit status."""
        program.send_signal(number)
        return program.wait(TIMEOUT)

    def words(self, program: subprocess.Popen[bytes]) -> str:
        """All that it said so far."""
        return self.logs[program.pid].read_text(errors="replace")

    def wait_for_word(self, word: str, program: subprocess.Popen[bytes]) -> None:
        """Wait until it says something."""
        wait_until(lambda: word in self.words(program), f"{word!r} of {program.args}")

    def log(self, program: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
        """What it said so far."""
        return [json.loads(line) for line in self.words(program).splitlines() if line.startswith("{")]

    def events(self, program: subprocess.Popen[bytes], name: str) -> list[dict[str, Any]]:
        """What it said of one kind."""
        return [line for line in self.log(program) if line["event"] == name]

    # --- the queue ------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What `spreadq status` shows."""
        return ask_status(self.queue, self.address)

    def wait_for(self, condition: Callable[[dict[str, Any]], T]) -> T:
        """Wait until something is true of the status; until then there need be no manager."""

        def ask() -> T | None:
            try:
                return condition(self.status())
            except Exception:
                return None

        return wait_until(ask, f"{condition}; {self.last_words()}")

    def wait_for_manager(self) -> dict[str, Any]:
        """Wait until somebody manages the queue."""
        return self.wait_for(lambda status: status)

    # --- what the jobs wrote down ---------------------------------------------------------------

    def runs(self) -> dict[str, list[Run]]:
        """All executions so far by label, in order of their starts."""
        starts: dict[tuple[str, str, int], list[int]] = defaultdict(list)
        ends: dict[tuple[str, str, int], list[int]] = defaultdict(list)
        for line in self.trace.read_text().splitlines():
            what, label, task, pid, at = line.split(" ")
            if what in ("start", "end"):
                (starts if what == "start" else ends)[label, task, int(pid)].append(int(at))
        found: dict[str, list[Run]] = defaultdict(list)
        for (label, task, pid), times in starts.items():
            for start, end in itertools.zip_longest(times, ends[label, task, pid]):
                over = end if end is not None else self._killed_at.get(pid, math.inf)
                found[label].append(Run(label, task, pid, start, over, end is not None))
        for runs in found.values():
            runs.sort(key=lambda run: run.start)
        return found

    def wait_for_start(self, label: str, count: int = 1) -> Run:
        """Wait until a job has started so many times; the last of these runs."""
        return wait_until(lambda: self.runs().get(label, [])[count - 1 : count], f"{count} × {label}")[0]

    def wait_for_ends(self, labels: list[str]) -> None:
        """Wait until all these jobs have ended."""

        def unended() -> set[str]:
            runs = self.runs()
            return {label for label in labels if not any(run.complete for run in runs.get(label, ()))}

        wait_until(lambda: not unended(), f"some of {len(labels)} tasks never ended")

    def children(self) -> list[int]:
        """Processes that jobs left behind."""
        words = [line.split(" ")[0] for line in self.trace.read_text().splitlines()]
        return [int(word.removeprefix("child-")) for word in words if word.startswith("child-")]

    def overlaps(self) -> list[tuple[Run, Run]]:
        """Runs of tasks that had not ended when the same task started elsewhere."""
        return [
            (one, other)
            for runs in self.runs().values()
            for one, other in itertools.pairwise(runs)
            if other.start < one.end
        ]

    def repeated(self) -> dict[str, int]:
        """Labels that ran more than once, and how often."""
        return {label: len(runs) for label, runs in self.runs().items() if len(runs) > 1}

    @property
    def defects(self) -> list[str]:
        """What programs said that they should never say."""
        texts = {path: path.read_text(errors="replace") for path in self.logs.values()}
        return [
            f"{path}: {line}"
            for path, text in texts.items()
            for line in text.splitlines()
            if "Traceback" in line or '"critical"' in line
        ]


_names = itertools.count()
"""Of tasks of all loads."""


class Load(Background):
    """Calls and one-way tasks without pause from some senders of this process, while its context lasts.

    At its end everything that was asked for has been answered or accepted, and correctly; what was not
    raises.

    Args:
        scene: whose queue.
        senders: how many.
        calls: that each has open at a time.
        one_way: one-way tasks that each submits every `pause`.
        pause: seconds that jobs take at most.
        max_attempts: of each task.
        policy: of the senders.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        senders: int = 2,
        calls: int = 8,
        one_way: int = 0,
        pause: float = 0.02,
        max_attempts: int = DEFAULT.max_attempts,
        policy: Policy = DEFAULT,
    ) -> None:
        super().__init__()
        self._scene = scene
        self._senders = senders
        self._calls = calls
        self._one_way = one_way
        self._pause = pause
        self._max_attempts = max_attempts
        self._policy = policy
        self._ending = False
        self._work: Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.asked: list[str] = []
        """Labels of calls."""
        self.answered = 0
        self.sent: list[str] = []
        """Labels of one-way tasks that were accepted."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._work = asyncio.run_coroutine_threadsafe(self._ask_all(), self.loop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._ending = True
        try:
            if kind is None and self._work is not None:
                self._work.result(2 * TIMEOUT)
        finally:
            self.run(self._give_up())
            super().__exit__()

    @property
    def done(self) -> int:
        return self.answered + len(self.sent)

    def wait_for(self, count: int) -> None:
        """Wait until so many more are answered or accepted."""
        goal = self.done + count
        assert self._work is not None
        work = self._work
        wait_until(lambda: self.done >= goal or work.done(), f"{count} more answers")
        if work.done():
            work.result()

    async def _give_up(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _ask_all(self) -> None:
        self._task = asyncio.current_task()
        senders = [
            AsyncSender(self._scene.queue, address=self._scene.address, policy=self._policy)
            for _ in range(self._senders)
        ]
        async with asyncio.TaskGroup() as group:
            for sender in senders:
                group.create_task(self._ask_from(sender))

    async def _ask_from(self, sender: AsyncSender) -> None:
        async with sender, asyncio.TaskGroup() as group:
            for number in range(self._calls):
                group.create_task(self._call(sender, ("echo", "echo_in_a_thread")[number % 2]))
            for _ in range(self._one_way):
                group.create_task(self._send(sender))

    def _next(self) -> tuple[str, float]:
        number = next(_names)
        return f"load-{number}", self._pause * (number % 5) / 4

    async def _call(self, sender: AsyncSender, function: str) -> None:
        while not self._ending:
            label, pause = self._next()
            self.asked.append(label)
            answer = await sender.call(
                function, [label, pause], timeout=CALL_TIMEOUT, max_attempts=self._max_attempts
            )
            assert answer == label
            self.answered += 1

    async def _send(self, sender: AsyncSender) -> None:
        while not self._ending:
            label, pause = self._next()
            await sender.send("echo", [label, pause], max_attempts=self._max_attempts)
            self.sent.append(label)
            await asyncio.sleep(self._pause)  # no more than can be done

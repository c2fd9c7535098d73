"""`spreadq demo`: real work spread over real processes, one of them killed on the way, nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from spreadq.async_sender import AsyncSender
from spreadq.programs.cluster import Cluster
from spreadq.programs.demo_tasks import EXECUTIONS_VARIABLE, FileCounts, count_text
from spreadq.programs.options import Json, Spread
from spreadq.programs.runtime import run
from spreadq.sender import Sender
from spreadq.status import ask_status
from spreadq_core.errors import SpreadqError, UsageError

TARGET = "spreadq.programs.demo_tasks:app"
"""What the workers serve."""

RESULT_TIMEOUT = 60.0
"""Seconds after which a task without result counts as lost."""

OUTSTANDING_PER_WORKER = 4
"""Tasks that are submitted ahead."""

FILES_LIMIT = 50_000
"""Files that are counted at most."""

SNIFFED = 4096
"""Bytes at a file's beginning that tell whether it is text."""


@attrs.define
class Outcome:
    """What the demo measured."""

    tasks: int
    seconds: float
    latencies_ms: list[float]
    killed: int
    reassign_ms: list[float]
    lost: int
    duplicate_runs: int
    matches_reference: bool
    lines: int
    words: int
    commonest: list[tuple[str, int]]

    def document(self) -> dict[str, Any]:
        """The form for programs; its keys are part of the public interface."""
        return {
            "tasks": self.tasks,
            "seconds": round(self.seconds, 3),
            "tasks_per_s": round(self.tasks / self.seconds, 1),
            "latency_ms": {
                "p50": _quantile(self.latencies_ms, 0.5),
                "p99": _quantile(self.latencies_ms, 0.99),
            },
            "killed": self.killed,
            "reassign_ms": {
                "p50": _quantile(self.reassign_ms, 0.5),
                "max": max(self.reassign_ms, default=None),
            },
            "lost": self.lost,
            "duplicate_runs": self.duplicate_runs,
            "matches_reference": self.matches_reference,
            "lines": self.lines,
            "words": self.words,
            "commonest": [name for name, _ in self.commonest],
        }


def demo(
    directory: Path | None = None,
    *,
    workers: int = 3,
    spread: Spread = None,
    executions: Path | None = None,
    as_json: Json = False,
) -> int:
    """Count lines, words and identifiers of many files, kill a worker meanwhile, and check the result.

    Args:
        directory: whose text files to count; by default the sources of Python's standard library.
        workers: how many worker processes.
        executions: file to which each job appends a line at its start and one at its end.
    """
    if workers < 2:
        raise UsageError("the demo needs at least 2 workers, for it kills one")
    files = text_files(directory) if directory else standard_library()
    if not files:
        raise UsageError(f"there are no text files in {directory}")
    if executions:
        _check_writable(executions)
    if spread:
        Sender("demo", address=spread).connect().close()  # who cannot is told at once
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # leave no process behind
    console = Console(stderr=as_json, quiet=as_json and not sys.stderr.isatty())
    with tempfile.TemporaryDirectory(prefix="spreadq-demo-") as scratch:
        trace = (executions or Path(scratch, "executions")).absolute()
        traced = _Executions(trace, Path(scratch, "gate"))
        environment = {EXECUTIONS_VARIABLE: str(traced.file)}
        with Cluster(f"demo-{secrets.token_hex(4)}", Path(scratch), spread, environment) as cluster:
            if cluster.embedded:
                cluster.start_daemon()
            cluster.start_manager()
            names = [f"worker-{number}" for number in range(1, workers + 1)]
            processes = {name: cluster.start_worker(TARGET, name) for name in names}
            cluster.wait_for_workers(workers)
            counted = run(_count(files, cluster, processes, traced, console))
            outcome = _evaluate(files, counted, traced.traces())
    if as_json:
        print(json.dumps(outcome.document()))
    else:
        _show(outcome, console)
    return 0 if outcome.matches_reference and not outcome.lost else 1


def _check_writable(file: Path) -> None:
    try:
        file.open("a").close()
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error


def standard_library() -> list[str]:
    """The sources of Python's standard library, without what was installed beside it."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    foreign = (str(stdlib / "site-packages"), str(stdlib / "dist-packages"))
    return [path for path in text_files(stdlib) if path.endswith(".py") and not path.startswith(foreign)]


def text_files(directory: Path) -> list[str]:
    """The text files below a directory, in order of their names, without links and caches."""
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory")
    found = []
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name not in ("__pycache__", ".git"))
        for name in sorted(names):
            path = Path(parent, name)
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink() and _is_text(path):
                    found.append(str(path))
                    if len(found) == FILES_LIMIT:
                        return found
    return found


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(SNIFFED)
    return b"\0" not in start


class _Kill(NamedTuple):
    """Of a worker: the task that it ran, and when."""

    task: str
    at: float


class _Executions:
    """The file to which jobs append `start|end TASK PID TIME PATH`, and what can be read from it."""

    def __init__(self, file: Path, gate: Path) -> None:
        self.file = file
        self.gate = gate

    def traces(self) -> list[list[str]]:
        """Its lines."""
        with contextlib.suppress(FileNotFoundError):
            text = self.file.read_text(encoding="utf-8", errors="surrogateescape")
            traces = [line.split(" ", 4) for line in text.split("\n")]
            return [trace for trace in traces if len(trace) == 5]
        return []

    async def kill_who_counts(self, path: str, workers: Iterable[subprocess.Popen[bytes]]) -> _Kill:
        """Wait until a worker has begun with a file whose job waits for the gate, kill it, open the gate."""
        by_pid = {str(worker.pid): worker for worker in workers}
        while True:
            for what, task, pid, _, counted in self.traces():
                if what == "start" and counted == _traced(path) and pid in by_pid:
                    kill = _Kill(task, time.time())
                    by_pid[pid].kill()
                    self.open_gate()
                    return kill
            await asyncio.sleep(0.002)

    def open_gate(self) -> None:
        """Let the job go on that waits."""
        self.gate.touch()


class _Counted(NamedTuple):
    """What came back, in what time, and who was killed."""

    results: dict[str, FileCounts | None]
    seconds: float
    latencies_ms: list[float]
    kill: _Kill | None


async def _count(
    files: list[str],
    cluster: Cluster,
    workers: dict[str, subprocess.Popen[bytes]],
    executions: _Executions,
    console: Console,
) -> _Counted:
    """Send all files through the queue, a few at a time, and kill a worker in the job of the middle one."""
    results: dict[str, FileCounts | None] = {}
    latencies: list[float] = []
    middle = files[len(files) // 2]
    half = asyncio.Event()

    async with AsyncSender(cluster.queue, address=cluster.address, name="demo") as sender:

        async def work(queue: Iterator[str]) -> None:
            for path in queue:
                arguments: list[Any] = [os.fsencode(path)]  # which need not be text
                if path == middle:  # its job waits until its worker is dead
                    arguments.append(str(executions.gate))
                    half.set()
                start = time.perf_counter()
                try:
                    value = await sender.call("count_file", arguments, timeout=RESULT_TIMEOUT)
                    results[path] = msgspec.convert(value, FileCounts)
                except SpreadqError:
                    results[path] = None
                latencies.append((time.perf_counter() - start) * 1000)

        async def kill() -> _Kill:
            await half.wait()
            return await executions.kill_who_counts(middle, workers.values())

        start = time.perf_counter()
        killer = asyncio.create_task(kill())
        watcher = asyncio.create_task(_watch(cluster, workers, len(files), results, console))
        shared = iter(files)
        outstanding = OUTSTANDING_PER_WORKER * len(workers)
        await asyncio.gather(*(work(shared) for _ in range(outstanding)))
        seconds = time.perf_counter() - start
        killed = killer.result() if killer.done() else None
        for task in (killer, watcher):
            task.cancel()
        await asyncio.gather(killer, watcher, return_exceptions=True)
    return _Counted(results, seconds, latencies, killed)


def _evaluate(files: list[str], counted: _Counted, traces: list[list[str]]) -> Outcome:
    """Hold what the workers counted, and how often they did, against a plain loop over the same files."""
    results, kill = counted.results, counted.kill
    traced = {_traced(path) for path in results}
    traces = [trace for trace in traces if trace[4] in traced]
    ends = Counter(task for what, task, *_ in traces if what == "end")
    again = [
        round((float(at) - kill.at) * 1000, 3)
        for what, task, _, at, _ in traces
        if kill and what == "start" and task == kill.task and float(at) > kill.at
    ]
    reference = {path: _count_or_none(path) for path in files}
    identifiers: Counter[str] = Counter()
    counts = [result for result in results.values() if result is not None]
    for result in counts:
        identifiers.update(dict(result.identifiers))
    return Outcome(
        tasks=len(files),
        seconds=counted.seconds,
        latencies_ms=counted.latencies_ms,
        killed=int(kill is not None),
        reassign_ms=again[:1],
        lost=sum(result is None for result in results.values()),
        duplicate_runs=sum(count - 1 for count in ends.values()),
        matches_reference=results == reference,
        lines=sum(result.lines for result in counts),
        words=sum(result.words for result in counts),
        commonest=sorted(identifiers.items(), key=lambda item: (-item[1], item[0]))[:8],
    )


def _traced(path: str) -> str:
    """What of a path is in its first line."""
    return path.partition("\n")[0]


def _count_or_none(path: str) -> FileCounts | None:
    with contextlib.suppress(OSError):
        return count_text(Path(path))
    return None


async def _watch(
    cluster: Cluster,
    workers: dict[str, subprocess.Popen[bytes]],
    total: int,
    results: dict[str, FileCounts | None],
    console: Console,
) -> None:
    """Show a live table of who does what, on a terminal."""
    if not console.is_terminal:
        return
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        while True:
            with contextlib.suppress(SpreadqError):
                status = await asyncio.to_thread(ask_status, cluster.queue, cluster.address)
                live.update(_live_table(status, workers, len(results), total))
            await asyncio.sleep(0.1)


def _live_table(
    status: dict[str, Any], workers: dict[str, subprocess.Popen[bytes]], done: int, total: int
) -> Table:
    table = Table(title=f"{done} of {total} files counted", box=None)
    for heading in ("worker", "process", "state", "jobs done"):
        table.add_column(heading, justify="right" if heading in ("process", "jobs done") else "left")
    present = {worker["name"]: worker for worker in status["workers"]}
    for name, process in workers.items():
        worker = present.get(name)
        if worker is None:
            table.add_row(name, str(process.pid), "[red]killed[/red]", "")
        else:
            table.add_row(name, str(process.pid), worker["state"], str(worker["done"]))
    return table


def _show(outcome: Outcome, console: Console) -> None:
    document = outcome.document()
    again = document["reassign_ms"]["max"]
    console.print(
        f"{outcome.tasks} files counted: {outcome.lines:,} lines, {outcome.words:,} words; "
        f"commonest identifiers: {', '.join(document['commonest'])}",
        highlight=False,
    )
    console.print(
        f"{document['tasks_per_s']:.0f} tasks/s for {outcome.seconds:.1f} s; latency p50 "
        f"{document['latency_ms']['p50']:.1f} ms, p99 {document['latency_ms']['p99']:.1f} ms",
        highlight=False,
    )
    restarted = (
        "its job was not started again" if again is None else f"its job ran elsewhere after {again:.1f} ms"
    )
    console.print(f"{outcome.killed} worker killed in a job: {restarted}", highlight=False)
    console.print(
        f"lost = {outcome.lost}; tasks that finished twice = {outcome.duplicate_runs}", highlight=False
    )
    if outcome.matches_reference:
        console.print("[green]the results are those of a plain loop over the same files[/green]")
    else:
        console.print("[red]the results differ from those of a plain loop over the same files[/red]")


def _quantile(values: list[float], q: float) -> float | None:
    """Nearest rank; None where there is nothing."""
    if not values:
        return None
    return round(sorted(values)[min(len(values) - 1, int(q * len(values)))], 3)

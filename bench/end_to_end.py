"""Real processes, real sockets: latency, rates, and how soon a dead worker's job runs elsewhere."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Figure, Goal, quantile
from bench.floor import Floor
from spreadq.async_sender import AsyncSender
from spreadq.programs.cluster import Cluster
from spreadq.programs.runtime import run

TARGET = "bench.tasks:app"
WARM_UP = 500
ROUNDS = 8
CALLS_PER_ROUND = 500
RATE_CALLS = 60_000
SENDERS_CALLS = 20_000
ONE_WAY_TASKS = 100_000
ONE_WAY_OUTSTANDING = 1_000
KILLS = 60
SETTLE = 0.05


@contextmanager
def cluster(spread: str | None, workers: int, concurrency: int, *, serve: bool = False) -> Iterator[Cluster]:
    """Daemon where there is none, manager and workers, ready."""
    with (
        tempfile.TemporaryDirectory(prefix="spreadq-bench-") as scratch,
        Cluster(f"bench-{secrets.token_hex(4)}", Path(scratch), spread) as processes,
    ):
        if serve:
            processes.start_serve()
        else:
            if processes.embedded:
                processes.start_daemon()
            processes.start_manager()
        for number in range(workers):
            processes.start_worker(TARGET, f"worker-{number}", "-c", str(concurrency))
        processes.wait_for_workers(workers)
        yield processes


def rpc_latency(spread: str | None) -> list[Figure]:
    """One call at a time, one worker; the floor and ours in turn."""
    with cluster(spread, workers=1, concurrency=1) as processes:
        for role in ("manager", "worker"):
            processes.start_python("-m", "bench.floor", role, processes.address)
        floor, ours = run(_interleaved(processes))
    kind = "real" if spread else "embedded"
    return [
        Figure(
            f"rpc_p50_{kind}",
            quantile(ours, 0.5) * 1e6,
            "us",
            quantile(floor, 0.5) * 1e6,
            Goal("<=", 1.2, "ratio"),
        ),
        Figure(
            f"rpc_p99_{kind}",
            quantile(ours, 0.99) * 1e6,
            "us",
            quantile(floor, 0.99) * 1e6,
            Goal("<=", 2.0, "ratio"),
        ),
    ]


async def _interleaved(processes: Cluster) -> tuple[list[float], list[float]]:
    floor = Floor(processes.address)
    await floor.start()
    async with AsyncSender(processes.queue, address=processes.address) as sender:

        async def call() -> float:
            start = time.perf_counter()
            await sender.call("nothing", [])
            return time.perf_counter() - start

        bare, ours = [], []
        for measure in (floor.round_trip, call):
            for _ in range(WARM_UP):
                await measure()
        for _ in range(ROUNDS):
            bare += [await floor.round_trip() for _ in range(CALLS_PER_ROUND)]
            ours += [await call() for _ in range(CALLS_PER_ROUND)]
    await floor.close()
    return bare, ours


def rpc_latency_serve(spread: str | None) -> list[Figure]:
    """One call at a time, with daemon and manager in one process."""
    if spread:
        return []
    with cluster(None, workers=1, concurrency=1, serve=True) as processes:
        latencies = run(_latencies(processes))
    return [
        Figure("rpc_p50_serve", quantile(latencies, 0.5) * 1e6, "us", goal=Goal("<=", 200)),
        Figure("rpc_p99_serve", quantile(latencies, 0.99) * 1e6, "us"),
    ]


async def _latencies(processes: Cluster) -> list[float]:
    async with AsyncSender(processes.queue, address=processes.address) as sender:
        latencies = []
        for number in range(WARM_UP + ROUNDS * CALLS_PER_ROUND):
            start = time.perf_counter()
            await sender.call("nothing", [])
            if number >= WARM_UP:
                latencies.append(time.perf_counter() - start)
    return latencies


def rpc_rate(spread: str | None) -> list[Figure]:
    """64 calls outstanding from one sender, two workers of capacity 16."""
    figures = []
    for serve in (False,) if spread else (False, True):
        with cluster(spread, workers=2, concurrency=16, serve=serve) as processes:
            rate = run(_rate(processes))
        kind = "real" if spread else "serve" if serve else "embedded"
        goal = Goal(">=", 60_000 if spread else 100_000)
        figures.append(Figure(f"rpc_64_outstanding_{kind}", rate, "calls/s", goal=goal))
    return figures


async def _rate(processes: Cluster) -> float:
    async with AsyncSender(processes.queue, address=processes.address) as sender:
        await _many(WARM_UP, 64, lambda: sender.call("nothing", []))
        return await _many(RATE_CALLS, 64, lambda: sender.call("nothing", []))


def senders_rate(spread: str | None) -> list[Figure]:
    """64 senders with one call each at a time, two workers of capacity 16."""
    with cluster(spread, workers=2, concurrency=16) as processes:
        rate = run(_senders_rate(processes))
    kind = "real" if spread else "embedded"
    return [Figure(f"rpc_64_senders_{kind}", rate, "calls/s", goal=Goal(">=", 10_000 if spread else 25_000))]


async def _senders_rate(processes: Cluster) -> float:
    senders = [await AsyncSender(processes.queue, address=processes.address).start() for _ in range(64)]
    left = SENDERS_CALLS

    async def work(sender: AsyncSender) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await sender.call("nothing", [])

    await asyncio.gather(*(sender.call("nothing", []) for sender in senders))
    start = time.perf_counter()
    await asyncio.gather(*(work(sender) for sender in senders))
    seconds = time.perf_counter() - start
    await asyncio.gather(*(sender.close() for sender in senders))
    return SENDERS_CALLS / seconds


def one_way_rate(spread: str | None) -> list[Figure]:
    """One-way tasks, accepted and done, four workers."""
    with cluster(spread, workers=4, concurrency=16) as processes:
        rate = run(_one_way_rate(processes))
    kind = "real" if spread else "embedded"
    return [Figure(f"one_way_{kind}", rate, "tasks/s", goal=Goal(">=", 60_000))]


async def _one_way_rate(processes: Cluster) -> float:
    async with AsyncSender(processes.queue, address=processes.address) as sender:
        await _many(WARM_UP, 64, lambda: sender.send("nothing", []))
        start = time.perf_counter()
        await _many(ONE_WAY_TASKS, ONE_WAY_OUTSTANDING, lambda: sender.send("nothing", []))
        await sender.call("nothing", [])  # in its order: all others were assigned before it
        return ONE_WAY_TASKS / (time.perf_counter() - start)


async def _many(count: int, outstanding: int, one: Callable[[], Awaitable[object]]) -> float:
    """Do it so often, so many at a time; how many a second."""
    left = count

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await one()

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(outstanding)))
    return count / (time.perf_counter() - start)


def kill_to_restart(spread: str | None) -> list[Figure]:
    """Kill -9 of a worker in a job, until the job starts at another, which is idle."""
    with cluster(spread, workers=0, concurrency=1) as processes:
        delays = run(_kills(processes))
    kind = "real" if spread else "embedded"
    return [
        Figure(f"kill_to_restart_p50_{kind}", quantile(delays, 0.5) * 1e3, "ms"),
        Figure(f"kill_to_restart_p99_{kind}", quantile(delays, 0.99) * 1e3, "ms", goal=Goal("<=", 5)),
    ]


async def _kills(processes: Cluster) -> list[float]:
    delays = []
    with tempfile.TemporaryDirectory(prefix="spreadq-bench-") as scratch:
        async with AsyncSender(processes.queue, address=processes.address) as sender:
            for number in range(KILLS):
                pair = [processes.start_worker(TARGET, f"worker-{number}-{which}") for which in "ab"]
                await asyncio.to_thread(processes.wait_for_workers, 2)
                trace = Path(scratch, str(number))
                await sender.send("tell_and_hang", [str(trace)], max_attempts=2)
                runner = (await _starts(trace, 1))[0][0]
                pair.sort(key=lambda worker: worker.pid != runner)
                killed_at = time.monotonic_ns()
                pair[0].kill()
                await asyncio.sleep(SETTLE)  # without disturbing them by looking
                delays.append(((await _starts(trace, 2))[1][1] - killed_at) / 1e9)
                pair[1].kill()  # the task has no attempt left, and is buried
    return delays


async def _starts(trace: Path, count: int) -> list[tuple[int, int]]:
    """Wait for so many starts of a job; process and time of each."""
    while True:
        lines = await asyncio.to_thread(_lines, trace)
        if len(lines) >= count:
            return [(int(pid), int(at)) for pid, at in lines]
        await asyncio.sleep(0.005)


def _lines(file: Path) -> list[list[str]]:
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

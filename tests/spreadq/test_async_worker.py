"""Workers: what they serve, how many jobs they run, and that no job holds up anything else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import attrs
import pytest

from spreadq import App, AsyncSender, AsyncWorker, Buried, CannotConnectError, Policy, UsageError, Worker
from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.policy import DEFAULT
from tests.brokers import Background, Broker, until, wait_until
from tests.spreadq.conftest import Serve

LEASE_S = 0.5


@pytest.fixture
def policy() -> Policy:
    return Policy(lease=int(LEASE_S * SECOND))


@pytest.fixture
async def sender(broker: Broker, queue: str) -> AsyncIterator[AsyncSender]:
    async with AsyncSender(queue, address=broker.address) as sender:
        yield sender


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


@attrs.define
class Crowd:
    """How many jobs run, and how many did at most."""

    now: int = 0
    most: int = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


class TestConcurrency:
    @pytest.mark.parametrize("concurrency", [1, 5])
    async def test_so_many_jobs_run_at_a_time(
        self, app: App, serve: Serve, sender: AsyncSender, concurrency: int
    ) -> None:
        threads, loop = Crowd(), Crowd()

        @app.task
        def in_a_thread() -> None:
            with threads:
                time.sleep(0.002)

        @app.task
        async def on_the_loop() -> None:
            with loop:
                await asyncio.sleep(0.002)

        serve(app, concurrency=concurrency)
        await asyncio.gather(*(sender.call("in_a_thread", []) for _ in range(30)))
        await asyncio.gather(*(sender.call("on_the_loop", []) for _ in range(30)))
        assert (threads.most, loop.most) == (concurrency, concurrency)

    async def test_both_kinds_share_the_slots(
        self, app: App, serve: Serve, sender: AsyncSender, gate: threading.Event
    ) -> None:
        @app.task
        def in_a_thread() -> None:
            assert gate.wait(20)

        @app.task
        async def on_the_loop() -> str:
            return "done"

        serve(app, concurrency=2)
        for _ in range(2):
            await sender.submit("in_a_thread", [])
        handle = await sender.submit("on_the_loop", [])
        with pytest.raises(TimeoutError):
            await handle.result(timeout="50ms")
        gate.set()
        assert await handle.result(timeout=5) == "done"

    @pytest.mark.parametrize("concurrency", [0, -1, 10_001])
    def test_impossible_numbers_are_refused(self, app: App, concurrency: int) -> None:
        app.task(print)
        with pytest.raises(UsageError, match="1 to 10000 are allowed"):
            app.worker(concurrency=concurrency)

    async def test_tasks_go_to_whoever_has_been_idle_longest(
        self, app: App, serve: Serve, sender: AsyncSender
    ) -> None:
        @app.task
        async def who() -> int:
            return threading.get_ident()

        for _ in range(3):
            serve(app)
        order = [await sender.call("who", []) for _ in range(9)]
        assert len(set(order)) == 3
        assert order == order[:3] * 3


class TestNoJobHoldsUpAnything:
    async def test_a_thread_that_blocks_delays_neither_other_jobs_nor_the_lease(
        self, app: App, serve: Serve, sender: AsyncSender, broker: Broker, gate: threading.Event
    ) -> None:
        @app.task
        def block() -> str:
            assert gate.wait(20)
            return "after all"

        @app.task
        async def quick() -> int:
            return 1

        serve(app, concurrency=2)
        handle = await sender.submit("block", [])
        longest, end = 0.0, time.monotonic() + 4 * LEASE_S
        while time.monotonic() < end:
            start = time.monotonic()
            assert await sender.call("quick", []) == 1
            longest = max(longest, time.monotonic() - start)
        assert longest < LEASE_S
        gate.set()
        assert await handle.result(timeout=5) == "after all"
        assert (await broker.ask(app.queue))["tasks"]["reassigned"] == 0

    async def test_neither_does_a_thread_that_computes(
        self, app: App, serve: Serve, sender: AsyncSender, broker: Broker
    ) -> None:
        @app.task
        def compute(seconds: float) -> int:
            rounds, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                rounds += 1
            return rounds

        @app.task
        async def quick() -> int:
            return 1

        serve(app, concurrency=2)
        handle = await sender.submit("compute", [3 * LEASE_S])
        for _ in range(20):
            assert await sender.call("quick", []) == 1
        assert await handle.result(timeout=10) > 1
        assert (await broker.ask(app.queue))["tasks"]["reassigned"] == 0

    async def test_an_async_job_that_blocks_the_loop_for_longer_than_the_lease_loses_it(
        self, app: App, serve: Serve, sender: AsyncSender, broker: Broker, gate: threading.Event
    ) -> None:
        runs: list[int] = []

        @app.task
        async def block() -> int:
            runs.append(threading.get_ident())
            if len(runs) == 1:
                gate.wait(20)  # the mistake that is tested
            return len(runs)

        serve(app)
        serve(app)
        handle = await sender.submit("block", [])
        assert await handle.result(timeout=10) == 2
        assert len(set(runs)) == 2
        status = await broker.ask(app.queue)
        assert (len(status["workers"]), status["tasks"]["reassigned"]) == (1, 1)
        gate.set()  # it comes back, and its late success changes nothing
        await asyncio.to_thread(broker.wait_for_workers, app.queue, 2)
        assert await handle.result() == 2
        assert (await broker.ask(app.queue))["tasks"]["done"] == 1

    async def test_a_late_success_counts_where_no_other_came_before(
        self, app: App, serve: Serve, sender: AsyncSender, gate: threading.Event
    ) -> None:
        second = threading.Event()
        runs: list[int] = []

        @app.task
        async def block() -> int:
            runs.append(threading.get_ident())
            run = len(runs)
            if run == 1:
                gate.wait(20)
            else:
                await asyncio.to_thread(second.wait, 20)
            return run

        serve(app)
        serve(app)
        handle = await sender.submit("block", [])
        await until(lambda: len(runs) == 2)
        gate.set()
        assert await handle.result(timeout=10) == 1
        second.set()


class TestHungJobs:
    async def test_past_its_run_limit_a_thread_keeps_its_slot_and_its_task_runs_elsewhere(
        self, app: App, serve: Serve, sender: AsyncSender, broker: Broker, gate: threading.Event
    ) -> None:
        runs: list[int] = []

        @app.task
        def hang() -> int:
            runs.append(threading.get_ident())
            if len(runs) == 1:
                gate.wait(20)
            return len(runs)

        @app.task
        async def quick() -> int:
            return 1

        serve(app, concurrency=2)
        assert await sender.call("hang", [], run_limit="100ms") == 2
        workers = (await broker.ask(app.queue))["workers"]
        assert [worker["running"] for worker in workers] == [1]
        assert await sender.call("quick", []) == 1
        gate.set()
        await broker.until(app.queue, lambda status: status["workers"][0]["running"] == 0)

    async def test_a_worker_with_nothing_but_hung_jobs_ends_with_a_failure(
        self, app: App, serve: Serve, sender: AsyncSender, gate: threading.Event
    ) -> None:
        @app.task
        def hang() -> None:
            gate.wait(20)

        policy = attrs.evolve(DEFAULT, hung_grace=100 * MILLISECOND)
        with Background() as background:
            worker = background.start_worker(lambda: app.worker(concurrency=2, policy=policy))
            calls = [sender.call("hang", [], run_limit="50ms", max_attempts=1) for _ in range(2)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(outcome, Buried) for outcome in outcomes)
            end = await asyncio.to_thread(background.run, worker.wait())
            assert (end.status, end.reason) == (1, "all 2 slots are held by jobs that do not stop")

    async def test_a_job_that_catches_its_cancellation_counts_as_hung(
        self, app: App, serve: Serve, sender: AsyncSender, broker: Broker
    ) -> None:
        stubborn = asyncio.Event()
        loop = asyncio.get_running_loop()

        @app.task
        async def hang() -> str:
            while not stubborn.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    continue
            return "late"

        serve(app)
        with pytest.raises(Buried):
            await sender.call("hang", [], run_limit="50ms", max_attempts=1)
        assert broker.status(app.queue)["workers"][0]["running"] == 1
        loop.call_soon(stubborn.set)
        await broker.until(app.queue, lambda status: status["workers"][0]["running"] == 0)


class TestLife:
    async def test_it_serves_while_it_is_entered(self, app: App, broker: Broker) -> None:
        @app.task
        async def double(x: int) -> int:
            return 2 * x

        async with app.worker(name="the worker"), app:
            assert await double.call(21) == 42
            (worker,) = (await broker.ask(app.queue))["workers"]
            assert (worker["name"], worker["capacity"], worker["functions"]) == ("the worker", 1, ["double"])
        await broker.until(app.queue, lambda status: status["workers"] == [])

    async def test_it_drains(
        self, app: App, broker: Broker, sender: AsyncSender, gate: threading.Event
    ) -> None:
        started = threading.Event()

        @app.task
        def hold() -> str:
            started.set()
            assert gate.wait(20)
            return "done"

        worker = await app.worker().start()
        running = await sender.submit("hold", [])
        await until(started.is_set)
        worker.stop()
        waiting = await sender.submit("hold", [])
        await broker.until(app.queue, lambda status: status["workers"][0]["state"] == "draining")
        gate.set()
        assert await running.result(timeout=5) == "done"
        end = await worker.wait()
        assert (end.status, end.reason) == (0, "drained")
        with pytest.raises(TimeoutError):
            await waiting.result(timeout="50ms")
        async with app.worker():
            assert await waiting.result(timeout=5) == "done"

    async def test_stopped_again_it_gives_back_what_runs(
        self, app: App, broker: Broker, sender: AsyncSender
    ) -> None:
        runs: list[str] = []
        cancelled = asyncio.Event()

        @app.task
        async def hold() -> str:
            runs.append("run")
            if len(runs) == 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.set()
            return "done"

        worker = await app.worker().start()
        handle = await sender.submit("hold", [], max_attempts=1)
        await until(lambda: runs)
        worker.stop()
        worker.stop()
        end = await worker.wait()
        assert (end.status, end.reason) == (1, "told to stop at once")
        assert cancelled.is_set()
        async with app.worker():  # being given back does not count as an attempt
            assert await handle.result(timeout=5) == "done"
        assert len(runs) == 2

    async def test_past_the_drain_timeout_it_gives_back_what_runs(
        self, app: App, sender: AsyncSender, gate: threading.Event
    ) -> None:
        runs = []

        @app.task
        def hold() -> str:
            runs.append("run")
            if len(runs) == 1:
                gate.wait(20)
            return "done"

        policy = attrs.evolve(DEFAULT, drain_timeout=50 * MILLISECOND)
        worker = await app.worker(policy=policy).start()
        handle = await sender.submit("hold", [])
        await until(lambda: runs)
        worker.stop()
        assert (await worker.wait()).status == 0
        async with app.worker():
            assert await handle.result(timeout=5) == "done"

    async def test_one_that_is_not_started_says_so(self, app: App) -> None:
        app.task(print)
        worker = app.worker()
        worker.stop()
        with pytest.raises(UsageError, match="is not started"):
            await worker.wait()

    async def test_without_a_daemon_it_can_be_started_later(self, app: App, broker: Broker) -> None:
        app.task(print)
        worker = app.worker(address=f"{broker.address}-not-there")
        for _ in range(2):
            with pytest.raises(CannotConnectError):
                await worker.start()

    async def test_two_workers_in_one_loop(self, app: App, broker: Broker, sender: AsyncSender) -> None:
        @app.task
        async def double(x: int) -> int:
            return 2 * x

        async with app.worker(), app.worker():
            await asyncio.to_thread(broker.wait_for_workers, app.queue, 2)
            calls = (sender.call("double", [x]) for x in range(100))
            assert await asyncio.gather(*calls) == [2 * x for x in range(100)]

    def test_too_many_names_of_functions_are_refused(self, queue: str) -> None:
        worker = Worker(queue)
        for number in range(300):
            worker.callbacks(**{f"{number:0200}": print})
        with pytest.raises(UsageError, match="function names have more than 49152 bytes"):
            worker.worker()

    def test_thousands_of_functions_are_fine(
        self, app: App, serve: Serve, broker: Broker, queue: str
    ) -> None:
        for number in range(3000):
            app.task(name=f"function-{number}")(lambda number=number: number)
        serve(app)
        assert app.tasks["function-2999"].call_sync() == 2999
        app.close_sync()
        assert len(broker.status(queue)["workers"][0]["functions"]) == 3000


class TestUserCode:
    async def test_jobs_of_one_thread_do_not_see_each_others_context(
        self, app: App, serve: Serve, sender: AsyncSender
    ) -> None:
        seen: ContextVar[int] = ContextVar("seen", default=0)

        @app.task
        def count() -> int:
            seen.set(seen.get() + 1)
            return seen.get()

        serve(app)
        assert [await sender.call("count", []) for _ in range(3)] == [1, 1, 1]

    async def test_answers_in_many_threads_at_once(
        self, worker: Worker, serve: Serve, sender: AsyncSender
    ) -> None:
        def shout(worker: Worker, originator: Any, value: int) -> None:
            threads = [
                threading.Thread(target=worker.respond, args=(originator, number)) for number in range(value)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        worker.callbacks(shout=shout)
        serve(worker, concurrency=4)
        handles = [await sender.submit("shout", 10) for _ in range(10)]
        for handle in handles:
            async with asyncio.timeout(10):
                assert sorted([response async for response in handle.responses()]) == [*range(10)]


def test_a_worker_outlives_jobs_of_all_kinds(app: App, serve: Serve, queue: str) -> None:
    """One after the other through one slot: nothing that a job does may cost it."""

    @app.task
    def fail() -> None:
        raise ValueError

    @app.task
    async def fail_on_the_loop() -> None:
        raise ValueError

    @app.task
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    @app.task
    async def leave_a_task_behind() -> None:
        asyncio.get_running_loop().call_soon(lambda: None)

    @app.task
    def unencodable() -> Any:
        return object()

    @app.task
    async def alive() -> int:
        return 1

    serve(app)
    for task in (fail, fail_on_the_loop, cancel_itself, leave_a_task_behind, unencodable) * 3:
        handle = task.submit_sync()  # type: ignore[operator]
        wait_until(lambda handle=handle: handle._pending.outcome or app.sender().dispatch())
        assert alive.call_sync() == 1
    app.close_sync()


def test_what_a_worker_serves_is_settled_when_it_is_made(app: App) -> None:
    @app.task
    def one() -> None: ...

    worker = app.worker()
    app.task(name="two")(print)
    assert isinstance(worker, AsyncWorker)

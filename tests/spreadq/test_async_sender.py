"""The sender of asyncio programs."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from spreadq import (
    App,
    AsyncSender,
    BadPayload,
    Buried,
    Cancelled,
    CannotConnectError,
    NoManager,
    NoResponse,
    Originator,
    Policy,
    Rejected,
    RemoteError,
    TimedOut,
    UnknownFunction,
    UsageError,
    Worker,
)
from tests.brokers import Broker, until
from tests.spreadq.conftest import Serve


@pytest.fixture
async def sender(broker: Broker, queue: str) -> AsyncIterator[AsyncSender]:
    async with AsyncSender(queue, address=broker.address) as sender:
        yield sender


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def ended() -> list[str]:
    """How jobs of `wait` came to their end."""
    return []


@pytest.fixture
def served(worker: Worker, serve: Serve, gate: threading.Event, ended: list[str]) -> Worker:
    """A worker whose functions answer in all possible ways."""

    @worker.function
    async def echo(worker: Worker, originator: Originator, value: Any) -> None:
        worker.respond(originator, value)

    @worker.function
    async def count(worker: Worker, originator: Originator, value: int) -> None:
        for number in range(value):
            worker.respond(originator, number)
            await asyncio.sleep(0)

    @worker.function
    def count_at_the_gate(worker: Worker, originator: Originator, value: int) -> None:
        worker.respond(originator, "before")
        assert gate.wait(20)
        worker.respond(originator, "after")

    @worker.function
    def hold(worker: Worker, originator: Originator, value: Any) -> None:
        assert gate.wait(20)
        worker.respond(originator, value)

    @worker.function
    async def wait(worker: Worker, originator: Originator, value: Any) -> None:
        ended.append("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    @worker.function
    async def say_nothing(worker: Worker, originator: Originator, value: Any) -> None: ...

    @worker.function
    async def respond_and_fail(worker: Worker, originator: Originator, value: Any) -> None:
        worker.respond(originator, value)
        raise ValueError(value)

    serve(worker, concurrency=2)
    return worker


@pytest.mark.usefixtures("served")
class TestSubmit:
    async def test_a_handle_gives_the_result(self, sender: AsyncSender) -> None:
        handle = await sender.submit("echo", [1, 2])
        assert await handle.result(timeout=5) == [1, 2]
        assert await handle.result() == [1, 2]

    async def test_without_waiting_it_returns_at_once(self, sender: AsyncSender) -> None:
        handles = [await sender.submit("echo", number, wait=False) for number in range(50)]
        assert await asyncio.gather(*(handle.result(timeout=5) for handle in handles)) == [*range(50)]
        assert [handle.id.counter for handle in handles] == [*range(1, 51)]

    async def test_the_wait_ends_but_not_the_task(self, sender: AsyncSender, gate: threading.Event) -> None:
        handle = await sender.submit("hold", "late")
        with pytest.raises(TimedOut, match="not done yet after 50ms") as caught:
            await handle.result(timeout="50ms")
        assert caught.value.id == handle.id
        gate.set()
        assert await handle.result(timeout=5) == "late"

    async def test_several_may_wait_for_one_result(self, sender: AsyncSender, gate: threading.Event) -> None:
        handle = await sender.submit("hold", "late")
        waiting = [asyncio.create_task(handle.result(timeout=5)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        gate.set()
        assert await asyncio.gather(*waiting[1:]) == ["late", "late"]

    async def test_each_response_as_it_comes(self, sender: AsyncSender, gate: threading.Event) -> None:
        handle = await sender.submit("count_at_the_gate")
        seen = []
        async with asyncio.timeout(10):
            async for response in handle.responses():
                seen.append(response)
                gate.set()
        assert seen == ["before", "after"]
        assert await handle.result() == "before"
        assert [response async for response in handle.responses()] == ["before", "after"]

    async def test_hundreds_of_responses(self, sender: AsyncSender) -> None:
        handle = await sender.submit("count", 1000)
        async with asyncio.timeout(20):
            assert [response async for response in handle.responses()] == [*range(1000)]

    async def test_responses_before_a_failure(self, sender: AsyncSender) -> None:
        handle = await sender.submit("respond_and_fail", "x")
        responses = handle.responses()
        assert await anext(responses) == "x"
        with pytest.raises(RemoteError, match="ValueError: x"):
            await anext(responses)
        with pytest.raises(RemoteError, match="ValueError: x"):
            await handle.result()

    async def test_no_response(self, sender: AsyncSender) -> None:
        handle = await sender.submit("say_nothing")
        with pytest.raises(NoResponse):
            await handle.result(timeout=5)
        assert [response async for response in handle.responses()] == []

    async def test_one_way(self, sender: AsyncSender, broker: Broker) -> None:
        ids = [await sender.send("echo", number) for number in range(10)]
        ids += [await sender.send("echo", number, wait=False) for number in range(10)]
        assert len(set(ids)) == 20
        await sender.call("echo")
        status = await broker.ask(sender.queue)
        assert (status["tasks"]["done"], status["tasks"]["failed"]) == (21, 0)


@pytest.mark.usefixtures("served")
class TestCall:
    async def test_many_at_a_time(self, sender: AsyncSender) -> None:
        calls = [sender.call("echo", number) for number in range(3000)]
        assert await asyncio.gather(*calls) == [*range(3000)]

    async def test_the_first_response_is_the_answer(self, sender: AsyncSender) -> None:
        assert await sender.call("count", 3) == 0
        assert await sender.call("respond_and_fail", "x") == "x"
        with pytest.raises(NoResponse):
            await sender.call("say_nothing")

    async def test_a_function_that_nobody_serves(self, sender: AsyncSender) -> None:
        with pytest.raises(UnknownFunction):
            await sender.call("nothing", timeout="100ms")

    async def test_it_takes_too_long(self, sender: AsyncSender, ended: list[str], broker: Broker) -> None:
        with pytest.raises(TimedOut) as caught:
            await sender.call("wait", timeout="100ms")
        assert isinstance(caught.value, TimeoutError)
        await until(lambda: ended == ["started", "cancelled"])

    async def test_cancelling_it_cancels_the_job(self, sender: AsyncSender, ended: list[str]) -> None:
        call = asyncio.create_task(sender.call("wait"))
        await until(lambda: ended)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: ended == ["started", "cancelled"])
        assert await sender.call("echo", 1) == 1

    async def test_cancelling_it_before_its_turn_means_that_it_is_not_run(
        self, sender: AsyncSender, broker: Broker, gate: threading.Event, ended: list[str]
    ) -> None:
        holding = [await sender.submit("hold") for _ in range(2)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await sender.call("wait", timeout=None)
        await broker.until(sender.queue, lambda status: status["tasks"]["open"] == 2)
        gate.set()
        for handle in holding:
            await handle.result(timeout=5)
        assert await sender.call("echo", 1) == 1
        assert not ended
        status = await broker.ask(sender.queue)
        assert status["tasks"]["open"] == 0

    async def test_a_job_over_its_limit_is_cancelled_and_buried(
        self, sender: AsyncSender, ended: list[str]
    ) -> None:
        with pytest.raises(Buried, match=r"attempt 2, the last of 2: it ran longer than its limit of 0\.1 s"):
            await sender.call("wait", run_limit="100ms", max_attempts=2)
        await until(lambda: ended == ["started", "cancelled"] * 2)


class TestWhoDoesNotManage:
    async def test_no_manager_is_told_after_two_seconds(self, broker: Broker, unmanaged_queue: str) -> None:
        async with AsyncSender(unmanaged_queue, address=broker.address) as sender:
            start = time.monotonic()
            outcomes = await asyncio.gather(
                sender.call("f", timeout="60s"),
                sender.submit("f"),
                sender.send("f"),
                (await sender.submit("f", wait=False)).result(),
                return_exceptions=True,
            )
            assert 1.9 <= time.monotonic() - start < 4
            assert all(isinstance(outcome, NoManager) for outcome in outcomes)

    async def test_no_daemon(self, tmp_path: Any) -> None:
        sender = AsyncSender("q", address=f"unix:{tmp_path}/nobody")
        for _ in range(2):
            with pytest.raises(CannotConnectError):
                await sender.start()
        await sender.close()

    async def test_one_that_is_not_started_says_so(self) -> None:
        sender = AsyncSender("q")
        with pytest.raises(UsageError, match="is not started"):
            await sender.call("f")
        await sender.close()


class TestLimits:
    @pytest.fixture
    def policy(self) -> Policy:
        return Policy(queue_limit=5, sender_limit=3)

    async def test_a_full_queue_rejects_and_says_whose_limit_it_is(
        self, sender: AsyncSender, broker: Broker
    ) -> None:
        for _ in range(3):
            await sender.send("f")
        with pytest.raises(Rejected, match="3 tasks of this sender"):
            await sender.send("f")
        async with AsyncSender(sender.queue, address=broker.address) as other:
            for _ in range(2):
                await other.submit("f")
            for request in (other.call("f"), other.send("f"), other.submit("f")):
                with pytest.raises(Rejected, match="the queue holds 5 tasks"):
                    await request

    async def test_unresolved_requests(self, broker: Broker, queue: str) -> None:
        policy = Policy(open_limit=10)
        async with AsyncSender(queue, address=broker.address, policy=policy) as sender:
            handles = [await sender.submit("f", wait=False) for _ in range(10)]
            with pytest.raises(UsageError, match="10 requests are not resolved yet"):
                await sender.submit("f", wait=False)
            for handle in handles[3:]:
                with pytest.raises(Rejected):
                    await handle.result()
            await sender.submit("f", wait=False)

    def test_the_default_is_a_hundred_thousand(self) -> None:
        assert Policy().open_limit == 100_000

    async def test_a_payload_too_large(self, sender: AsyncSender) -> None:
        with pytest.raises(UsageError, match=r"140005 bytes.*140000"):
            await sender.call("f", bytes(140_000))
        with pytest.raises(BadPayload):
            await sender.call("f", {1, object()})


class TestLife:
    async def test_whoever_waits_when_it_is_closed_is_told(self, broker: Broker, queue: str) -> None:
        sender = await AsyncSender(queue, address=broker.address).start()
        handle = await sender.submit("f")
        waiting = [asyncio.create_task(handle.result()), asyncio.create_task(sender.call("f"))]
        await asyncio.sleep(0)
        await sender.close()
        for task in waiting:
            with pytest.raises(Cancelled, match="the sender was closed"):
                await task
        await sender.close()

    async def test_closing_may_be_given_up(self, broker: Broker, unmanaged_queue: str) -> None:
        sender = await AsyncSender(unmanaged_queue, address=broker.address).start()
        await sender.submit("f", wait=False)  # which nobody will accept
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await sender.close()
        await sender._transport.wait_closed()
        assert not sender._transport.session

    async def test_a_closed_one_says_so(self, broker: Broker, queue: str) -> None:
        async with AsyncSender(queue, address=broker.address) as sender:
            pass
        with pytest.raises(UsageError, match="closed"):
            await sender.call("f")
        with pytest.raises(UsageError, match="closed"):
            await sender.start()

    async def test_what_is_submitted_is_accepted_before_it_closes(self, broker: Broker, queue: str) -> None:
        async with AsyncSender(queue, address=broker.address) as sender:
            for _ in range(100):
                await sender.send("f", wait=False)
        status = await broker.ask(queue)
        assert status["tasks"]["queued"] == 100

    @pytest.mark.parametrize("reply", [True, False])
    async def test_closing_takes_no_longer_than_the_acceptance(
        self, broker: Broker, queue: str, reply: bool
    ) -> None:
        sender = await AsyncSender(queue, address=broker.address).start()
        if reply:
            await sender.submit("f", wait=False)
        else:
            await sender.send("f", wait=False)
        start = time.monotonic()
        await sender.close()
        assert time.monotonic() - start < 1

    async def test_it_leaves_signals_alone(self, broker: Broker, queue: str, app: App) -> None:
        numbers = [
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGQUIT,
            signal.SIGHUP,
            signal.SIGUSR1,
            signal.SIGCHLD,
        ]
        before = [signal.getsignal(number) for number in numbers]

        @app.task
        async def f() -> int:
            return 1

        async with app.worker(), app:
            assert await f.call() == 1
            assert [signal.getsignal(number) for number in numbers] == before

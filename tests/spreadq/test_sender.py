"""The sender of plain code: no thread behind it, and at home in any event loop."""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from spreadq import (
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
    Sender,
    TaskError,
    TimedOut,
    UnknownCodec,
    UnknownFunction,
    UsageError,
    Worker,
)
from spreadq_core.ids import MILLISECOND
from tests.brokers import Broker, wait_until
from tests.spreadq.conftest import Serve

Respond = Callable[[Worker, Originator, Any], None]


@pytest.fixture
def sender(broker: Broker, queue: str) -> Iterator[Sender]:
    with Sender(queue, address=broker.address) as sender:
        yield sender


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Lets the jobs of `hold` end."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def served(worker: Worker, serve: Serve, gate: threading.Event) -> Worker:
    """A worker whose functions answer in all possible ways."""

    @worker.function
    def echo(worker: Worker, originator: Originator, value: Any) -> None:
        worker.respond(originator, value)

    @worker.function
    def count(worker: Worker, originator: Originator, value: int) -> None:
        for number in range(value):
            worker.respond(originator, number)

    @worker.function
    def hold(worker: Worker, originator: Originator, value: Any) -> None:
        assert gate.wait(20)
        worker.respond(originator, value)

    @worker.function
    def respond_and_hold(worker: Worker, originator: Originator, value: Any) -> None:
        worker.respond(originator, value)
        assert gate.wait(20)

    @worker.function
    def say_nothing(worker: Worker, originator: Originator, value: Any) -> None: ...

    @worker.function
    def respond_and_fail(worker: Worker, originator: Originator, value: Any) -> None:
        worker.respond(originator, value)
        raise ValueError(value)

    serve(worker, concurrency=2)
    return worker


@pytest.mark.usefixtures("served")
class TestReceive:
    def test_answers_come_in_the_order_in_which_tasks_end(
        self, sender: Sender, gate: threading.Event
    ) -> None:
        sender.submit("hold", "slow")
        sender.submit("echo", "quick")
        assert sender.receive(timeout=5) == "quick"
        gate.set()
        assert sender.receive(timeout="5s") == "slow"

    def test_each_of_several_responses_is_given(self, sender: Sender) -> None:
        sender.submit("count", 3)
        assert [sender.receive(timeout=5) for _ in range(3)] == [0, 1, 2]

    def test_it_gives_up_at_once_where_nothing_is_open(self, sender: Sender) -> None:
        with pytest.raises(TimedOut, match="nothing that was submitted is open"):
            sender.receive(timeout=60)
        sender.submit("echo", 1)
        assert sender.receive(timeout=5) == 1
        with pytest.raises(TimedOut, match="nothing"):
            sender.receive()

    def test_it_gives_up_when_the_last_open_task_ends_without_a_further_answer(
        self, sender: Sender, gate: threading.Event
    ) -> None:
        sender.submit("respond_and_hold", 1)
        assert sender.receive() == 1
        threading.Timer(0.05, gate.set).start()
        with pytest.raises(TimedOut, match="nothing that was submitted is open"):
            sender.receive(timeout=60)

    def test_it_gives_up_in_time(self, sender: Sender) -> None:
        sender.submit("hold")
        start = time.monotonic()
        with pytest.raises(TimedOut, match="no response in 50ms"):
            sender.receive(timeout="50ms")
        assert 0.05 <= time.monotonic() - start < 2

    @pytest.mark.parametrize("timeout", ["5", "soon", 0, -1, float("nan"), float("inf")])
    def test_impossible_timeouts_are_refused(self, sender: Sender, timeout: Any) -> None:
        sender.submit("hold")
        with pytest.raises(UsageError, match="duration"):
            sender.receive(timeout=timeout)

    def test_failures_are_raised_in_their_turn(self, sender: Sender) -> None:
        sender.submit("respond_and_fail", "x")
        assert sender.receive(timeout=5) == "x"
        with pytest.raises(RemoteError, match="ValueError: x"):
            sender.receive(timeout=5)
        sender.submit("say_nothing")
        with pytest.raises(NoResponse, match="ended without a response"):
            sender.receive(timeout=5)
        sender.submit("echo", 1)
        assert sender.receive(timeout=5) == 1

    def test_one_way_tasks_give_nothing(self, sender: Sender) -> None:
        sender.submit("echo", "one-way", reply=False)
        sender.submit("echo", "with reply")
        assert sender.receive(timeout=5) == "with reply"
        with pytest.raises(TimedOut):
            sender.receive(timeout="20ms")

    def test_what_a_handle_is_asked_for_does_not_come_twice(self, sender: Sender) -> None:
        first, second = sender.submit("echo", 1), sender.submit("echo", 2)
        assert second.result(timeout=5) == 2
        assert sender.receive(timeout=5) == 1
        with pytest.raises(TimedOut):
            sender.receive(timeout="20ms")
        assert first.result() == 1


@pytest.mark.usefixtures("served")
class TestHandle:
    def test_the_wait_ends_but_not_the_task(self, sender: Sender, gate: threading.Event) -> None:
        handle = sender.submit("hold", "late")
        with pytest.raises(TimedOut, match="not done yet after 50ms") as caught:
            handle.result(timeout="50ms")
        assert caught.value.id == handle.id
        with pytest.raises(TimedOut):
            handle.result(timeout=timedelta(milliseconds=10))
        gate.set()
        assert handle.result(timeout=5) == "late"

    def test_without_waiting_it_is_there_at_once(self, sender: Sender, gate: threading.Event) -> None:
        handles = [sender.submit("echo", number, wait=False) for number in range(20)]
        assert [handle.result(timeout=5) for handle in reversed(handles)] == [*reversed(range(20))]

    def test_ids_are_in_order_and_of_this_sender(self, sender: Sender) -> None:
        ids = [sender.submit("echo", number).id for number in range(3)]
        assert [task.counter for task in ids] == [1, 2, 3]
        assert len({task.sender for task in ids}) == 1

    def test_its_own_codec_comes_back(self, broker: Broker, queue: str) -> None:
        for codec, value in (
            ("json", {"a": [1]}),
            ("yaml", {"a": b"\0"}),
            ("raw", b"\0"),
            ("msgpack", b"\0"),
        ):
            with Sender(queue, address=broker.address, codec=codec) as sender:
                assert sender.rpc("echo", value, timeout=5) == value


@pytest.mark.usefixtures("served")
class TestRpc:
    def test_the_first_response_is_the_answer(self, sender: Sender) -> None:
        assert sender.rpc("count", 3) == 0
        assert sender.rpc("respond_and_fail", "x") == "x"
        assert sender.rpc("echo", 7) == 7
        with pytest.raises(TimedOut):
            sender.receive(timeout="20ms")

    def test_it_does_not_take_the_answers_of_others(self, sender: Sender) -> None:
        sender.submit("echo", "submitted")
        assert sender.rpc("echo", "called") == "called"
        assert sender.receive(timeout=5) == "submitted"

    def test_a_function_that_says_nothing(self, sender: Sender) -> None:
        with pytest.raises(NoResponse):
            sender.rpc("say_nothing")

    def test_a_function_that_nobody_serves(self, sender: Sender) -> None:
        with pytest.raises(UnknownFunction, match="no worker served its function"):
            sender.rpc("nothing", timeout="100ms")

    def test_a_timeout_travels_with_the_task(
        self, sender: Sender, broker: Broker, gate: threading.Event
    ) -> None:
        for _ in range(2):
            sender.submit("hold", reply=False)
        done: list[Any] = []
        with pytest.raises(TimedOut, match="not done in"):
            sender.rpc("echo", "never run", timeout="100ms")
        gate.set()
        assert sender.rpc("echo", "run") == "run"
        assert not done
        tasks = broker.status(sender.queue)["tasks"]
        assert (tasks["done"], tasks["open"]) == (3, 0)
        with pytest.raises(TimedOut, match="nothing"):
            sender.receive()

    def test_an_interrupted_call_is_abandoned(self, sender: Sender, broker: Broker) -> None:
        class EnoughError(Exception):
            pass

        calls = 0

        def interrupted(*_: object) -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise EnoughError
            dispatch(None if calls < 2 else 0.05)

        dispatch = sender._host.dispatch
        sender._host.dispatch = interrupted  # type: ignore[method-assign]  # as a signal handler would
        with pytest.raises(EnoughError):
            sender.rpc("hold")
        sender._host.dispatch = dispatch  # type: ignore[method-assign]
        wait_until(lambda: sender.dispatch() or broker.status(sender.queue)["tasks"]["open"] == 0)


class TestWhoDoesNotManage:
    def test_no_manager_is_told_after_two_seconds(self, broker: Broker, unmanaged_queue: str) -> None:
        with Sender(unmanaged_queue, address=broker.address) as sender:
            start = time.monotonic()
            with pytest.raises(NoManager, match=f"nobody manages queue {unmanaged_queue}; start `sqm"):
                sender.rpc("echo", timeout="60s")
            assert 1.9 <= time.monotonic() - start < 4

    @pytest.mark.parametrize("reply", [True, False])
    def test_so_it_is_for_what_is_submitted(self, broker: Broker, unmanaged_queue: str, reply: bool) -> None:
        policy = Policy(manager_wait=100 * MILLISECOND)
        with Sender(unmanaged_queue, address=broker.address, policy=policy) as sender:
            with pytest.raises(NoManager):
                sender.submit("echo", reply=reply)
            with pytest.raises(TimedOut, match="nothing"):
                sender.receive()
            handle = sender.submit("echo", wait=False)
            with pytest.raises(NoManager):
                handle.result()
            sender.submit("echo", wait=False)
            with pytest.raises(NoManager):
                sender.receive()

    def test_a_manager_that_comes_in_time_is_found(
        self, broker: Broker, unmanaged_queue: str, serve: Serve, worker: Worker
    ) -> None:
        with Sender(unmanaged_queue, address=broker.address) as sender:
            handle = sender.submit("echo", wait=False)
            with pytest.raises(TimedOut):
                handle.result(timeout="50ms")
            manager = broker.manage(unmanaged_queue)
            sender.submit("echo")
            assert broker.status(unmanaged_queue)["tasks"]["queued"] == 2
            broker.stop_manager(manager)

    def test_no_daemon(self, tmp_path: Any) -> None:
        sender = Sender("q", address=f"unix:{tmp_path}/nobody")
        for _ in range(2):
            with pytest.raises(CannotConnectError, match="nobody"):
                sender.rpc("echo")
        sender.close()

    def test_nothing_of_a_daemon_is_needed_to_make_one(self) -> None:
        assert Sender("q", address="9@127.0.0.1").fileno() == -1


class TestLimits:
    @pytest.fixture
    def policy(self) -> Policy:
        return Policy(queue_limit=3, payload_limit=1000)

    def test_a_full_queue_rejects(self, sender: Sender, broker: Broker) -> None:
        for _ in range(3):
            sender.submit("f", reply=False)
        for reply in (True, False):
            with pytest.raises(Rejected, match="the queue holds 3 tasks, which is its limit"):
                sender.submit("f", reply=reply)
        with pytest.raises(Rejected):
            sender.rpc("f")
        with pytest.raises(Rejected):
            sender.submit("f", wait=False).result()
        sender.submit("f", wait=False)
        with pytest.raises(Rejected):
            sender.receive()
        tasks = broker.status(sender.queue)["tasks"]
        assert (tasks["queued"], tasks["rejected"]) == (3, 5)

    def test_a_payload_is_refused_by_the_sender(self, broker: Broker, queue: str) -> None:
        with Sender(queue, address=broker.address, codec="raw") as sender:
            with pytest.raises(UsageError, match=r"140001 bytes.*140000"):
                sender.rpc("f", bytes(140_001))
            with pytest.raises(UsageError, match=r"140001 bytes.*140000"):
                sender.submit("f", bytes(100_000), headers=bytes(40_001))

    def test_a_payload_that_only_the_manager_finds_too_large_is_rejected(
        self, broker: Broker, queue: str
    ) -> None:
        with Sender(queue, address=broker.address, codec="raw") as sender:
            sender.submit("f", bytes(1000), reply=False)
            with pytest.raises(Rejected, match="1001 bytes, 1000 at most"):
                sender.submit("f", bytes(1001))

    def test_the_largest_payload_goes_through(self, broker: Broker, unmanaged_queue: str) -> None:
        manager = broker.manage(unmanaged_queue)
        with Sender(unmanaged_queue, address=broker.address, codec="raw") as sender:
            sender.submit("f" * 255, bytes(100_000), headers=bytes(40_000), reply=False)
        broker.stop_manager(manager)

    @pytest.mark.parametrize("limit", [5, 100_000])
    def test_unresolved_requests(self, broker: Broker, queue: str, limit: int) -> None:
        policy = Policy(open_limit=limit)
        limit = min(limit, 500)
        with Sender(queue, address=broker.address, policy=policy) as sender:
            for _ in range(3):  # as many as the queue takes
                sender.submit("f")
            for _ in range(limit - 3):
                sender.submit("f", wait=False)
            with pytest.raises(UsageError, match=f"{limit} requests are not resolved yet"):
                sender.submit("f", wait=False)
            for _ in range(limit - 3):
                with pytest.raises(Rejected):
                    sender.receive(timeout=5)
            sender.submit("f", wait=False)

    @pytest.mark.parametrize("name", ["f" * 256, "\N{SNOWMAN}" * 86, "\udcff"])
    def test_function_names(self, sender: Sender, name: str) -> None:
        with pytest.raises(UsageError, match="function"):
            sender.submit(name, reply=False)

    @pytest.mark.parametrize(
        ("queue", "message"),
        [
            ("q" * 29, "29 characters, 28 at most"),
            ("a b", "only the printable ASCII characters"),
            ("a#b", "only the printable ASCII characters"),
            ("ä", "only the printable ASCII characters"),
            ("a\0", "only the printable ASCII characters"),
        ],
    )
    def test_queue_names(self, queue: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            Sender(queue)
        with pytest.raises(UsageError, match=message):
            Worker(queue).callbacks(f=print).worker()

    @pytest.mark.parametrize("address", ["", "localhost", "4803@", "http://x", "unix:relative", "99999@x"])
    def test_addresses(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPREADQ_DAEMON", "nonsense")
        with pytest.raises(UsageError, match="is not the address of a Spread daemon"):
            Sender("q", address=address)

    def test_codecs(self) -> None:
        with pytest.raises(UnknownCodec, match="'pickle' is unknown"):
            Sender("q", codec="pickle")

    def test_values(self, sender: Sender) -> None:
        with pytest.raises(BadPayload):
            sender.submit("f", object())
        nested: list[Any] = []
        for _ in range(100_000):
            nested = [nested]
        with pytest.raises(BadPayload):
            sender.submit("f", nested)

    @pytest.mark.parametrize(
        "options",
        [
            {"priority": 10},
            {"timeout": 5},
            {"expiry": "5"},
            {"max_attempts": 0.5},
            {"max_attempts": 1001},
            {"run_limit": "4000d"},
            {"expiry": 1e300},
        ],
    )
    def test_options(self, sender: Sender, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError):
            sender.submit("f", **options)


class TestOutcomes:
    def test_a_job_over_its_limit_is_buried_with_the_reason(
        self, sender: Sender, served: Worker, gate: threading.Event
    ) -> None:
        with pytest.raises(Buried, match=r"attempt 1, the last of 1: it ran longer than its limit of 0\.1 s"):
            sender.rpc("hold", run_limit="100ms", max_attempts=1)
        assert sender.rpc("echo", 1) == 1  # the other thread goes on

    def test_what_is_past_its_expiry_is_not_run(self, sender: Sender, worker: Worker, serve: Serve) -> None:
        ran = []
        worker.callbacks(note=lambda worker, originator, value: ran.append(value))
        handle = sender.submit("note", "late", expiry="50ms")
        with pytest.raises(TaskError, match="not done"):
            handle.result(timeout=5)
        serve(worker)
        with pytest.raises(NoResponse):
            sender.rpc("note", "in time")
        assert ran == ["in time"]

    def test_urgent_tasks_come_first_others_in_order(
        self, sender: Sender, worker: Worker, serve: Serve
    ) -> None:
        ran: list[int] = []
        worker.callbacks(note=lambda worker, originator, value: ran.append(value))
        for value, priority in enumerate([0, 5, 0, 9, 5, 0]):
            sender.submit("note", value, priority=priority, reply=False)
        serve(worker)
        with pytest.raises(NoResponse):
            sender.rpc("note", 6)
        assert ran == [3, 1, 4, 0, 2, 5, 6]


class TestClose:
    def test_what_is_submitted_is_accepted_before(self, broker: Broker, queue: str) -> None:
        sender = Sender(queue, address=broker.address)
        for _ in range(100):
            sender.submit("f", reply=False, wait=False)
        sender.close()
        assert broker.status(queue)["tasks"]["accepted"] == 100
        assert broker.status(queue)["senders"] == 1

    def test_whoever_still_has_a_handle_is_told(self, broker: Broker, queue: str) -> None:
        with Sender(queue, address=broker.address) as sender:
            handle = sender.submit("f")
        with pytest.raises(Cancelled, match="the sender was closed"):
            handle.result()

    def test_a_closed_one_says_so(self, broker: Broker, queue: str) -> None:
        sender = Sender(queue, address=broker.address)
        sender.close()
        sender.close()
        for use in (lambda: sender.submit("f"), lambda: sender.rpc("f"), sender.connect, sender.dispatch):
            with pytest.raises(UsageError, match="closed"):
                use()

    def test_without_a_manager_it_does_not_take_long(self, broker: Broker, unmanaged_queue: str) -> None:
        policy = Policy(farewell=200 * MILLISECOND)
        sender = Sender(unmanaged_queue, address=broker.address, policy=policy)
        sender.submit("f", reply=False, wait=False)
        start = time.monotonic()
        sender.close()
        assert time.monotonic() - start < 2


@pytest.mark.usefixtures("served")
class TestForeignEventLoops:
    def test_a_selectors_loop(self, sender: Sender, gate: threading.Event) -> None:
        """As a program would that has a loop of its own, over the sender's documented interface alone."""
        handles = [sender.submit("echo" if n else "hold", n, wait=False) for n in range(200)]
        done: set[int] = set()
        with selectors.DefaultSelector() as selector:
            watched = -1
            end = time.monotonic() + 20
            while len(done) < len(handles):
                assert time.monotonic() < end
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if sender.wants_write else 0)
                if watched != sender.fileno():
                    watched = sender.fileno()
                    selector.register(watched, events)
                selector.modify(watched, events)
                selector.select(sender.timeout)
                sender.dispatch()
                for number, handle in enumerate(handles):
                    if number not in done and is_done(handle):
                        assert handle.result() == number
                        done.add(number)
                if len(done) == len(handles) - 1:
                    gate.set()

    async def test_asyncio(self, sender: Sender) -> None:
        loop = asyncio.get_running_loop()
        answers: list[Any] = []
        all_there = asyncio.Event()

        def ready() -> None:
            sender.dispatch()
            for handle in list(handles):
                if is_done(handle):
                    handles.remove(handle)
                    answers.append(handle.result())
            if not handles:
                all_there.set()

        handles = [sender.submit("echo", number, wait=False) for number in range(50)]
        loop.add_reader(sender.fileno(), ready)
        async with asyncio.timeout(20):
            await all_there.wait()
        loop.remove_reader(sender.fileno())
        assert sorted(answers) == [*range(50)]

    def test_its_timeout_says_when_it_has_something_to_do(self, sender: Sender) -> None:
        sender.submit("hold", expiry="300ms")
        assert sender.timeout is not None
        assert 0 <= sender.timeout <= 0.3
        assert not sender.wants_write


def is_done(handle: Any) -> bool:
    try:
        handle.result(timeout=1e-9)
    except TimedOut:
        return False
    return True

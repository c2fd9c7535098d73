"""Workers in the shape of Spread::Queue: callbacks that answer explicitly."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from spreadq import (
    BadPayload,
    NoResponse,
    Originator,
    Policy,
    RemoteError,
    Sender,
    TaskId,
    UsageError,
    Worker,
)
from tests.brokers import Broker
from tests.spreadq.conftest import Serve


@pytest.fixture
def sender(broker: Broker, queue: str) -> Iterator[Sender]:
    with Sender(queue, address=broker.address) as sender:
        yield sender


class TestCallbacks:
    def test_they_are_served_under_the_names_of_their_keywords(
        self, worker: Worker, serve: Serve, sender: Sender
    ) -> None:
        def one(worker: Worker, originator: Originator, value: Any) -> None:
            worker.respond(originator, ["one", value])

        async def two(worker: Worker, originator: Originator, value: Any) -> None:
            await asyncio.sleep(0)
            worker.respond(originator, ["two", value])

        assert worker.callbacks(first=one, second=two) is worker
        serve(worker)
        assert sender.rpc("first", {"a": 1}) == ["one", {"a": 1}]
        assert sender.rpc("second") == ["two", None]

    def test_decorated_ones_are_served_under_their_own_names_or_others(
        self, worker: Worker, serve: Serve, sender: Sender
    ) -> None:
        @worker.function
        def plain(worker: Worker, originator: Originator, value: Any) -> None:
            worker.respond(originator, "plain")

        @worker.function(name="of another name")
        def named(worker: Worker, originator: Originator, value: Any) -> None:
            worker.respond(originator, "named")

        assert plain.__name__ == "plain"
        serve(worker)
        assert sender.rpc("plain") == "plain"
        assert sender.rpc("of another name") == "named"

    def test_two_cannot_have_one_name(self, worker: Worker) -> None:
        worker.callbacks(f=print)
        with pytest.raises(UsageError, match="there is a callback for 'f' already"):
            worker.callbacks(f=print)
        with pytest.raises(UsageError, match="already"):
            worker.function(name="f")(print)

    def test_without_any_there_is_nothing_to_serve(self, worker: Worker) -> None:
        with pytest.raises(UsageError, match="needs a function"):
            worker.run()

    def test_what_they_return_is_no_answer(self, worker: Worker, serve: Serve, sender: Sender) -> None:
        worker.callbacks(f=lambda worker, originator, value: "returned")
        serve(worker)
        with pytest.raises(NoResponse):
            sender.rpc("f")

    def test_what_they_raise_is(self, worker: Worker, serve: Serve, sender: Sender) -> None:
        @worker.function
        def fail(worker: Worker, originator: Originator, value: Any) -> None:
            raise LookupError(value)

        serve(worker)
        with pytest.raises(RemoteError, match="LookupError: x"):
            sender.rpc("fail", "x")


class TestOriginator:
    def test_it_knows_the_task(self, worker: Worker, serve: Serve, sender: Sender) -> None:
        seen: list[tuple[TaskId, int, bytes]] = []

        @worker.function
        def note(worker: Worker, originator: Originator, value: Any) -> None:
            seen.append((originator.task, originator.attempt, originator.headers))
            worker.respond(originator)

        serve(worker)
        handle = sender.submit("note", headers=b"traceparent: \xff")
        assert handle.result(timeout=5) is None
        assert seen == [(handle.id, 1, b"traceparent: \xff")]


class TestRespond:
    def test_from_another_thread(self, worker: Worker, serve: Serve, sender: Sender) -> None:
        @worker.function
        def delegate(worker: Worker, originator: Originator, value: Any) -> None:
            thread = threading.Thread(target=worker.respond, args=(originator, "from there"))
            thread.start()
            thread.join()

        serve(worker)
        assert sender.rpc("delegate") == "from there"

    def test_to_a_one_way_task_is_for_nobody(self, worker: Worker, serve: Serve, sender: Sender) -> None:
        @worker.function
        def echo(worker: Worker, originator: Originator, value: Any) -> None:
            worker.respond(originator, value)

        serve(worker)
        sender.submit("echo", 1, reply=False)
        assert sender.rpc("echo", 2) == 2

    def test_when_the_job_is_over_it_is_too_late(self, worker: Worker, serve: Serve, sender: Sender) -> None:
        kept: list[Originator] = []

        @worker.function
        def keep(worker: Worker, originator: Originator, value: Any) -> None:
            kept.append(originator)
            worker.respond(originator, "in time")

        serve(worker)
        handle = sender.submit("keep")
        assert handle.result(timeout=5) == "in time"
        worker.respond(kept[0], "too late")
        assert sender.rpc("keep") == "in time"

    @pytest.mark.parametrize(
        ("value", "message"), [(object(), "cannot be encoded"), (b"x" * 140_000, "140005")]
    )
    def test_impossible_values_are_refused_where_they_are(
        self, worker: Worker, serve: Serve, sender: Sender, value: Any, message: str
    ) -> None:
        @worker.function
        def respond(worker: Worker, originator: Originator, _: Any) -> None:
            with pytest.raises(BadPayload, match=message):
                worker.respond(originator, value)
            worker.respond(originator, "refused")

        serve(worker)
        assert sender.rpc("respond") == "refused"

    def test_without_a_running_worker_there_is_nobody_to_answer(self, worker: Worker) -> None:
        with pytest.raises(UsageError, match="the worker does not run"):
            worker.respond(Originator(None), 1)  # type: ignore[arg-type]


class TestNames:
    def test_the_queue_may_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SPREAD_QUEUE_NAME", raising=False)
        monkeypatch.setenv("SPREAD_QUEUE", "old")
        assert (Worker().queue, Sender().queue) == ("old", "old")
        monkeypatch.setenv("SPREAD_QUEUE_NAME", "new")
        assert (Worker().queue, Sender().queue) == ("new", "new")
        assert (Worker("given").queue, Sender("given").queue) == ("given", "given")

    def test_without_one_it_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SPREAD_QUEUE_NAME", raising=False)
        monkeypatch.delenv("SPREAD_QUEUE", raising=False)
        for role in (Worker, Sender):
            with pytest.raises(UsageError, match="which queue"):
                role()

    def test_all_settings_of_a_worker_can_be_replaced(self, broker: Broker, queue: str, serve: Serve) -> None:
        worker = Worker("another", address="9@nowhere", concurrency=2, name="one", policy=Policy(lease=1))
        worker.callbacks(f=print)
        serve(worker, queue=queue, address=broker.address, concurrency=3, name="two", policy=Policy())
        (shown,) = broker.status(queue)["workers"]
        assert (shown["name"], shown["capacity"]) == ("two", 3)

"""The state of a queue, asked from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time

import pytest

from spreadq import App, Buried, CannotConnectError, NoManager, RemoteError, UsageError
from spreadq.status import ask_status
from tests.brokers import Background, Broker
from tests.spreadq.conftest import Serve


def test_an_empty_queue(broker: Broker, queue: str) -> None:
    status = broker.status(queue)
    assert status["queue"] == queue
    assert status["tasks"] == dict.fromkeys(
        [
            "accepted",
            "queued",
            "running",
            "open",
            "done",
            "failed",
            "buried",
            "expired",
            "cancelled",
            "rejected",
            "reassigned",
        ],
        0,
    )
    manager = status["manager"]
    assert (manager["host"], manager["pid"], manager["epoch"]) == (socket.gethostname(), os.getpid(), 1)
    assert manager["durability"] == "memory"
    assert 0 <= manager["uptime_s"] < 20
    assert int(manager["instance"], 16) > 0
    assert (status["oldest_age_s"], status["unserved"], status["workers"]) == (0, {}, [])


def test_all_that_can_become_of_a_task_is_counted(app: App, broker: Broker, serve: Serve, queue: str) -> None:
    gate = threading.Event()

    @app.task
    def work() -> None: ...

    @app.task
    def fail() -> None:
        raise ValueError

    @app.task(run_limit="50ms", max_attempts=2)
    async def hang() -> None:
        await asyncio.Event().wait()

    @app.task
    def hold() -> None:
        gate.wait(20)

    @app.task(timeout="100ms")
    def late() -> None: ...

    @app.task
    def elsewhere() -> None: ...

    del app.tasks["elsewhere"]
    serve(app, name="w")
    for task in (work, work, work, fail, hang):
        with contextlib.suppress(RemoteError, Buried):
            task.call_sync()  # type: ignore[operator]
    hold.send_sync()
    hold.send_sync()
    elsewhere.send_sync()
    with pytest.raises(TimeoutError):
        late.call_sync()
    status = broker.wait_for(queue, lambda status: status if status["tasks"]["open"] == 3 else None)
    tasks = status["tasks"]
    expected = {
        "accepted": 9,
        "queued": 2,
        "running": 1,
        "done": 3,
        "failed": 1,
        "buried": 1,
        "reassigned": 1,
    }
    assert {name: tasks[name] for name in expected} == expected
    assert status["unserved"] == {"elsewhere": 1}
    assert 0 < status["oldest_age_s"] < 20
    (worker,) = status["workers"]
    assert (worker["name"], worker["state"], worker["capacity"], worker["running"]) == ("w", "working", 1, 1)
    assert (worker["host"], worker["pid"], worker["idle_s"]) == (socket.gethostname(), os.getpid(), 0)
    assert worker["done"] == 6  # jobs, of which one task had two
    gate.set()
    app.close_sync()


def test_idle_time_and_age_are_measured(app: App, broker: Broker, serve: Serve, queue: str) -> None:
    app.task(name="f")(lambda: None)
    serve(app)
    app.tasks["f"].call_sync()
    app.sender().submit("elsewhere", reply=False)
    before = time.monotonic()
    first = broker.status(queue)
    later = broker.wait_for(queue, lambda status: status if status["workers"][0]["idle_s"] >= 0.2 else None)
    passed = time.monotonic() - before
    grown = later["oldest_age_s"] - first["oldest_age_s"]
    assert 0 < grown <= passed + 0.05
    assert 0 < later["workers"][0]["idle_s"] - first["workers"][0]["idle_s"] <= passed + 0.05
    app.close_sync()


def test_a_long_report_travels_in_parts(app: App, broker: Broker, queue: str) -> None:
    for number in range(100):
        app.task(name=f"a function with a rather long name, number {number}")(print)
    with Background() as background:
        workers = [background.start_worker(app.worker) for _ in range(20)]
        broker.wait_for_workers(queue, 20)
        status = broker.status(queue)
        assert len(status["workers"][0]["functions"]) == 100
        for worker in workers:
            background.stop_worker(worker)


def test_nobody_manages(broker: Broker, unmanaged_queue: str) -> None:
    start = time.monotonic()
    with pytest.raises(NoManager, match=f"start `sqm {unmanaged_queue}`"):
        broker.status(unmanaged_queue)
    assert 1.9 < time.monotonic() - start < 4


def test_no_daemon(broker: Broker) -> None:
    with pytest.raises(CannotConnectError):
        ask_status("q", f"{broker.address}-not-there")


@pytest.mark.parametrize("queue", ["", "a b", "q" * 29])
def test_illegal_names(broker: Broker, queue: str) -> None:
    with pytest.raises(UsageError, match="queue"):
        ask_status(queue, broker.address)

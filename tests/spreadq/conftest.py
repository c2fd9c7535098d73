"""A broker for all tests of a process, a queue for each test, and workers that serve it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spreadq import App, AsyncWorker, Policy, Worker
from spreadq_core.policy import DEFAULT
from tests.brokers import Background, Broker, broker, unmanaged_queue

__all__ = ["broker", "unmanaged_queue"]


@pytest.fixture
def policy() -> Policy:
    """Of the test's manager; test modules replace it."""
    return DEFAULT


@pytest.fixture
def queue(broker: Broker, unmanaged_queue: str, policy: Policy) -> Iterator[str]:
    """A queue with a manager."""
    manager = broker.manage(unmanaged_queue, policy)
    yield unmanaged_queue
    broker.stop_manager(manager)


@pytest.fixture
def app(broker: Broker, queue: str) -> App:
    """An app of that queue, without tasks."""
    return App(queue, address=broker.address)


@pytest.fixture
def worker(broker: Broker, queue: str) -> Worker:
    """A worker in the old shape, without callbacks."""
    return Worker(queue, address=broker.address)


Serve = Callable[..., AsyncWorker]


@pytest.fixture
def serve(broker: Broker, queue: str) -> Iterator[Serve]:
    """Have an app or a worker served, on an event loop in a thread; keywords as for their `worker`."""
    running: list[tuple[Background, AsyncWorker]] = []

    def serve(what: App | Worker, **options: object) -> AsyncWorker:
        background = Background()
        background.__enter__()
        worker = background.start_worker(lambda: what.worker(**options))  # type: ignore[arg-type]
        running.append((background, worker))
        broker.wait_for_workers(queue, len(running))
        return worker

    yield serve
    for background, worker in running:
        background.call(worker.stop)
        background.call(worker.stop)  # the second time is at once
        background.run(worker.wait())
        background.__exit__()


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test ends with a defect in the log."""
    yield
    defects = [record for record in caplog.get_records("call") if record.levelno >= logging.CRITICAL]
    assert not defects, defects[0].getMessage()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """An empty directory."""
    return tmp_path

"""`spreadq status`: a queue's state, for people or programs."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from spreadq import Sender
from spreadq.programs.status import show
from tests.brokers import Background, Broker
from tests.programs import sample_tasks
from tests.programs.conftest import NOWHERE, Spreadq, assert_unreachable


@pytest.fixture
def busy(broker: Broker, queue: str) -> Iterator[str]:
    """A queue where something was done, something failed, and something waits in vain."""
    with Background() as background:
        make = partial(sample_tasks.app.worker, queue=queue, address=broker.address, name="bee")
        worker = background.start_worker(make)
        with Sender(queue, address=broker.address) as sender:
            sender.rpc("add", [1, 2])
            sender.submit("fail", ["on purpose"], reply=False)
            sender.submit("later", reply=False)
            sender.rpc("add", [1, 2])
            yield queue
        background.stop_worker(worker)


class TestJson:
    def test_it_is_one_document_with_the_keys_that_programs_rely_on(
        self, spreadq: Spreadq, broker: Broker, busy: str
    ) -> None:
        ended = spreadq("status", busy, "--json", "--spread", broker.address)
        assert (ended.status, ended.errors) == (0, "")
        document = json.loads(ended.output)
        assert document["queue"] == busy
        assert document["manager"].keys() >= {"name", "host", "pid", "instance", "epoch", "uptime_s"}
        tasks = document["tasks"]
        names = ("queued", "running", "done", "failed", "buried", "reassigned")
        assert [tasks[name] for name in names] == [1, 0, 2, 1, 0, 0]
        assert document["oldest_age_s"] > 0
        assert document["unserved"] == {"later": 1}
        (worker,) = document["workers"]
        assert worker["idle_s"] > 0
        assert {
            name: worker[name] for name in ("name", "host", "pid", "state", "capacity", "running", "done")
        } == {
            "name": "bee",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "state": "available",
            "capacity": 1,
            "running": 0,
            "done": 3,
        }
        assert int(worker["instance"], 16)

    def test_the_queue_may_come_from_the_environment(
        self, spreadq: Spreadq, broker: Broker, queue: str
    ) -> None:
        ended = spreadq("status", "--json", SPREADQ_DAEMON=broker.address, SPREAD_QUEUE_NAME=queue)
        assert json.loads(ended.output)["queue"] == queue


class TestForPeople:
    def test_it_says_what_is_going_on(self, spreadq: Spreadq, broker: Broker, busy: str) -> None:
        ended = spreadq("status", busy, SPREADQ_DAEMON=broker.address)
        assert (ended.status, ended.errors) == (0, "")
        first, counts, *more = ended.output.splitlines()
        assert first.startswith(f"{busy}  managed by manager-")
        assert f"(process {os.getpid()} on {socket.gethostname()})" in first
        assert "queued 1  running 0  done 2  failed 1  buried 0" in counts
        assert any(line.startswith("the oldest waits since 0.") for line in more)
        assert "1 wait for a worker that serves 'later'; none is here" in more
        assert any(
            line.split()[:4] == ["bee", socket.gethostname(), str(os.getpid()), "available"] for line in more
        )

    def test_an_idle_queue(self, spreadq: Spreadq, broker: Broker, queue: str) -> None:
        output = spreadq("status", queue, SPREADQ_DAEMON=broker.address).output
        assert output.splitlines()[-1] == "no workers"
        assert "oldest" not in output

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [(0.04, "0.0 s"), (119.0, "119.0 s"), (120.0, "2 min"), (7200.0, "2 h"), (864000.0, "10 d")],
    )
    def test_ages_have_a_unit(self, report: dict[str, Any], seconds: float, shown: str) -> None:
        report["tasks"]["queued"] = 1
        report["oldest_age_s"] = seconds
        assert f"the oldest waits since {shown}\n" in shown_to_people(report)

    def test_a_worker_is_idle_or_runs_something(self, report: dict[str, Any]) -> None:
        idle = {
            "name": "idle",
            "host": "h",
            "pid": 7,
            "state": "available",
            "running": 0,
            "capacity": 2,
            "idle_s": 7200.0,
            "done": 3,
            "functions": ["a", "b"],
        }
        report["workers"] = [
            idle,
            {**idle, "name": "busy", "running": 1, "state": "working", "functions": None},
        ]
        lines = shown_to_people(report).splitlines()[-3:]
        assert [line.split() for line in lines] == [
            ["worker", "host", "pid", "state", "running", "idle", "done", "functions"],
            ["idle", "h", "7", "available", "0/2", "2", "h", "3", "a", "b"],
            ["busy", "h", "7", "working", "1/2", "3", "all"],
        ]

    def test_names_are_no_markup(self, report: dict[str, Any]) -> None:
        name = "[/red]\\[bold]"
        report["queue"] = report["manager"]["name"] = report["manager"]["host"] = name
        worker = dict.fromkeys(("pid", "running", "capacity", "idle_s", "done"), 0)
        report["workers"] = [{**worker, "name": name, "host": name, "state": "working", "functions": [name]}]
        first, *_, last = shown_to_people(report).splitlines()
        assert first.startswith(f"{name}  managed by {name} (process {os.getpid()} on {name}) for ")
        assert [last.split()[column] for column in (0, 1, -1)] == [name] * 3

    @pytest.fixture
    def report(self, broker: Broker, queue: str) -> dict[str, Any]:
        """Of an idle queue."""
        return broker.status(queue)


def shown_to_people(report: dict[str, Any]) -> str:
    output = StringIO()
    show(report, Console(file=output, width=200))
    return output.getvalue()


def test_no_manager(spreadq: Spreadq, broker: Broker, unmanaged_queue: str) -> None:
    started = time.monotonic()
    ended = spreadq("status", unmanaged_queue, "--json", SPREADQ_DAEMON=broker.address)
    assert time.monotonic() - started < 4
    assert (ended.status, ended.output) == (1, "")
    assert ended.errors == (
        f"nobody manages queue {unmanaged_queue}; start `sqm {unmanaged_queue}` or "
        f"`spreadq serve {unmanaged_queue}`\n"
    )


def test_no_daemon(spreadq: Spreadq) -> None:
    assert_unreachable(spreadq("status", "q", SPREADQ_DAEMON=NOWHERE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which queue?"),
        (["a b"], "queue name 'a b'"),
        (["q" * 29], "28 at most"),
        (["one", "two"], "two"),
        (["q", "--spread", "nowhere"], "write 4803@host"),
    ],
)
def test_what_is_not_possible_is_refused(spreadq: Spreadq, arguments: list[str], message: str) -> None:
    ended = spreadq("status", *arguments, SPREADQ_DAEMON=NOWHERE)
    assert (ended.status, ended.output) == (2, "")
    assert message in ended.errors

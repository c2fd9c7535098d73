"""`spreadq worker`: what it serves, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import attrs
import pytest

from spreadq import Handle, Sender
from tests.brokers import TIMEOUT, Background, Broker, wait_until
from tests.programs import sample_tasks
from tests.programs.conftest import NOWHERE, TASKS, Program, Spreadq, Start, assert_unreachable

StartWorker = Callable[..., Program]


@pytest.fixture
def start_worker(start: Start, broker: Broker, queue: str) -> StartWorker:
    """Start `spreadq worker ARGUMENTS...` for the queue, and wait until it serves it."""

    def start_worker(*arguments: str, **more: str) -> Program:
        variables = {"SPREADQ_DAEMON": broker.address, "SPREAD_QUEUE_NAME": queue, **more}
        program = start("worker", *arguments, **variables)
        program.wait_for("welcomed")
        return program

    return start_worker


@pytest.fixture
def sender(broker: Broker, queue: str) -> Iterator[Sender]:
    with Sender(queue, address=broker.address) as sender:
        yield sender


@pytest.fixture
def start_another(broker: Broker, queue: str) -> Iterator[Callable[[], object]]:
    """Start another worker for the same tasks, in this process."""
    with Background() as background:
        make = partial(sample_tasks.app.worker, queue=queue, address=broker.address)
        workers = []
        yield lambda: workers.append(background.start_worker(make))
        for worker in workers:
            background.stop_worker(worker)


@attrs.frozen
class Held:
    """A task whose job runs until `release`."""

    handle: Handle[Any]
    started: Path
    gate: Path

    def runners(self) -> list[int]:
        """The processes that started it."""
        return [int(line) for line in self.started.read_text().splitlines()] if self.started.exists() else []

    def release(self) -> str:
        self.gate.touch()
        value: str = self.handle.result(TIMEOUT)
        return value


Hold = Callable[..., Held]


@pytest.fixture
def hold(sender: Sender, tmp_path: Path) -> Hold:
    """Submit such a task, and wait until it runs."""

    def hold(function: str = "hold") -> Held:
        started, gate = tmp_path / "started", tmp_path / "gate"
        held = Held(sender.submit(function, [str(started), str(gate)]), started, gate)
        wait_until(held.runners)
        return held

    return hold


def assert_runs_again(held: Held, start_another: Callable[[], object]) -> None:
    """The job was given back: the next worker runs it, at its second attempt."""
    assert len(held.runners()) == 1
    start_another()
    wait_until(lambda: len(held.runners()) == 2)
    assert held.release() == "held"


class TestTarget:
    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("missing", "module 'missing' cannot be imported: No module named 'missing'"),
            ("needs", "module 'needs' cannot be imported: No module named 'missing'"),
            (":app", "module ''"),
            (".two", "module '.two'"),
            ("two", "two has 2 Apps and Workers; write two:NAME"),
            ("two:c", "'two:c' is no App or Worker; write MODULE:NAME"),
            ("two:spreadq", "'two:spreadq' is no App or Worker"),
            ("nothing", "nothing has 0 Apps and Workers"),
            ("two:a", "a worker needs a function to serve"),
            ("two:b", "a worker needs a function to serve"),
        ],
    )
    def test_what_cannot_be_served_is_refused(
        self, spreadq: Spreadq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str
    ) -> None:
        Path(tmp_path, "two.py").write_text("import spreadq\na, b = spreadq.App('q'), spreadq.Worker('q')\n")
        Path(tmp_path, "nothing.py").touch()
        Path(tmp_path, "needs.py").write_text("import missing\n")
        monkeypatch.chdir(tmp_path)
        ended = spreadq("worker", target, SPREADQ_DAEMON=NOWHERE)
        assert (ended.status, ended.output) == (2, "")
        assert message in ended.errors

    @pytest.mark.parametrize(("module", "error"), [("1 / 0", "ZeroDivisionError"), ("x = =", "SyntaxError")])
    def test_an_error_in_the_module_is_shown_where_it_is(
        self, spreadq: Spreadq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, error: str
    ) -> None:
        name = f"raises_{error.lower()}"
        Path(tmp_path, f"{name}.py").write_text(module)
        monkeypatch.chdir(tmp_path)
        ended = spreadq("worker", f"{name}:app", SPREADQ_DAEMON=NOWHERE)
        assert ended.status == 2
        assert error in ended.errors
        assert f'{name}.py", line 1' in ended.errors

    @pytest.mark.parametrize("target", ["mine:app", "mine"])
    def test_an_app_in_this_directory(
        self, start_worker: StartWorker, sender: Sender, tmp_path: Path, target: str
    ) -> None:
        Path(tmp_path, "mine.py").write_text(
            dedent("""
                import spreadq

                app = spreadq.App()  # its queue is that of the environment

                @app.task
                def twice(number: int) -> int:
                    return 2 * number
            """)
        )
        start_worker(target)
        assert sender.rpc("twice", [21], timeout=TIMEOUT) == 42

    def test_a_worker_in_the_old_shape(
        self, start_worker: StartWorker, sender: Sender, tmp_path: Path
    ) -> None:
        Path(tmp_path, "old.py").write_text(
            dedent("""
                from spreadq import Worker

                def myfunc(worker, originator, input):
                    worker.respond(originator, {"response": input})

                worker = Worker("myqueue")  # an option goes before it
                worker.callbacks(myfunc=myfunc)
            """)
        )
        start_worker("old:worker", "--queue", sender.queue)
        assert sender.rpc("myfunc", {"name": "value"}, timeout=TIMEOUT) == {"response": {"name": "value"}}


class TestOptions:
    def test_they_show_in_the_status(self, start: Start, broker: Broker, queue: str, tmp_path: Path) -> None:
        program = start(
            *("worker", TASKS, "-Q", queue, "--spread", broker.address, "-c", "3", "--name", "bee"),
            SPREADQ_DAEMON=NOWHERE,
            SPREAD_QUEUE_NAME="another",
        )
        broker.wait_for_workers(queue, 1)
        (worker,) = broker.status(queue)["workers"]
        shown = {key: worker[key] for key in ("name", "pid", "host", "capacity", "state", "running", "done")}
        assert shown == {
            "name": "bee",
            "pid": program.process.pid,
            "host": socket.gethostname(),
            "capacity": 3,
            "state": "available",
            "running": 0,
            "done": 0,
        }
        assert worker["functions"] == sorted(sample_tasks.app.tasks)

    def test_so_many_jobs_run_at_a_time(
        self, start_worker: StartWorker, broker: Broker, sender: Sender, tmp_path: Path
    ) -> None:
        start_worker(TASKS, "--concurrency", "3")
        gate = str(tmp_path / "gate")
        functions = ("hold", "hold", "hold_on_the_loop", "hold_on_the_loop")
        handles = [
            sender.submit(function, [str(tmp_path / f"started-{number}"), gate])
            for number, function in enumerate(functions)
        ]
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 3)
        assert broker.status(sender.queue)["tasks"]["queued"] == 1
        Path(gate).touch()
        assert [handle.result(TIMEOUT) for handle in handles] == ["held"] * 4

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["-c", "0"], "0"),
            (["-c", "-1"], "-1"),
            (["-c", "10001"], "10000"),
            (["-c", "many"], "many"),
            (["--drain-timeout", "25"], "write a number with a unit"),
            (["--drain-timeout", "0s"], "must be positive"),
            (["--queue", "a b"], "queue name 'a b'"),
            (["--queue", "q" * 29], "28 at most"),
            (["--spread", "host:4803"], "write 4803@host"),
            (["--log-format", "xml"], "xml"),
            (["--bogus"], "--bogus"),
            (["another"], "another"),
        ],
    )
    def test_what_is_not_possible_is_refused(
        self, spreadq: Spreadq, options: list[str], message: str
    ) -> None:
        ended = spreadq("worker", TASKS, *options, SPREADQ_DAEMON=NOWHERE, SPREAD_QUEUE_NAME="q")
        assert (ended.status, ended.output) == (2, "")
        assert message in ended.errors
        assert "Traceback" not in ended.errors

    def test_no_target(self, spreadq: Spreadq) -> None:
        ended = spreadq("worker")
        assert (ended.status, ended.output) == (2, "")
        assert "target" in ended.errors


def test_no_daemon(spreadq: Spreadq) -> None:
    assert_unreachable(spreadq("worker", TASKS, "-Q", "q", "--spread", NOWHERE))


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_the_first_one_lets_running_jobs_end(
        self, start_worker: StartWorker, hold: Hold, sender: Sender, broker: Broker, number: signal.Signals
    ) -> None:
        program, held = start_worker(TASKS, "-c", "2"), hold()
        program.send(number)
        broker.wait_for(sender.queue, lambda status: status["workers"][0]["state"] == "draining")
        late = sender.submit("pid", [])
        assert held.release() == "held"
        ended = program.end()
        assert (ended.status, ended.output) == (0, "")
        assert "drained" in ended.errors
        assert held.runners() == [program.process.pid]
        assert broker.status(sender.queue)["tasks"]["queued"] == 1, f"it took {late.id}"

    def test_idle_it_ends_at_once(self, start_worker: StartWorker) -> None:
        assert start_worker(TASKS).stop().status == 0

    @pytest.mark.parametrize("function", ["hold", "hold_on_the_loop"])
    def test_jobs_that_do_not_end_in_time_are_given_back(
        self, start_worker: StartWorker, hold: Hold, start_another: Callable[[], object], function: str
    ) -> None:
        program, held = start_worker(TASKS, "--drain-timeout", "100ms"), hold(function)
        assert program.stop().status == 0
        assert_runs_again(held, start_another)

    def test_the_second_one_gives_running_jobs_back(
        self, start_worker: StartWorker, hold: Hold, start_another: Callable[[], object], broker: Broker
    ) -> None:
        program, held = start_worker(TASKS), hold()
        program.send(signal.SIGINT)
        broker.wait_for(held.handle._sender.queue, lambda status: status["workers"][0]["state"] == "draining")
        ended = program.stop(signal.SIGINT)
        assert ended.status == 1
        assert "told to stop at once" in ended.errors
        assert_runs_again(held, start_another)

    def test_quit_ends_it_at_once(
        self, start_worker: StartWorker, hold: Hold, start_another: Callable[[], object]
    ) -> None:
        program, held = start_worker(TASKS), hold()
        assert program.stop(signal.SIGQUIT).status == 1
        assert_runs_again(held, start_another)

    def test_usr1_shows_the_stacks_of_threads_and_tasks(
        self, start_worker: StartWorker, hold: Hold, sender: Sender, tmp_path: Path
    ) -> None:
        program, held = start_worker(TASKS, "-c", "3"), hold()
        on_the_loop = sender.submit("hold_on_the_loop", [str(tmp_path / "other"), str(held.gate)])
        wait_until((tmp_path / "other").exists)
        program.send(signal.SIGUSR1)
        program.wait_for(r'sample_tasks.py", line \d+ in hold\n')
        program.wait_for(r'sample_tasks.py", line \d+, in hold_on_the_loop\n')
        assert sender.rpc("pid", [], timeout=TIMEOUT) == program.process.pid
        assert held.release() == on_the_loop.result(TIMEOUT) == "held"

    def test_while_it_waits_for_a_daemon_it_ends_as_any_program(self, start: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(TIMEOUT)
            program = start("worker", TASKS, "-Q", "q", "--spread", f"{silent.getsockname()[1]}@127.0.0.1")
            connection, _ = silent.accept()
            with connection:
                assert program.stop().status == -signal.SIGTERM


class TestLogs:
    def test_json_lines_where_stderr_is_no_terminal(self, start_worker: StartWorker) -> None:
        errors = start_worker(TASKS).stop().errors
        lines = [json.loads(line) for line in errors.splitlines()]
        assert [line["event"] for line in lines] == ["welcomed", "drained"]
        assert all(line.keys() >= {"time", "level", "logger"} for line in lines)

    def test_for_people_where_it_is_asked_for(self, start_worker: StartWorker) -> None:
        errors = start_worker(TASKS, "--log-format", "human").stop().errors
        assert "INFO" in errors
        assert "welcomed" in errors
        assert "{" not in errors

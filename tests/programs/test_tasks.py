"""`spreadq submit` and `spreadq call`: tasks from the shell."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from spreadq import TaskId
from tests.brokers import TIMEOUT, Background, Broker, wait_until
from tests.programs import sample_tasks
from tests.programs.conftest import NOWHERE, Program, Spreadq, Start, assert_unreachable, environment


@pytest.fixture
def served(broker: Broker, queue: str) -> Iterator[str]:
    """A queue with a manager and a worker."""
    with Background() as background:
        make = partial(sample_tasks.app.worker, queue=queue, address=broker.address, concurrency=2)
        worker = background.start_worker(make)
        broker.wait_for_workers(queue, 1)
        yield queue
        background.call(worker.stop)
        background.stop_worker(worker)


@pytest.fixture
def call(spreadq: Spreadq, broker: Broker, served: str) -> Spreadq:
    return partial(spreadq, "call", SPREADQ_DAEMON=broker.address, SPREAD_QUEUE_NAME=served)


@pytest.fixture
def submit(spreadq: Spreadq, broker: Broker, served: str) -> Spreadq:
    return partial(spreadq, "submit", SPREADQ_DAEMON=broker.address, SPREAD_QUEUE_NAME=served)


class TestCall:
    @pytest.mark.parametrize(
        ("arguments", "printed"),
        [
            (["add", "[1, 2]"], 3),
            (["add", '{"b": 5, "a": 1}'], 6),
            (["add", "7"], 17),
            (["add", "[-7]"], 3),
            (["echo", '"é\\n"'], "é\n"),
            (["echo", '[{"a": [1, null, true, 0.5]}]'], {"a": [1, None, True, 0.5]}),
            (["echo", "null"], None),
        ],
    )
    def test_the_result_is_one_json_document_on_stdout(
        self, call: Spreadq, arguments: list[str], printed: object
    ) -> None:
        ended = call(*arguments)
        assert (ended.status, json.loads(ended.output), ended.errors) == (0, printed, "")
        assert ended.output.count("\n") == 1

    @pytest.mark.parametrize("codec", ["json", "msgpack", "yaml"])
    def test_codecs(self, call: Spreadq, codec: str) -> None:
        assert call("echo", '[{"é": 1}]', "--codec", codec).output == '{"\\u00e9": 1}\n'

    @pytest.mark.parametrize(
        ("result", "printed"),
        [("bytes", {"Zg==": "/w=="}), ("dates", ["2020-02-02", "2020-02-02T02:02:02Z"])],
    )
    def test_results_that_json_does_not_know(self, call: Spreadq, result: str, printed: object) -> None:
        assert json.loads(call("odd", json.dumps([result])).output) == printed

    def test_a_result_that_has_no_form_in_json(self, call: Spreadq) -> None:
        assert call("odd", '["nan"]').status == 1
        ended = call("odd", '["none"]')
        assert (ended.status, ended.output) == (1, "")
        assert ended.errors.startswith("the result has no form in JSON")

    def test_arguments_may_come_from_stdin(self, call: Spreadq, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("[1,\n 2]\n"))
        assert call("add", "-") == (0, "3\n", "")

    def test_a_negative_number_is_no_option(self, call: Spreadq) -> None:
        assert call("add", "-7") == (0, "3\n", "")

    def test_flags_go_before_the_environment(self, spreadq: Spreadq, broker: Broker, served: str) -> None:
        ended = spreadq(
            *("call", "add", "[1, 2]", "--queue", served, "--spread", broker.address),
            SPREADQ_DAEMON=NOWHERE,
            SPREAD_QUEUE_NAME="nobody",
        )
        assert ended == (0, "3\n", "")
        ended = spreadq("call", "add", "[1, 2]", "-Q", served, SPREADQ_DAEMON=broker.tcp_address)
        assert ended.output == "3\n"

    def test_the_old_name_of_the_queues_variable_is_read_too(
        self, spreadq: Spreadq, broker: Broker, served: str
    ) -> None:
        ended = spreadq("call", "add", "[1, 2]", SPREADQ_DAEMON=broker.address, SPREAD_QUEUE=served)
        assert ended.output == "3\n"

    def test_an_error_of_the_function_is_shown_with_its_traceback(self, call: Spreadq) -> None:
        ended = call("fail", '["on purpose"]')
        assert (ended.status, ended.output) == (1, "")
        assert ended.errors.startswith("ValueError: on purpose\nAt the worker:\nTraceback")
        assert "raise ValueError(message)" in ended.errors

    def test_a_wrong_argument_is_shown(self, call: Spreadq) -> None:
        ended = call("add", '["one"]')
        assert (ended.status, ended.output) == (1, "")
        assert "argument 'a' of add: Expected `int`, got `str`" in ended.errors

    def test_a_function_that_nobody_serves(self, call: Spreadq) -> None:
        ended = call("nothing", "--timeout", "100ms")
        assert (ended.status, ended.output) == (1, "")
        assert "no worker served its function" in ended.errors

    def test_a_timeout(self, call: Spreadq, tmp_path: Path) -> None:
        gate = tmp_path / "gate"
        ended = call("hold", json.dumps([str(tmp_path / "started"), str(gate)]), "--timeout", "200ms")
        gate.touch()
        assert (ended.status, ended.output) == (124, "")
        assert "not done" in ended.errors

    def test_no_manager(self, call: Spreadq) -> None:
        ended = call("add", "--queue", "nobody-here", "--timeout", "30s")
        assert (ended.status, ended.output) == (1, "")
        assert ended.errors == (
            "nobody manages queue nobody-here; start `sqm nobody-here` or `spreadq serve nobody-here`\n"
        )

    def test_no_daemon(self, call: Spreadq) -> None:
        assert_unreachable(call("add", "--spread", NOWHERE))

    def test_arguments_are_looked_at_before_a_daemon_is_looked_for(self, call: Spreadq) -> None:
        assert call("add", "[", "--spread", NOWHERE).status == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["add", "[1,"], "'[1,' is not valid JSON"),
            (["add", ""], "'' is not valid JSON"),
            (["add", "--bogus"], "'--bogus' is not valid JSON"),
            (["add", "x" * 1000], f"'{'x' * 60}' is not valid JSON"),
            ([], "function"),
            (["add", "[1]", "[2]"], "[2]"),
            (["add", "[1]", "--priority", "10"], "priority"),
            (["add", "[1]", "--priority", "high"], "priority"),
            (["add", "[1]", "--codec", "pickle"], "codec 'pickle' is unknown; known are"),
            (["add", "[1]", "--timeout", "5"], "write a number with a unit: 250ms, 30s"),
            (["add", "[1]", "--timeout", "0s"], "must be positive"),
            (["add", "[1]", "--queue", "a b"], "queue name 'a b'"),
            (["add", "[1]", "--queue", "q" * 29], "29 characters, 28 at most"),
            (["add", "[1]", "--spread", "nowhere"], "write 4803@host"),
            (["f" * 256, "[1]"], "255 bytes"),
            (["\udcff", "[1]"], "UTF-8"),
            (["echo", json.dumps("x" * 140_001)], "140000"),
            (["add", "[1]", "--bogus"], "bogus"),
            (["add", "[" * 100_000], "is not valid JSON"),
            (["add", "[1]", "--run-limit", "5"], "write a number with a unit"),
            (["add", "[1]", "--max-attempts", "0"], "max_attempts 0: 1 to 1000"),
        ],
    )
    def test_what_is_not_possible_is_refused(self, call: Spreadq, arguments: list[str], message: str) -> None:
        ended = call(*arguments)
        assert (ended.status, ended.output) == (2, "")
        assert message in ended.errors
        assert "Traceback" not in ended.errors

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["[1]", "--codec", "raw"], "the codec raw takes bytes, not list"),
            (['["\\ud800"]'], "cannot be encoded"),
        ],
    )
    def test_arguments_that_their_codec_cannot_take_fail(
        self, call: Spreadq, arguments: list[str], message: str
    ) -> None:
        ended = call("echo", *arguments)
        assert (ended.status, ended.output) == (1, "")
        assert message in ended.errors

    def test_without_a_queue_it_asks_for_one(self, spreadq: Spreadq) -> None:
        ended = spreadq("call", "add")
        assert (ended.status, ended.output) == (2, "")
        assert "which queue?" in ended.errors

    def test_interrupted_it_says_nothing(
        self, start: Start, broker: Broker, served: str, tmp_path: Path
    ) -> None:
        program = start_holding(start, broker, served, tmp_path)
        assert program.stop(signal.SIGINT) == (130, "", "")

    def test_what_was_interrupted_runs_no_longer(
        self, start: Start, broker: Broker, served: str, tmp_path: Path
    ) -> None:
        start_holding(start, broker, served, tmp_path).stop(signal.SIGINT)
        wait_until(lambda: broker.status(served)["tasks"]["running"] == 0)

    def test_through_a_pipe(self, broker: Broker, served: str) -> None:
        result = subprocess.run(
            [sys.executable, "-m", "spreadq", "call", "add", "-"],
            input="[20, 22]",
            capture_output=True,
            text=True,
            env=environment(SPREADQ_DAEMON=broker.address, SPREAD_QUEUE_NAME=served),
            timeout=TIMEOUT,
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "42\n", "")

    def test_stdin_that_is_no_utf8_is_refused(self) -> None:
        result = subprocess.run(
            [sys.executable, "-m", "spreadq", "call", "add", "-"],
            input=b'["\xff"]',
            capture_output=True,
            env=environment(SPREAD_QUEUE_NAME="q", PYTHONIOENCODING="utf-8"),
            timeout=TIMEOUT,
        )
        assert (result.returncode, result.stdout) == (2, b"")
        assert result.stderr.startswith(b"stdin is not valid JSON:")


def start_holding(start: Start, broker: Broker, queue: str, scratch: Path) -> Program:
    """Start a call whose job runs on."""
    started = scratch / "started"
    program = start(
        *("call", "hold_on_the_loop", json.dumps([str(started), str(scratch / "gate")])),
        *("-Q", queue, "--spread", broker.address),
    )
    wait_until(started.exists)
    return program


class TestSubmit:
    def test_it_prints_the_id_when_the_task_is_accepted(
        self, submit: Spreadq, broker: Broker, served: str, tmp_path: Path
    ) -> None:
        (tmp_path / "gate").touch()
        ended = submit("hold", json.dumps([str(tmp_path / "started"), str(tmp_path / "gate")]))
        assert (ended.status, ended.errors) == (0, "")
        assert str(TaskId.parse(ended.output.strip())) == ended.output.strip()
        wait_until((tmp_path / "started").exists)
        broker.wait_for(served, lambda status: status["tasks"]["done"] == 1)

    def test_arguments_may_come_from_stdin(
        self, submit: Spreadq, broker: Broker, served: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("[1, 2]"))
        assert submit("add", "-").status == 0
        broker.wait_for(served, lambda status: status["tasks"]["done"] == 1)

    def test_nobody_need_serve_it_yet(self, submit: Spreadq, broker: Broker, served: str) -> None:
        assert submit("later", "--priority", "9").status == 0
        assert broker.status(served)["unserved"] == {"later": 1}

    def test_no_manager(self, submit: Spreadq) -> None:
        ended = submit("add", "--queue", "nobody-here")
        assert (ended.status, ended.output) == (1, "")
        assert "start `sqm nobody-here`" in ended.errors

    def test_no_daemon(self, submit: Spreadq) -> None:
        assert_unreachable(submit("add", "--spread", NOWHERE))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["add", "{"], "'{' is not valid JSON"),
            (["add", "--priority", "-1"], "priority"),
            (["add", "[1]", "--timeout", "5s"], "--timeout"),
        ],
    )
    def test_what_is_not_possible_is_refused(
        self, submit: Spreadq, arguments: list[str], message: str
    ) -> None:
        ended = submit(*arguments)
        assert (ended.status, ended.output) == (2, "")
        assert message in ended.errors

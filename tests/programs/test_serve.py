"""`spreadq serve`, `spreadq manager`, `spreadq daemon` and `sqm`: the broker, whole or in parts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from spreadq import Sender, TaskId
from spreadq.errors import NoManager
from spreadq.programs import cli
from spreadq.status import ask_status
from tests.brokers import TIMEOUT, Broker
from tests.programs.conftest import NOWHERE, Ended, Program, Spreadq, Start, assert_unreachable
from transports.base import CannotConnectError
from transports.spread.blocking_client import BlockingSpread

SQM = ("-c", "from spreadq.programs.cli import sqm_main; sqm_main()")


@pytest.fixture
def start_manager(start: Start, broker: Broker, tmp_path: Path) -> Callable[..., Program]:
    """Start `spreadq manager QUEUE...`, and wait until it manages all of them."""

    def start_manager(*queues: str, **more: str) -> Program:
        program = start("manager", *queues, "--state", str(tmp_path), SPREADQ_DAEMON=broker.address, **more)
        wait_until_managed(broker.address, *queues)
        return program

    return start_manager


def wait_until_managed(address: str, *queues: str) -> list[dict[str, Any]]:
    """What `spreadq status` shows of them."""
    return [managed(address, queue) for queue in queues]


def managed(address: str, queue: str, attempts: int = 10) -> dict[str, Any]:
    """A manager's answer; each attempt waits for two seconds."""
    for attempt in range(attempts):
        try:
            return ask_status(queue, address)
        except NoManager:
            if attempt == attempts - 1:
                raise
    raise AssertionError


def submit(address: str, queue: str, count: int) -> list[TaskId]:
    """Tasks that nobody serves; they are accepted."""
    with Sender(queue, address=address) as sender:
        return [sender.submit("later", number, reply=False).id for number in range(count)]


def events(ended: Ended) -> list[dict[str, Any]]:
    """What it logged."""
    return [json.loads(line) for line in ended.errors.splitlines()]


class TestSqm:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_manages_a_queue_until_it_is_told_to_stop(
        self, start: Start, broker: Broker, unmanaged_queue: str, number: signal.Signals
    ) -> None:
        program = start(unmanaged_queue, "--spread", broker.address, command=SQM)
        manager = managed(broker.address, unmanaged_queue)["manager"]
        assert (manager["pid"], manager["host"]) == (program.process.pid, socket.gethostname())
        ended = program.stop(number)
        assert (ended.status, ended.output) == (0, "")
        assert {line["level"] for line in events(ended)} == {"info"}
        with pytest.raises(NoManager):
            ask_status(unmanaged_queue, broker.address)

    @pytest.mark.parametrize("variable", ["SPREAD_QUEUE_NAME", "SPREAD_QUEUE"])
    def test_its_queue_may_come_from_the_environment(
        self, start: Start, broker: Broker, unmanaged_queue: str, variable: str
    ) -> None:
        program = start(command=SQM, SPREADQ_DAEMON=broker.address, **{variable: unmanaged_queue})
        assert managed(broker.address, unmanaged_queue)["manager"]["pid"] == program.process.pid

    def test_in_detail(self, start: Start, broker: Broker, unmanaged_queue: str) -> None:
        program = start(unmanaged_queue, "-v", "--spread", broker.address, command=SQM)
        managed(broker.address, unmanaged_queue)
        submit(broker.address, unmanaged_queue, 1)
        assert {line["level"] for line in events(program.stop())} == {"info", "debug"}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "which queue?"),
            (["one", "two"], "two"),
            (["a b"], "queue name 'a b'"),
            (["é"], "queue name 'é'"),
            (["a#b"], "queue name 'a#b'"),
            (["q" * 29], "28 at most"),
            (["q", "--bogus"], "--bogus"),
            (["q", "--spread", "4803:host"], "write 4803@host"),
        ],
    )
    def test_what_is_not_possible_is_refused(
        self, spreadq: Spreadq, tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        ended = spreadq(*arguments, "--state", str(tmp_path), program=cli.sqm_main, SPREADQ_DAEMON=NOWHERE)
        assert (ended.status, ended.output) == (2, "")
        assert message in ended.errors

    def test_no_daemon(self, spreadq: Spreadq, tmp_path: Path) -> None:
        arguments = ("q", "--spread", NOWHERE, "--state", str(tmp_path))
        assert_unreachable(spreadq(*arguments, program=cli.sqm_main))


class TestManager:
    def test_several_queues_in_one_process(
        self, start_manager: Callable[..., Program], broker: Broker, unmanaged_queue: str
    ) -> None:
        queues = [f"{unmanaged_queue}-{letter}" for letter in "abc"]
        program = start_manager(*queues, queues[0])
        reports = wait_until_managed(broker.address, *queues)
        assert [report["queue"] for report in reports] == queues
        assert {report["manager"]["pid"] for report in reports} == {program.process.pid}
        ended = program.stop()
        assert ended.status == 0
        assert all(f"queue {queue}: 0 tasks kept" in ended.errors for queue in queues)

    def test_a_second_one_ends_and_names_the_first_which_goes_on(
        self, start_manager: Callable[..., Program], start: Start, broker: Broker, unmanaged_queue: str
    ) -> None:
        first = start_manager(unmanaged_queue)
        second = start("manager", unmanaged_queue, "--spread", broker.address)
        ended = second.end()
        assert (ended.status, ended.output) == (4, "")
        assert f"queue {unmanaged_queue} is managed by" in ended.errors
        assert f"process {first.process.pid} on {socket.gethostname()}" in ended.errors
        report = managed(broker.address, unmanaged_queue)
        assert (report["manager"]["pid"], report["manager"]["epoch"]) == (first.process.pid, 1)

    def test_when_one_of_its_queues_is_taken_it_leaves_the_others_in_an_orderly_way(
        self, start_manager: Callable[..., Program], start: Start, broker: Broker, unmanaged_queue: str
    ) -> None:
        free = f"{unmanaged_queue}-free"
        start_manager(unmanaged_queue)
        ended = start("manager", free, unmanaged_queue, SPREADQ_DAEMON=broker.address).end()
        assert ended.status == 4
        assert f"queue {free}: 0 tasks kept" in ended.errors

    def test_quit_ends_it_at_once(
        self, start_manager: Callable[..., Program], tmp_path: Path, unmanaged_queue: str
    ) -> None:
        assert start_manager(unmanaged_queue).stop(signal.SIGQUIT).status == 1
        assert not (tmp_path / unmanaged_queue / "snapshot").exists()

    def test_usr1_shows_what_it_does(
        self, start_manager: Callable[..., Program], broker: Broker, unmanaged_queue: str
    ) -> None:
        program = start_manager(unmanaged_queue)
        program.send(signal.SIGUSR1)
        program.wait_for(r"in dump_stacks\n")
        program.wait_for(r"in _keep_connected\n")
        assert managed(broker.address, unmanaged_queue)["manager"]["pid"] == program.process.pid

    def test_several_signals_are_one(
        self, start_manager: Callable[..., Program], broker: Broker, unmanaged_queue: str, tmp_path: Path
    ) -> None:
        program = start_manager(unmanaged_queue)
        submit(broker.address, unmanaged_queue, 3)
        program.send(signal.SIGTERM)
        ended = program.stop(signal.SIGINT)
        assert ended.status == 0
        assert f"3 tasks kept in {tmp_path / unmanaged_queue / 'snapshot'}" in ended.errors

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_told_to_stop_while_it_waits_for_a_daemon_it_does(
        self, start: Start, number: signal.Signals
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.settimeout(TIMEOUT)
            program = start("manager", "q", "--spread", f"{silent.getsockname()[1]}@127.0.0.1")
            connection, _ = silent.accept()
            with connection:
                assert program.stop(number).status == 0

    def test_no_daemon(self, spreadq: Spreadq, tmp_path: Path) -> None:
        assert_unreachable(spreadq("manager", "q", "--spread", NOWHERE, "--state", str(tmp_path)))


class TestState:
    def test_what_was_accepted_is_there_after_a_restart(
        self, start_manager: Callable[..., Program], broker: Broker, unmanaged_queue: str
    ) -> None:
        program = start_manager(unmanaged_queue)
        submit(broker.address, unmanaged_queue, 3)
        assert program.stop().status == 0
        start_manager(unmanaged_queue)
        report = managed(broker.address, unmanaged_queue)
        assert report["tasks"]["queued"] == 3
        assert report["unserved"] == {"later": 3}
        assert report["manager"]["epoch"] == 2

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda content: content[:-1], "it is torn or damaged"),
            (lambda content: content[:20], "it does not begin as a snapshot does"),
            (lambda _: b"", "it does not begin as a snapshot does"),
            (
                lambda content: re.sub(rb'"queue":"[^"]*"', b'"queue":"other"', content),
                "it is of queue 'other'",
            ),
        ],
        ids=["torn", "torn early", "empty", "foreign"],
    )
    def test_a_snapshot_that_is_not_whole_or_not_ours_is_refused_by_name_and_set_aside(
        self,
        start_manager: Callable[..., Program],
        broker: Broker,
        unmanaged_queue: str,
        tmp_path: Path,
        change: Callable[[bytes], bytes],
        reason: str,
    ) -> None:
        program = start_manager(unmanaged_queue)
        submit(broker.address, unmanaged_queue, 3)
        program.stop()
        snapshot = tmp_path / unmanaged_queue / "snapshot"
        changed = change(snapshot.read_bytes())
        snapshot.write_bytes(changed)
        program = start_manager(unmanaged_queue)
        assert managed(broker.address, unmanaged_queue)["tasks"]["queued"] == 0
        error = program.wait_for(r".*refused.*")
        assert f"{snapshot} is refused: {reason}" in json.loads(error)["event"]
        assert (snapshot.parent / "snapshot.refused-1").read_bytes() == changed

    @pytest.mark.parametrize("command", ["manager", "serve"])
    def test_a_directory_that_cannot_be_made_is_refused(
        self, spreadq: Spreadq, broker: Broker, tmp_path: Path, command: str
    ) -> None:
        (tmp_path / "file").touch()
        where = ["--spread", broker.address] if command == "manager" else ["--port", "0"]
        ended = spreadq(command, "q", *where, "--state", str(tmp_path / "file"))
        assert (ended.status, ended.output) == (2, "")
        assert f"the state directory {tmp_path / 'file' / 'q'} cannot be made" in ended.errors

    def test_a_directory_that_cannot_be_written_is_refused(
        self, spreadq: Spreadq, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)  # the tests' user may be root
        ended = spreadq("manager", "q", "--spread", broker.address, "--state", str(tmp_path))
        assert (ended.status, ended.output) == (2, "")
        assert f"{tmp_path / 'q'} cannot be written; name another by --state" in ended.errors

    def test_without_one_it_is_in_the_users_own(
        self, start: Start, broker: Broker, unmanaged_queue: str, tmp_path: Path
    ) -> None:
        program = start("manager", unmanaged_queue, SPREADQ_DAEMON=broker.tcp_address)
        managed(broker.address, unmanaged_queue)
        program.stop()
        daemon = broker.tcp_address.replace("127.0.0.1", "localhost")
        directory = tmp_path / "state-home" / "spreadq" / daemon / unmanaged_queue
        assert {file.name for file in directory.iterdir()} == {"epoch", "snapshot"}
        assert directory.stat().st_mode & 0o077 == 0


class TestServe:
    def test_daemon_and_managers_in_one_process(
        self, start: Start, tmp_path: Path, unmanaged_queue: str
    ) -> None:
        queues = [f"{unmanaged_queue}-{letter}" for letter in "ab"]
        path = tmp_path / "socket"
        program = start("serve", *queues, "--port", "0", "--unix", str(path), "--state", str(tmp_path))
        address = program.wait_for(r"[0-9]+@127\.0\.0\.1")
        for where in (address, f"unix:{path}"):
            for report in wait_until_managed(where, *queues):
                assert report["manager"]["pid"] == program.process.pid
        submit(address, queues[0], 2)
        ended = program.stop()
        assert (ended.status, ended.output) == (0, "")
        assert f"queue {queues[0]}: 2 tasks kept" in ended.errors
        assert not path.exists()

        start("serve", *queues, "--port", "0", "--unix", str(path), "--state", str(tmp_path)).wait_for(
            "took_over"
        )
        assert managed(f"unix:{path}", queues[0])["tasks"]["queued"] == 2

    def test_quit_ends_it_at_once_and_the_next_one_takes_its_place(
        self, start: Start, tmp_path: Path
    ) -> None:
        arguments = (
            "serve",
            "q",
            "--port",
            "0",
            "--unix",
            str(tmp_path / "socket"),
            "--state",
            str(tmp_path),
        )
        program = start(*arguments)
        program.wait_for("took_over")
        assert program.stop(signal.SIGQUIT).status == 1
        assert (tmp_path / "socket").exists()
        start(*arguments).wait_for("took_over")
        assert managed(f"unix:{tmp_path / 'socket'}", "q")["manager"]["epoch"] == 2

    def test_it_needs_a_queue(self, spreadq: Spreadq) -> None:
        ended = spreadq("serve", "--port", "0")
        assert (ended.status, ended.output) == (2, "")
        assert "which queue?" in ended.errors

    def test_an_illegal_queue_is_refused(self, spreadq: Spreadq, tmp_path: Path) -> None:
        ended = spreadq("serve", "a b", "--port", "0", "--state", str(tmp_path / "state"))
        assert (ended.status, ended.output) == (2, "")
        assert "queue name 'a b'" in ended.errors
        assert not (tmp_path / "state").exists()


def can_connect(address: str) -> bool:
    client = BlockingSpread(address, membership=False)
    try:
        client.connect()
    except CannotConnectError:
        return False
    client.close()
    return True


class TestDaemon:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_takes_clients_until_it_is_told_to_stop(
        self, start: Start, tmp_path: Path, number: signal.Signals
    ) -> None:
        path = tmp_path / "socket"
        program = start("daemon", "--port", "0", "--unix", str(path))
        address = program.wait_for(r"[0-9]+@127\.0\.0\.1")
        assert can_connect(address)
        assert can_connect(f"unix:{path}")
        assert path.stat().st_mode & 0o777 == 0o600
        ended = program.stop(number)
        assert (ended.status, ended.output) == (0, "")
        assert not path.exists()
        assert not can_connect(address)

    @pytest.fixture
    def taken(self) -> Iterator[int]:
        """A port at which somebody listens."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield server.getsockname()[1]

    @pytest.mark.parametrize("command", [["daemon"], ["serve", "q"]])
    def test_a_port_that_is_taken(self, spreadq: Spreadq, taken: int, command: list[str]) -> None:
        ended = spreadq(*command, "--port", str(taken))
        assert (ended.status, ended.output) == (1, "")
        assert f"TCP port {taken} is in use; if a Spread daemon runs there, connect to it" in ended.errors

    def test_a_unix_socket_that_is_taken(self, spreadq: Spreadq, broker: Broker) -> None:
        ended = spreadq("daemon", "--port", "0", "--unix", broker.address.removeprefix("unix:"))
        assert (ended.status, ended.output) == (1, "")
        assert "is in use" in ended.errors
        assert can_connect(broker.address)

    @pytest.mark.parametrize("path", ["missing/socket", "s" * 120])
    def test_a_unix_socket_that_cannot_be(self, spreadq: Spreadq, tmp_path: Path, path: str) -> None:
        ended = spreadq("daemon", "--port", "0", "--unix", str(tmp_path / path))
        assert (ended.status, ended.output) == (1, "")
        assert "cannot listen on unix socket" in ended.errors

    def test_a_file_that_is_no_socket_is_left_alone(self, spreadq: Spreadq, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("gold")
        assert spreadq("daemon", "--port", "0", "--unix", str(tmp_path / "precious")).status == 1
        assert (tmp_path / "precious").read_text() == "gold"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--port", "65536"], "port 65536"),
            (["--port", "-1"], "-1"),
            (["--port", "many"], "many"),
            (["queue"], "queue"),
        ],
    )
    def test_what_is_not_possible_is_refused(
        self, spreadq: Spreadq, arguments: list[str], message: str
    ) -> None:
        ended = spreadq("daemon", *arguments)
        assert (ended.status, ended.output) == (2, "")
        assert message in ended.errors

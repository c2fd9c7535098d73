"""Every example in README, CHANGELOG and CONTRIBUTING is run, and what they say is so."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import spreadq
from spreadq import errors
from spreadq.programs import cli, runtime
from spreadq.sender import OPEN_LIMIT
from spreadq_core.policy import DEFAULT
from tests.brokers import TIMEOUT, Broker, broker, wait_until
from tests.programs.conftest import environment

__all__ = ["broker"]

ROOT = Path(__file__).parents[1]

DOCUMENTS = {name: (ROOT / name).read_text() for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")}

README = DOCUMENTS["README.md"]

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block(beginning: str) -> str:
    """The only example that begins so."""
    (found,) = [text for _, text in BLOCK.findall(README) if text.startswith(beginning)]
    text: str = found
    return text


INSTALL = block("pip install .\nspreadq demo\n")
TASKS = block("import spreadq\n\napp = ")
START = block("spreadq serve images\n")
CALL = block("$ spreadq call")
PROGRAM = block("import asyncio\n")
STATUS = block("$ spreadq status")
WORKER = block("from spreadq import Worker\n")
CLIENT = block("from spreadq import Sender\n")
REAL = block("export SPREADQ_DAEMON=4803@localhost\n")
MAP = block("spreadq_core/   decides.")


def test_no_example_is_forgotten() -> None:
    known = [INSTALL, TASKS, START, CALL, PROGRAM, STATUS, WORKER, CLIENT, REAL, MAP]
    assert [text for _, text in BLOCK.findall(README)] == known
    assert not any("```" in text for name, text in DOCUMENTS.items() if name != "README.md")


@attrs.define
class Shell:
    """A shell in which the commands are those of this tree."""

    directory: Path
    variables: dict[str, str]
    running: list[subprocess.Popen[bytes]] = attrs.Factory(list)

    def run(self, script: str) -> str:
        """What it prints; it must succeed."""
        result = subprocess.run(
            ["sh", "-euc", script],
            cwd=self.directory,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def start(self, command: str) -> None:
        """In the background."""
        name = f"{len(self.running)}.log"
        with (self.directory / name).open("wb") as log:
            program = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=self.directory,
                env=self.variables,
                stdout=log,
                stderr=log,
            )
        self.running.append(program)

    def wait_for(self, text: str) -> None:
        """Until one of those in the background says so."""
        logs = self.directory.glob
        wait_until(lambda: any(text in log.read_text() for log in logs("*.log")), text)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    for name, function in (("spreadq", "main"), ("sqm", "sqm_main"), ("python", "")):
        program = f"exec {sys.executable} "
        if function:
            program += f"-c 'from spreadq.programs.cli import {function}; {function}()' "
        (tmp_path / name).write_text(f'#!/bin/sh\n{program}"$@"\n')
        (tmp_path / name).chmod(0o755)
    variables = environment(XDG_STATE_HOME=str(tmp_path / "state"))
    shell = Shell(tmp_path, {**variables, "PATH": f"{tmp_path}:{variables['PATH']}"})
    yield shell
    for program in reversed(shell.running):
        program.terminate()
        program.wait(TIMEOUT)


def test_five_minutes(shell: Shell) -> None:
    (shell.directory / "tasks.py").write_text(TASKS)
    (shell.directory / "program.py").write_text(PROGRAM)
    shell.variables["SPREADQ_DAEMON"] = f"unix:{shell.directory / 'socket'}"  # for a machine with a daemon
    serve, worker = START.splitlines()
    shell.start(f"{serve} --port 0 --unix socket")
    shell.wait_for("took_over")
    shell.start(worker)
    shell.wait_for("welcomed")

    command, result = CALL.splitlines()
    assert shell.run(command.removeprefix("$ ")) == result + "\n"

    here, there, handle = shell.run("python program.py").splitlines()
    assert here == there == "a.png is 100 wide now"
    name, _, value = handle.partition(" ")
    assert str(spreadq.TaskId.parse(name)) == name
    assert value == "b.png is 200 wide now"

    wait_until(lambda: "done 4" in shell.run(STATUS.removeprefix("$ ")))


def test_in_the_shape_of_spread_queue(shell: Shell, broker: Broker) -> None:
    manager = broker.manage("myqueue")
    shell.variables["SPREADQ_DAEMON"] = broker.address
    (shell.directory / "worker.py").write_text(WORKER)
    (shell.directory / "client.py").write_text(CLIENT + "print(response)\n")
    shell.start("python worker.py")
    broker.wait_for_workers("myqueue", 1)
    assert shell.run("python client.py") == "{'response': 'I heard you!'}\n"
    broker.wait_for("myqueue", lambda status: status["tasks"]["done"] == 3)
    shell.running[0].send_signal(signal.SIGTERM)
    assert shell.running[0].wait(TIMEOUT) == 0
    broker.stop_manager(manager)


def test_on_a_daemon_that_is_there(shell: Shell, broker: Broker) -> None:
    (shell.directory / "tasks.py").write_text(TASKS)
    lines = REAL.replace("4803@localhost", broker.address).splitlines()
    export, sqm, worker, demo = lines
    shell.variables["SPREADQ_DAEMON"] = shell.run(f'{export}\nprintf %s "$SPREADQ_DAEMON"')
    for command in (sqm, worker):
        shell.start(command.removesuffix(" &"))
    shell.wait_for("took_over")
    shell.wait_for("welcomed")
    assert "lost = 0" in shell.run(demo)


# --- what the texts say ---------------------------------------------------------------------------


def test_commands_that_are_named_exist() -> None:
    named = {name for text in DOCUMENTS.values() for name in re.findall(r"`spreadq ([a-z]+)", text)}
    assert named == {"serve", "manager", "daemon", "worker", "submit", "call", "status", "demo"}
    assert named <= set(cli.app)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("worker", ["--concurrency", "--drain-timeout", "--spread"]),
        ("status", ["--json"]),
        ("demo", ["--spread"]),
    ],
)
def test_options_that_are_named_exist(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, options: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert all(option in README for option in options)
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    explained = capsys.readouterr().out
    assert all(f"{option} " in explained for option in options)


def test_targets_of_make_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {name for text in DOCUMENTS.values() for name in re.findall(r"make ([a-z]+)`", text)}
    assert named == {"bench", "check", "demo", "format", "test"}
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in named)


def test_files_and_directories_that_are_named_exist() -> None:
    texts = "\n".join(DOCUMENTS.values())
    named = {*re.findall(r"\]\(([^):]+)\)", texts), *re.findall(r"^(\w+/) ", MAP, re.MULTILINE)}
    named |= {name for name in re.findall(r"`([\w/]+(?:\.py|/))`", texts) if "/" in name}
    assert {"CONTRIBUTING.md", "CHANGELOG.md", "spreadq_core/", "spreadq_core/image.py"} <= named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_names_that_can_be_imported_can() -> None:
    named = set(re.findall(r"`spreadq\.(\w+)", "\n".join(DOCUMENTS.values())))
    assert named == {"App", "Policy"}
    assert named <= set(spreadq.__all__)


def test_limits_are_those_of_the_policy() -> None:
    table = re.search(r"\| limit \|.*?\n\n", README, re.DOTALL)
    assert table is not None
    rows = dict(
        tuple(cell.strip() for cell in line.strip("| ").split("|")[:2])
        for line in table[0].splitlines()[2:]
        if line
    )
    mebibytes = DEFAULT.outcome_bytes_limit // 2**20
    departed = DEFAULT.departed_keep // 10**9
    assert rows == {
        "payload and headers": f"{DEFAULT.payload_limit:,} bytes",
        "tasks in a queue": f"{DEFAULT.queue_limit:,}, of one sender {DEFAULT.sender_limit:,}",
        "unresolved requests of an `AsyncSender` / a `Sender`": f"{DEFAULT.open_limit:,} / {OPEN_LIMIT}",
        "outcomes that wait for their senders": f"{mebibytes} MiB, {departed} s after a sender is gone",
        "queue name": "28 characters from `$` to `~`",
        "function name": "255 bytes",
    }


def test_promises_name_the_defaults() -> None:
    assert f"`max_attempts` ({DEFAULT.max_attempts})" in README
    assert f"its lease ({DEFAULT.lease // 10**9} s)" in README


def test_exit_statuses_are_those_of_the_programs() -> None:
    statuses = (
        f"0 done, {runtime.FAILED} failed, {runtime.USAGE} usage, {runtime.UNREACHABLE} no Spread daemon, "
        f"4 another manager is there, 75 replaced by another manager, {runtime.TIMED_OUT} timeout"
    )
    assert statuses in " ".join(README.split())


def test_errors_that_are_named_exist() -> None:
    named = {name for name in re.findall(r"`([A-Z]\w+)`", README) if name.endswith(("Error", "Rejected"))}
    assert named == {"Rejected", "RemoteError", "UsageError"}
    assert all(hasattr(errors, name) for name in named)


def test_the_newest_changes_are_those_of_this_version() -> None:
    newest = re.search(r"^## (\S+)", DOCUMENTS["CHANGELOG.md"], re.MULTILINE)
    assert newest is not None
    assert f'version = "{newest[1]}"' in (ROOT / "pyproject.toml").read_text()

"""The commands `spreadq` and `sqm` as such."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys

import pytest

from spreadq.programs import cli
from tests.brokers import TIMEOUT, Broker
from tests.programs.conftest import Ended, Spreadq, environment

COMMANDS = ["call", "daemon", "demo", "manager", "serve", "status", "submit", "worker"]


def run_python(*arguments: str, **more: str) -> Ended:
    result = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment(**more), timeout=TIMEOUT
    )
    return Ended(result.returncode, result.stdout, result.stderr)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_it_lists_the_commands(spreadq: Spreadq, arguments: list[str]) -> None:
    ended = spreadq(*arguments)
    assert (ended.status, ended.errors) == (0, "")
    assert all(f" {command} " in ended.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_its_options(spreadq: Spreadq, command: str) -> None:
    ended = spreadq(command, "--help")
    assert (ended.status, ended.errors) == (0, "")
    assert f"Usage: spreadq {command}" in ended.output
    undocumented = [
        line for line in ended.output.splitlines() if line.startswith("│") and line.endswith("-- │")
    ]
    assert not undocumented


def test_so_does_sqm(spreadq: Spreadq) -> None:
    ended = spreadq("--help", program=cli.sqm_main)
    assert (ended.status, ended.errors) == (0, "")
    assert "Usage: sqm" in ended.output
    assert "QUEUE" in ended.output


@pytest.mark.parametrize("program", [cli.main, cli.sqm_main], ids=["spreadq", "sqm"])
def test_the_version_is_that_of_the_package(spreadq: Spreadq, program: object) -> None:
    assert spreadq("--version", program=program) == (0, importlib.metadata.version("spreadq") + "\n", "")


@pytest.mark.parametrize("arguments", [["serv"], ["--bogus"], ["status", "--bogus"], [""]])
def test_what_is_unknown_is_a_mistake_of_use(spreadq: Spreadq, arguments: list[str]) -> None:
    ended = spreadq(*arguments)
    assert (ended.status, ended.output) == (2, "")
    assert arguments[-1] in ended.errors


def test_as_a_module(broker: Broker) -> None:
    assert run_python("-m", "spreadq", "--version").output.strip() == importlib.metadata.version("spreadq")


def test_a_command_imports_no_other(broker: Broker) -> None:
    program = (
        "import sys; from spreadq.programs import cli\n"
        "try: cli.main(['submit', 'f', '{'])\n"
        "except SystemExit: print(*(name for name in sys.modules if name.startswith('spreadq.programs.')))"
    )
    imported = run_python("-c", program).output.split()
    assert "spreadq.programs.tasks" in imported
    assert not {f"spreadq.programs.{name}" for name in ("demo", "cluster", "serve", "worker", "status")} & {
        *imported
    }


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["status", "--json"], ["status"], ["submit", "f"], ["--help"]])
def test_nobody_reads(broker: Broker, queue: str, arguments: list[str], unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "spreadq", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(SPREADQ_DAEMON=broker.address, SPREAD_QUEUE_NAME=queue, PYTHONUNBUFFERED=unbuffered),
        timeout=TIMEOUT,
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")

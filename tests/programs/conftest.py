"""Commands: in this process where that tells all, else as programs of their own."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pytest

from spreadq.programs import cli
from tests.brokers import TIMEOUT, Broker, broker, unmanaged_queue, wait_until

__all__ = ["broker", "unmanaged_queue"]

ROOT = Path(__file__).parents[2]

TASKS = "tests.programs.sample_tasks"
"""Module of what the workers serve."""

NOWHERE = "9@127.0.0.1"
"""Address of no daemon."""


def environment(**more: str) -> dict[str, str]:
    """For programs: without settings of whoever runs the tests, and with the tests' own modules."""
    foreign = ("SPREAD", "XDG", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    return {**kept, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "200", **more}


class Ended(NamedTuple):
    """A command that is over."""

    status: int
    output: str
    errors: str


@attrs.define
class Program:
    """A command that runs."""

    process: subprocess.Popen[str]
    output_path: Path
    errors_path: Path

    @property
    def errors(self) -> str:
        return self.errors_path.read_text(errors="replace")

    def wait_for(self, text: str) -> str:
        """Wait until it says something on stderr that matches `text`, and give that."""

        def said() -> str | None:
            match = re.search(text, self.errors)
            assert match or self.process.poll() is None, f"it ended and said {self.errors}"
            return match and match[0]

        return wait_until(said, f"{text} in {self.errors_path}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Ended:
        """Wait until it is over."""
        status = self.process.wait(3 * TIMEOUT)  # the demo takes a while
        return Ended(status, self.output_path.read_text(errors="replace"), self.errors)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        self.send(number)
        return self.end()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `python -m spreadq ARGUMENTS...`; keywords are its environment."""
    programs: list[Program] = []

    def start(*arguments: str, command: tuple[str, ...] = ("-m", "spreadq"), **more: str) -> Program:
        paths = [tmp_path / f"{len(programs)}.{stream}" for stream in ("out", "err")]
        with paths[0].open("w") as output, paths[1].open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                text=True,
                env=environment(XDG_STATE_HOME=str(tmp_path / "state-home"), **more),
                cwd=tmp_path,
            )
        programs.append(Program(process, *paths))
        return programs[-1]

    yield start
    for program in programs:
        program.process.kill()
        program.process.wait()


@contextmanager
def logging_kept() -> Iterator[None]:
    """Undo what a program does to the loggers."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = [logging.NullHandler()]
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


Spreadq = Callable[..., Ended]


@pytest.fixture
def spreadq(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Spreadq:
    """Run `spreadq ARGUMENTS...` in this process; keywords are its environment."""

    def spreadq(*arguments: str, program: Callable[[Any], None] = cli.main, **more: str) -> Ended:
        settings = {"COLUMNS": "200", "XDG_STATE_HOME": str(tmp_path / "state-home")}
        with monkeypatch.context() as context:
            for name in list(os.environ):
                if name.startswith(("SPREAD", "XDG")):
                    context.delenv(name)
            for name, value in {**settings, **more}.items():
                context.setenv(name, value)
            context.setattr(sys, "path", [*sys.path])
            capsys.readouterr()
            with logging_kept(), pytest.raises(SystemExit) as ended:
                program(list(arguments))
            captured = capsys.readouterr()
        status = ended.value.code
        return Ended(0 if status is None else int(status), captured.out, captured.err)

    return spreadq


@pytest.fixture
def queue(broker: Broker, unmanaged_queue: str) -> Iterator[str]:
    """A queue with a manager."""
    manager = broker.manage(unmanaged_queue)
    yield unmanaged_queue
    broker.stop_manager(manager)


def assert_unreachable(ended: Ended) -> None:
    """It said that there is no daemon, and what to do."""
    assert (ended.status, ended.output) == (3, "")
    assert NOWHERE in ended.errors
    assert "spreadq serve QUEUE" in ended.errors
    assert "--spread or SPREADQ_DAEMON" in ended.errors

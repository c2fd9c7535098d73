"""What all programs share: the event loop, signals, logs, and how errors become exit statuses."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from spreadq import errors as q
from spreadq.errors import RemoteFailure
from spreadq.programs.runtime import (
    LogFormat,
    dump_stacks,
    exit_statuses,
    log_end,
    run,
    set_up_logging,
    stopping,
)
from spreadq_core.effects import Exit
from spreadq_core.errors import SpreadqError, UsageError
from tests.programs.conftest import logging_kept
from transports.base import CannotConnectError, ClosedError, ProtocolError

logger = logging.getLogger("spreadq")

REMOTE = RemoteFailure("ValueError", "no", "Traceback\nValueError: no\n")


class TestExitStatuses:
    @pytest.mark.parametrize(
        ("error", "status", "message"),
        [
            (q.RemoteError(REMOTE), 1, "ValueError: no\nAt the worker:\nTraceback\nValueError: no\n"),
            (q.Rejected("full"), 1, "full\n"),
            (q.Buried("three workers"), 1, "three workers\n"),
            (q.UnknownFunction("f"), 1, "f\n"),
            (q.NoResponse("none"), 1, "none\n"),
            (q.Cancelled("by request"), 1, "by request\n"),
            (q.NoManager("nobody"), 1, "nobody\n"),
            (q.BadPayload("odd"), 1, "odd\n"),
            (SpreadqError("other"), 1, "other\n"),
            (ProtocolError("no Spread"), 1, "no Spread\n"),
            (UsageError("wrong"), 2, "wrong\n"),
            (q.UnknownCodec("wrong"), 2, "wrong\n"),
            (ClosedError("wrong"), 2, "wrong\n"),
            (q.TimedOut("late"), 124, "late\n"),
            (KeyboardInterrupt(), 130, ""),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )
    def test_each_error_has_its_own(
        self, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, message: str
    ) -> None:
        with pytest.raises(SystemExit) as ended, exit_statuses():
            raise error
        assert ended.value.code == status
        assert capsys.readouterr() == ("", message)

    def test_without_a_daemon_it_says_what_to_start(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended, exit_statuses():
            raise CannotConnectError("nobody at 4803@localhost")
        assert ended.value.code == 3
        assert capsys.readouterr() == (
            "",
            "nobody at 4803@localhost\n"
            "Start the daemon of your ring, or for this machine alone `spreadq serve QUEUE`; name another "
            "address by --spread or SPREADQ_DAEMON (the default is 4803@localhost)\n",
        )

    def test_a_defect_is_not_hidden(self) -> None:
        with pytest.raises(ZeroDivisionError), exit_statuses():
            _ = 1 / 0

    def test_no_error_is_no_exit(self) -> None:
        with exit_statuses():
            pass


class TestLogEnd:
    @pytest.mark.parametrize(("status", "level"), [(0, "INFO"), (4, "ERROR"), (75, "ERROR")])
    def test_it_says_why_and_gives_the_status(
        self, caplog: pytest.LogCaptureFixture, status: int, level: str
    ) -> None:
        caplog.set_level(logging.INFO, "spreadq")
        assert log_end(Exit(status, "because")) == status
        assert [(record.levelname, record.message) for record in caplog.records] == [(level, "because")]


class TestRun:
    def test_on_uvloop_where_there_is_one(self) -> None:
        async def loop() -> str:
            return type(asyncio.get_running_loop()).__module__

        assert run(loop()) == "uvloop"

    def test_else_on_asyncio(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def loop() -> str:
            return type(asyncio.get_running_loop()).__module__

        monkeypatch.setitem(sys.modules, "uvloop", None)
        assert run(loop()).startswith("asyncio.")


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_signals_stop_every_time(self, number: signal.Signals) -> None:
        stopped: asyncio.Queue[int] = asyncio.Queue()
        with stopping(lambda: stopped.put_nowait(1)):
            for _ in range(2):
                os.kill(os.getpid(), number)
                await asyncio.wait_for(stopped.get(), 5)


async def test_stacks_of_tasks_are_shown_to_their_ends(capfd: pytest.CaptureFixture[str]) -> None:
    async def innermost() -> None:
        await asyncio.Event().wait()

    async def middle() -> None:
        await innermost()

    task = asyncio.create_task(middle(), name="sleeper")
    await asyncio.sleep(0)
    dump_stacks()
    task.cancel()
    errors = capfd.readouterr().err
    _, of_sleeper = errors.split("Task sleeper")
    assert of_sleeper.index("in middle") < of_sleeper.index("in innermost") < of_sleeper.index("in wait")
    assert "in dump_stacks" in errors


class TestLogging:
    @pytest.fixture(autouse=True)
    def kept(self) -> Iterator[None]:
        with logging_kept():
            yield

    def lines(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
        captured = capsys.readouterr()
        assert captured.out == ""
        return [json.loads(line) for line in captured.err.splitlines()]

    @pytest.mark.parametrize("log_format", ["auto", "json"])
    def test_an_object_a_line(self, capsys: pytest.CaptureFixture[str], log_format: LogFormat) -> None:
        set_up_logging(log_format, verbose=False)
        logger.info("%d workers\nare here", 2)
        (line,) = self.lines(capsys)
        assert line.pop("time")[4] == "-"
        assert line == {"level": "info", "logger": "spreadq", "event": "2 workers\nare here"}

    def test_notes_keep_their_fields(self, capsys: pytest.CaptureFixture[str]) -> None:
        set_up_logging("json", verbose=False)
        fields = {"worker": "05", "name": "bee", "other": object}
        logger.info("worker_entered worker=05", extra={"event": "worker_entered", "fields": fields})
        (line,) = self.lines(capsys)
        assert line["event"] == "worker_entered"
        assert (line["worker"], line["name"], line["other"]) == ("05", "bee", str(object))

    def test_tracebacks_stay_in_their_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        set_up_logging("json", verbose=False)
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            logger.exception("a defect")
        (line,) = self.lines(capsys)
        assert (line["level"], line["event"]) == ("error", "a defect")
        assert line["traceback"].endswith("ZeroDivisionError: division by zero\n")

    def test_details_only_where_they_are_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        for verbose in (False, True):
            set_up_logging("json", verbose=verbose)
            logger.debug("detail")
            assert len(self.lines(capsys)) == verbose

    def test_asyncio_does_not_join_in(self, capsys: pytest.CaptureFixture[str]) -> None:
        set_up_logging("json", verbose=True)
        logging.getLogger("asyncio").info("chatter")
        assert not self.lines(capsys)

    def test_for_people(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        set_up_logging("human", verbose=False)
        logger.warning("a [worker] is %s", "gone")
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.split()[2:] == ["WARNING", "a", "[worker]", "is", "gone"]

    def test_for_people_on_a_terminal(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        set_up_logging("auto", verbose=False)
        logger.info("hello")
        assert "INFO" in capsys.readouterr().err

"""What all programs share: the event loop, signals, logs, and how errors become exit statuses."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, TypeVar

from rich.console import Console
from rich.logging import RichHandler

from spreadq.errors import NoManager, TaskError, TimedOut
from spreadq_core.effects import Exit
from spreadq_core.errors import SpreadqError, UsageError
from transports.base import CannotConnectError
from transports.spread.address import DEFAULT_ADDRESS

logger = logging.getLogger("spreadq")

T = TypeVar("T")

LogFormat: TypeAlias = Literal["auto", "human", "json"]

FAILED, USAGE, UNREACHABLE, TIMED_OUT = 1, 2, 3, 124
"""Exit statuses; 0 is done, 4 another manages, 75 replaced."""


def run(program: Coroutine[Any, Any, T]) -> T:
    """Run a program's main coroutine, on uvloop where there is one."""
    try:
        import uvloop  # noqa: PLC0415 -- not on Windows
    except ImportError:
        return asyncio.run(program)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(program)


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGINT; SIGQUIT ends at once, SIGUSR1 shows what everybody is doing."""
    loop = asyncio.get_running_loop()
    handlers: dict[signal.Signals, Callable[[], object]] = {
        signal.SIGTERM: stop,
        signal.SIGINT: stop,
        signal.SIGQUIT: lambda: os._exit(FAILED),
        signal.SIGUSR1: dump_stacks,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


def log_end(end: Exit) -> int:
    """Say how a role ended; its exit status."""
    logger.log(logging.ERROR if end.status else logging.INFO, "%s", end.reason)
    return end.status


def dump_stacks() -> None:
    """Write the stacks of all threads and asyncio tasks to stderr."""
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    for task in asyncio.all_tasks():
        print(f"Task {task.get_name()} (what is awaited last):", file=sys.stderr)
        awaited: Any = task.get_coro()
        while getattr(awaited, "cr_frame", None) is not None:  # `Task.print_stack` shows only the first
            traceback.print_stack(awaited.cr_frame, file=sys.stderr)
            awaited = awaited.cr_await


def set_up_logging(log_format: LogFormat, *, verbose: bool) -> None:
    """Log to stderr: for people on a terminal, else a JSON object per line."""
    if log_format == "auto":
        log_format = "human" if sys.stderr.isatty() else "json"
    handler: logging.Handler
    if log_format == "human":
        handler = RichHandler(console=Console(stderr=True), show_path=False, omit_repeated_times=False)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_JsonFormatter())
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], format="%(message)s", force=True
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)


@contextmanager
def exit_statuses() -> Iterator[None]:
    """Make of an error a message that says what to do, and the exit status that belongs to it."""
    try:
        yield
    except CannotConnectError as error:
        _fail(
            UNREACHABLE,
            f"{error}\nStart the daemon of your ring, or for this machine alone `spreadq serve QUEUE`; "
            f"name another address by --spread or SPREADQ_DAEMON (the default is {DEFAULT_ADDRESS})",
        )
    except (TimedOut, NoManager) as error:
        _fail(TIMED_OUT if isinstance(error, TimedOut) else FAILED, str(error))
    except UsageError as error:
        _fail(USAGE, str(error))
    except TaskError as error:
        _fail(FAILED, "\n".join([str(error), *getattr(error, "__notes__", ())]))
    except SpreadqError as error:
        _fail(FAILED, str(error))
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None


def _fail(status: int, message: str) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(status)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        line["event"] = getattr(record, "event", None) or record.getMessage()
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)

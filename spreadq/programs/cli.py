"""The commands `spreadq` and `sqm`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import App, CycloptsError, Parameter

from spreadq.codecs import DEFAULT_CODEC
from spreadq.config import daemon_address, nanoseconds, queue_name
from spreadq.manager import QueueManager
from spreadq.programs.demo import run_demo
from spreadq.programs.loading import load_worker
from spreadq.programs.runtime import USAGE, LogFormat, exit_statuses, run, set_up_logging, stopping
from spreadq.programs.status_view import show_status
from spreadq.sender import Sender
from spreadq.state_dir import default_directory
from spreadq.status import ask_status
from spreadq_core.effects import Exit
from spreadq_core.errors import UsageError
from spreadq_core.policy import DEFAULT
from transports.daemon.server import DEFAULT_PORT, Daemon

logger = logging.getLogger("spreadq")

Spread = Annotated[
    str | None, Parameter(name=["--spread"], help="Address of the Spread daemon, as 4803@host.")
]
Queue = Annotated[str | None, Parameter(name=["--queue", "-Q"], help="Name of the queue.")]
State = Annotated[Path | None, Parameter(help="Directory for what managers keep.")]
Verbose = Annotated[
    bool, Parameter(name=["--verbose", "-v"], negative="", help="Log what happens in detail.")
]
Log = Annotated[LogFormat, Parameter(name="--log-format", help="Human on a terminal, else json.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document.")]
Port = Annotated[int, Parameter(help="TCP port on this machine; 0: any free one.")]
Unix = Annotated[Path | None, Parameter(name="--unix", help="Path of a unix socket to listen at, too.")]

_VERSION = importlib.metadata.version("spreadq")

app = App(name="spreadq", help="Queued messaging over the Spread toolkit.", version=_VERSION)
sqm_app = App(name="sqm", help="Manage one queue: the queue manager of Spread::Queue.", version=_VERSION)


@app.command
def serve(
    *queues: str,
    port: Port = DEFAULT_PORT,
    unix: Unix = None,
    state: State = None,
    verbose: Verbose = False,
    log_format: Log = "auto",
) -> int:
    """Serve queues on this machine: a daemon and managers in one process."""
    set_up_logging(log_format, verbose=verbose)
    return run(_serve(_some(queues), port, unix, state))


@app.command
def manager(
    *queues: str,
    spread: Spread = None,
    state: State = None,
    verbose: Verbose = False,
    log_format: Log = "auto",
) -> int:
    """Manage queues at a Spread daemon."""
    set_up_logging(log_format, verbose=verbose)
    return run(_manage(_some(queues), daemon_address(spread), state))


@sqm_app.default
def sqm(
    queue: str | None = None,
    *,
    spread: Spread = None,
    state: State = None,
    verbose: Verbose = False,
    log_format: Log = "auto",
) -> int:
    """Manage one queue at a Spread daemon.

    Args:
        queue: its name; without it, as SPREAD_QUEUE_NAME or SPREAD_QUEUE says.
    """
    set_up_logging(log_format, verbose=verbose)
    return run(_manage([queue_name(queue)], daemon_address(spread), state))


@app.command
def daemon(
    *, port: Port = DEFAULT_PORT, unix: Unix = None, verbose: Verbose = False, log_format: Log = "auto"
) -> int:
    """Run the embedded Spread daemon alone, for this machine."""
    set_up_logging(log_format, verbose=verbose)
    return run(_serve([], port, unix, None))


@app.command
def worker(
    target: str,
    *,
    queue: Queue = None,
    concurrency: Annotated[int, Parameter(name=["--concurrency", "-c"])] = 1,
    drain_timeout: str = "25s",
    name: str | None = None,
    spread: Spread = None,
    verbose: Verbose = False,
    log_format: Log = "auto",
) -> int:
    """Serve the functions of an App or a Worker.

    Args:
        target: MODULE or MODULE:NAME of the App or Worker.
        concurrency: how many jobs run at a time.
        drain_timeout: how long running jobs may take to end once it is told to stop.
        name: of the worker, for people.
    """
    set_up_logging(log_format, verbose=verbose)
    policy = attrs.evolve(DEFAULT, drain_timeout=nanoseconds(drain_timeout))
    loaded = load_worker(target, queue, spread, concurrency, name, policy)

    async def work() -> int:
        await loaded.start()
        with stopping(loaded.stop):
            return _end(await loaded.wait())

    return run(work())


@app.command
def submit(
    function: str,
    value: str = "[]",
    *,
    queue: Queue = None,
    priority: int = 0,
    reply: bool = False,
    codec: str = DEFAULT_CODEC,
    spread: Spread = None,
) -> None:
    """Queue a task, and print its id when it is accepted.

    Args:
        function: that a worker must serve.
        value: its arguments in JSON: an array, an object of names, or one value; - reads stdin.
        priority: 0 to 9, higher first.
        reply: keep its outcome for a while.
        codec: of the payload.
    """
    with Sender(queue, address=spread, codec=codec) as sender:
        print(sender.submit(function, _json(value), reply=reply, priority=priority).id)


@app.command
def call(
    function: str,
    value: str = "[]",
    *,
    queue: Queue = None,
    timeout: str = "60s",
    priority: int = 0,
    codec: str = DEFAULT_CODEC,
    spread: Spread = None,
) -> None:
    """Have a function run, and print its result in JSON.

    Args:
        function: that a worker must serve.
        value: its arguments in JSON: an array, an object of names, or one value; - reads stdin.
        timeout: how long to wait; exit status 124 when it is over.
        priority: 0 to 9, higher first.
        codec: of the payload.
    """
    with Sender(queue, address=spread, codec=codec) as sender:
        result = sender.rpc(function, _json(value), timeout=timeout, priority=priority)
    print(json.dumps(result, default=str))


@app.command
def status(queue: str | None = None, *, spread: Spread = None, as_json: Json = False) -> None:
    """Show the state of a queue.

    Args:
        queue: its name; without it, as SPREAD_QUEUE_NAME or SPREAD_QUEUE says.
    """
    document = ask_status(queue_name(queue), spread)
    if as_json:
        print(json.dumps(document))
    else:
        show_status(document)


@app.command
def demo(
    directory: Path | None = None,
    *,
    workers: int = 3,
    spread: Spread = None,
    executions: Path | None = None,
    as_json: Json = False,
) -> int:
    """Count lines, words and identifiers of many files, kill a worker meanwhile, and check the result.

    Args:
        directory: whose text files to count; by default the sources of Python's standard library.
        workers: how many worker processes.
        executions: file to which each job appends a line at its start and one at its end.
    """
    return run(run_demo(directory, workers=workers, spread=spread, executions=executions, as_json=as_json))


def main(tokens: Sequence[str] | None = None) -> None:
    """The command `spreadq`."""
    _run_app(app, tokens)


def sqm_main(tokens: Sequence[str] | None = None) -> None:
    """The command `sqm`."""
    _run_app(sqm_app, tokens)


def _run_app(program: App, tokens: Sequence[str] | None) -> None:
    with exit_statuses():
        try:
            result = program(tokens, exit_on_error=False, print_error=True, result_action="return_value")
        except CycloptsError:
            raise SystemExit(USAGE) from None
    sys.exit(result if isinstance(result, int) else 0)


async def _serve(queues: Sequence[str], port: int, unix: Path | None, state: Path | None) -> int:
    daemon = Daemon()
    await daemon.start(port=port, unix_path=None if unix is None else str(unix))
    logger.info("the daemon takes clients at %s", daemon.address)
    try:
        if queues:
            return await _manage(queues, daemon, state)
        stopped = asyncio.Event()
        with stopping(stopped.set):
            await stopped.wait()
        return 0
    finally:
        await daemon.stop()


async def _manage(queues: Sequence[str], where: str | Daemon, state: Path | None) -> int:
    """Manage queues until all managers are at their end; when one fails, the others stop."""
    directory = state or default_directory(where if isinstance(where, str) else where.address)
    managers = [QueueManager(queue, where, state=directory) for queue in queues]

    def stop() -> None:
        for manager in managers:
            manager.stop()

    for manager in managers:
        await manager.start()
    with stopping(stop):
        ends = []
        for ended in asyncio.as_completed([manager.wait() for manager in managers]):
            ends.append(_end(await ended))
            stop()
    return max(ends)


def _end(end: Exit) -> int:
    logger.log(logging.ERROR if end.status else logging.INFO, "%s", end.reason)
    return end.status


def _some(queues: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(queues)) or [queue_name(None)]


def _json(text: str) -> Any:
    source = sys.stdin.read() if text == "-" else text
    try:
        return json.loads(source)
    except ValueError as error:
        raise UsageError(f"the arguments are not valid JSON: {error}") from error

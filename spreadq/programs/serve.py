"""`spreadq serve`, `spreadq manager`, `spreadq daemon` and `sqm`: the broker, whole or in parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from spreadq.config import daemon_address, queue_name
from spreadq.manager import QueueManager
from spreadq.programs.options import Log, Port, Spread, State, Unix, Verbose
from spreadq.programs.runtime import log_end, run, set_up_logging, stopping
from spreadq.state_dir import default_directory
from transports.daemon.server import DEFAULT_PORT, Daemon

logger = logging.getLogger("spreadq")


def serve(
    *queues: str,
    port: Port = DEFAULT_PORT,
    unix: Unix = None,
    state: State = None,
    verbose: Verbose = False,
    log_format: Log = "auto",
) -> int:
    """Serve queues on this machine: a daemon and managers in one process.

    Args:
        queues: names; without any, as SPREAD_QUEUE_NAME or SPREAD_QUEUE says.
    """
    set_up_logging(log_format, verbose=verbose)
    return run(_serve(_some(queues), port, unix, state))


def manager(
    *queues: str,
    spread: Spread = None,
    state: State = None,
    verbose: Verbose = False,
    log_format: Log = "auto",
) -> int:
    """Manage queues at a Spread daemon.

    Args:
        queues: names; without any, as SPREAD_QUEUE_NAME or SPREAD_QUEUE says.
    """
    set_up_logging(log_format, verbose=verbose)
    return run(_manage(_some(queues), daemon_address(spread), state))


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


def daemon(
    *, port: Port = DEFAULT_PORT, unix: Unix = None, verbose: Verbose = False, log_format: Log = "auto"
) -> int:
    """Run the embedded Spread daemon alone, for this machine."""
    set_up_logging(log_format, verbose=verbose)
    return run(_serve([], port, unix, None))


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
    """Manage queues until all managers are at their end; when one fails, the others stop, too.

    It may be stopped while it still connects, or may fail at it: what was accepted meanwhile is kept.
    """
    directory = state or default_directory(where if isinstance(where, str) else where.address)
    managers = [QueueManager(queue, where, state=directory) for queue in queues]

    async def start() -> None:
        for manager in managers:
            await manager.start()

    starting = asyncio.ensure_future(start())

    def stop() -> None:
        starting.cancel()
        for manager in managers:
            manager.stop()

    ends = []
    with stopping(stop):
        await asyncio.wait([starting])
        started = [manager for manager in managers if manager.is_started]
        if len(started) < len(managers):
            stop()
        for ended in asyncio.as_completed([manager.wait() for manager in started]):
            ends.append(log_end(await ended))
            stop()
    if not starting.cancelled():
        starting.result()
    return max(ends, default=0)


def _some(queues: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(queues)) or [queue_name(None)]

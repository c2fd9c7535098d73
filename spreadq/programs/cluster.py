"""Daemon, manager and workers as processes on this machine: for the demo, benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from spreadq.errors import NoManager
from spreadq.status import ask_status
from spreadq_core.errors import SpreadqError
from transports.base import CannotConnectError
from transports.spread.blocking_client import BlockingSpread

START_TIMEOUT = 15.0
"""Seconds that programs have to get ready."""

STOP_TIMEOUT = 5.0
"""Seconds that they have to stop before they are killed."""

POLL_INTERVAL = 0.02
"""Seconds between two looks whether something is ready."""


class Cluster:
    """Programs of one queue. Leaving the context stops them all.

    Args:
        queue: the queue's name.
        scratch: an empty directory for sockets, state and logs.
        spread: address of a Spread daemon; None: an embedded one is started, at `unix:SCRATCH/socket`.
        environment: additional environment of all programs.
    """

    def __init__(
        self,
        queue: str,
        scratch: Path,
        spread: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.queue = queue
        self.embedded = spread is None
        self.address = spread or f"unix:{scratch / 'socket'}"
        self.state = scratch / "state"
        self._scratch = scratch
        self._environment = {**os.environ, **(environment or {})}
        self._programs: list[subprocess.Popen[bytes]] = []
        self._broker: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop([program for program in self._programs if program not in self._broker])
        for program in reversed(self._broker):  # after those who want to take their leave of it
            self._stop([program])

    def _stop(self, programs: list[subprocess.Popen[bytes]]) -> None:
        for program in programs:
            if program.poll() is None:
                program.send_signal(signal.SIGCONT)
                program.terminate()
        for program in programs:
            try:
                program.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()

    # --- starting -------------------------------------------------------------------------------

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `spreadq ARGUMENTS...`; what it says goes into a log."""
        return self.start_python("-m", "spreadq", *arguments)

    def start_python(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start another Python program."""
        with (self._scratch / f"{len(self._programs)}.log").open("wb") as log:
            program = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        self._programs.append(program)
        return program

    def start_daemon(self) -> subprocess.Popen[bytes]:
        """Start the embedded daemon, and wait until clients can connect."""
        program = self.start("daemon", "--port", "0", "--unix", self.address.removeprefix("unix:"))
        self._broker.append(program)
        self.wait_for_daemon()
        return program

    def start_serve(self) -> subprocess.Popen[bytes]:
        """Start daemon and manager in one process, and wait until clients can connect."""
        path = self.address.removeprefix("unix:")
        program = self.start("serve", self.queue, "--port", "0", "--unix", path, "--state", str(self.state))
        self._broker.append(program)
        self.wait_for_daemon()
        return program

    def start_manager(self) -> subprocess.Popen[bytes]:
        """Start a manager of its own."""
        program = self.start("manager", self.queue, "--spread", self.address, "--state", str(self.state))
        self._broker.append(program)
        return program

    def start_worker(self, target: str, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a worker for `MODULE:NAME`."""
        return self.start(
            "worker", target, "--queue", self.queue, "--spread", self.address, "--name", name, *options
        )

    # --- waiting --------------------------------------------------------------------------------

    def wait_for_daemon(self) -> None:
        """Wait until a client can connect.

        Raises:
            SpreadqError: it cannot in time.
        """
        for _ in self._until(START_TIMEOUT):
            client = BlockingSpread(self.address, membership=False)
            with contextlib.suppress(CannotConnectError):
                client.connect()
                client.close()
                return

    def wait_for_workers(self, count: int, timeout: float = START_TIMEOUT) -> None:
        """Wait until there is a manager, and so many workers can be given tasks.

        Raises:
            SpreadqError: they cannot in time.
        """
        for _ in self._until(timeout):
            with contextlib.suppress(NoManager, CannotConnectError):
                workers = ask_status(self.queue, self.address)["workers"]
                if sum(worker["state"] in ("available", "working") for worker in workers) >= count:
                    return

    def _until(self, timeout: float) -> Iterator[None]:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            yield
            time.sleep(POLL_INTERVAL)
        raise SpreadqError(f"not ready after {timeout:g} s; last words: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of each log."""
        texts = [log.read_text(errors="replace").splitlines() for log in sorted(self._scratch.glob("*.log"))]
        return " | ".join(lines[-1] for lines in texts if lines) or "(they say nothing)"

"""What the workers of these tests serve. Each job writes down when it starts and when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

import spreadq
from spreadq_core.ids import MILLISECOND
from spreadq_core.policy import DEFAULT

TRACE_VARIABLE = "SPREADQ_TEST_TRACE"
"""Environment variable that names the file for what jobs write down."""

GATE_POLL = 0.002
"""Seconds between two looks at a gate."""

app = spreadq.App("promises")


def write_down(what: str, label: str) -> None:
    """Append `what LABEL TASK PID TIME` to the trace, in one write."""
    line = f"{what} {label} {spreadq.current_task()} {os.getpid()} {time.monotonic_ns()}\n"
    descriptor = os.open(os.environ[TRACE_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


@contextmanager
def traced(label: str) -> Iterator[None]:
    write_down("start", label)
    yield
    write_down("end", label)


@app.task
async def echo(label: str, pause: float = 0.0) -> str:
    """Take a while, on the loop."""
    with traced(label):
        await asyncio.sleep(pause)
    return label


@app.task
def echo_in_a_thread(label: str, pause: float = 0.0) -> str:
    """Take a while, in a thread."""
    with traced(label):
        time.sleep(pause)
    return label


@app.task
async def hold(label: str, gate: str) -> int:
    """Run until there is a file `gate`; which process did."""
    with traced(label):
        while not Path(gate).exists():  # noqa: ASYNC110, ASYNC240 -- another process makes it
            await asyncio.sleep(GATE_POLL)
    return os.getpid()


@app.task
async def hang(label: str) -> None:
    """Never end of itself; can be cancelled."""
    write_down("start", label)
    await asyncio.Event().wait()


@app.task
def hang_in_a_thread(label: str) -> None:
    """Never end."""
    write_down("start", label)
    threading.Event().wait()


@app.task
async def hang_the_first_time(label: str) -> int:
    """Never end of itself, unless another process hangs in it already."""
    file = Path(os.environ[TRACE_VARIABLE]).with_name(f"first-{label}")
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        await echo(label)
        return os.getpid()
    await hang(label)
    raise AssertionError


@app.task
def die(label: str) -> None:
    """Take the whole worker along."""
    write_down("start", label)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def leave_a_child(label: str, inherit: bool) -> None:
    """Start a program that outlives the worker, and never end."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=not inherit)
    write_down("start", label)
    write_down(f"child-{child.pid}", label)
    threading.Event().wait()


@app.task
def leave_a_copy(label: str) -> None:
    """Fork a child that outlives the worker, and never end."""
    write_down("start", label)
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    write_down(f"child-{child}", label)
    threading.Event().wait()


@app.task
def large(label: str, size: int) -> bytes:
    """Give back so many bytes."""
    with traced(label):
        return bytes(size)


@app.task
def length(text: str) -> int:
    """Count."""
    return len(text)


soon_hung = spreadq.App("promises", policy=attrs.evolve(DEFAULT, hung_grace=300 * MILLISECOND))
"""Whose workers give up soon when all their slots hang."""

soon_hung.task(hang_in_a_thread.__wrapped__, name="hang_in_a_thread")
soon_hung.task(echo.__wrapped__, name="echo")

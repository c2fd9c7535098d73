"""What the benchmarks' workers serve."""

from __future__ import annotations

import asyncio
import os
import time

import spreadq

app = spreadq.App(os.environ.get("SPREAD_QUEUE_NAME", "bench"))


@app.task
async def nothing() -> None:
    """An empty job."""


@app.task
async def tell_and_hang(path: str) -> None:
    """Say in a file who started it and when, and hang."""
    line = f"{os.getpid()} {time.monotonic_ns()}\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)
    await asyncio.Event().wait()

"""What the workers of these tests serve."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import spreadq

app = spreadq.App("sample")


@app.task
def echo(value: Any) -> Any:
    """Give back what came."""
    return value


@app.task
async def add(a: int, b: int = 10) -> int:
    """Add."""
    return a + b


@app.task
def fail(message: str) -> None:
    """Raise."""
    raise ValueError(message)


@app.task
def pid() -> int:
    """Which process."""
    return os.getpid()


@app.task
def hold(started: str, gate: str) -> str:
    """Run from the time when the file `started` is there until `gate` is, in a thread."""
    with Path(started).open("a") as file:
        file.write(f"{os.getpid()}\n")
    while not Path(gate).exists():
        time.sleep(0.005)
    return "held"


@app.task
async def hold_on_the_loop(started: str, gate: str) -> str:
    """The same on the loop."""
    with Path(started).open("a") as file:
        file.write(f"{os.getpid()}\n")
    while not Path(gate).exists():
        await asyncio.sleep(0.005)
    return "held"

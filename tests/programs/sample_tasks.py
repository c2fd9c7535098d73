"""What the workers of these tests serve."""

from __future__ import annotations

import asyncio
import datetime
import math
import os
import time
from pathlib import Path
from typing import Any

import spreadq

app = spreadq.App()


def tell(started: str) -> None:
    """Say who runs a job."""
    with Path(started).open("a") as file:
        file.write(f"{os.getpid()}\n")


def is_open(gate: str) -> bool:
    """Whether a job may end."""
    return Path(gate).exists()


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
def odd(what: str) -> Any:
    """Give back what JSON does not know."""
    day = datetime.date(2020, 2, 2)
    return {
        "bytes": {b"f": b"\xff"},
        "dates": [day, datetime.datetime(2020, 2, 2, 2, 2, 2, tzinfo=datetime.UTC)],
        "none": {None: 1},
        "nan": math.nan,
    }[what]


@app.task
def pid() -> int:
    """Which process."""
    return os.getpid()


@app.task
def hold(started: str, gate: str) -> str:
    """Run from the time when the file `started` is there until `gate` is, in a thread."""
    tell(started)
    while not is_open(gate):
        time.sleep(0.005)
    return "held"


@app.task
async def hold_on_the_loop(started: str, gate: str) -> str:
    """The same on the loop."""
    tell(started)
    while not is_open(gate):  # noqa: ASYNC110 -- it is in another process
        await asyncio.sleep(0.005)
    return "held"

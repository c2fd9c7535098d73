"""What the demo's workers do: read a file, and count."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path

import msgspec

import spreadq

EXECUTIONS_VARIABLE = "SPREADQ_DEMO_EXECUTIONS"
"""Environment variable that names the file to which jobs append their lines."""

COMMONEST = 50
"""Identifiers of one file that are told."""

app = spreadq.App(os.environ.get("SPREAD_QUEUE_NAME", "demo"))

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


class FileCounts(msgspec.Struct, frozen=True):
    """What is in a file; the commonest identifiers first, equally common ones by name."""

    lines: int
    words: int
    identifiers: list[tuple[str, int]]


def count_text(path: Path) -> FileCounts:
    """Count a file.

    Raises:
        OSError: it cannot be read.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    counted = Counter(_IDENTIFIER.findall(text))
    commonest = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:COMMONEST]
    return FileCounts(text.count("\n"), len(text.split()), commonest)


@app.task
def count_file(path: bytes, gate: str | None = None) -> FileCounts:
    """Count a file, not before the file `gate` is there, and leave a trace of having done so."""
    _leave_trace("start", path)
    while gate and not Path(gate).exists():
        time.sleep(0.001)
    counts = count_text(Path(os.fsdecode(path)))
    _leave_trace("end", path)
    return counts


def _leave_trace(what: str, path: bytes) -> None:
    """Append `start|end TASK PID TIME PATH` to the file of executions, in one write."""
    file = os.environ.get(EXECUTIONS_VARIABLE)
    if file:
        line = f"{what} {spreadq.current_task()} {os.getpid()} {time.time():.6f} "
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode() + path + b"\n")
        finally:
            os.close(descriptor)

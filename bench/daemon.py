"""How much the embedded daemon moves: a flood of small messages from one process to another.

`python -m bench.daemon serve` and `python -m bench.daemon read ADDRESS` are its two other processes.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.figures import Figure, Goal
from spreadq.programs.runtime import run
from spreadq_core.effects import Service
from transports.daemon.server import Daemon
from transports.spread.address import parse_address
from transports.spread.messages import Data
from transports.spread.session import Session
from transports.spread.wire import encode

GROUP = "FLOOD"
MESSAGES = 400_000
PER_WRITE = 400
BODY = bytes(100)
REPEATS = 3


def throughput(spread: str | None) -> list[Figure]:
    """100-byte messages from one client to one other; each counts once in and once out."""
    if spread:
        return []
    with _process("serve") as server:
        address = _line(server)
        rate = max(_flood(address) for _ in range(REPEATS))
    return [Figure("daemon_in_and_out", rate, "messages/s", goal=Goal(">=", 500_000), note="TCP")]


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.daemon", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _flood(address: str) -> float:
    with _process("read", address) as reader:
        _line(reader)  # it has joined
        connection, session = _connect(address, "flooder")
        with connection:
            batch = encode(Data(session.name, (GROUP,), 0, BODY)) * PER_WRITE
            for _ in range(MESSAGES // PER_WRITE):
                connection.sendall(batch)
            return 2 * MESSAGES / float(_line(reader))


def _connect(address: str, name: str) -> tuple[socket.socket, Session]:
    family, where = parse_address(address).resolve()
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.connect(where)
    session = Session(name, False)
    while not session.name:
        connection.sendall(session.take_output())
        session.receive(connection.recv(4096))
    return connection, session


def _read(address: str) -> None:
    """Count the bytes of a flood, and print how many seconds passed from the first to the last."""
    connection, session = _connect(address, "reader")
    session.join(GROUP)
    # Our own message comes back when we have joined.
    session.send((GROUP,), Service.AGREED, 0, b"")
    connection.sendall(session.take_output())
    connection.recv(4096)
    print("joined", flush=True)
    left = MESSAGES * len(encode(Data("#flooder#localhost", (GROUP,), 0, BODY)))
    start = None
    while left > 0:
        data = connection.recv(1 << 20)
        start = start or time.perf_counter()
        left -= len(data)
    print(time.perf_counter() - (start or 0.0), flush=True)


async def _serve() -> None:
    daemon = Daemon()
    await daemon.start(port=0)
    print(daemon.address, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        run(_serve())
    else:
        _read(sys.argv[2])

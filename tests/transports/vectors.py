"""Loads the captures of a real Spread 4.4.0 daemon (tests/data/spread_vectors)."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

DIRECTORY = Path(__file__).parent.parent / "data" / "spread_vectors"


@attrs.frozen
class Step:
    """One logical unit of a capture: part of the handshake, or one message (sometimes a few).

    Args:
        direction: `c2s` client to daemon, `s2c` daemon to client, `ctl` done to a daemon.
        connection: `A`, `B`, ...; `-` for `ctl`.
        data: the bytes; empty for an event.
        event: `eof`, `reset`, `close`, `silence`, or empty.
        note: the content in words.
    """

    direction: str
    connection: str
    data: bytes
    event: str
    note: str


@attrs.frozen
class Vector:
    """One scenario. The order of steps holds within a connection."""

    name: str
    transport: str
    excerpt: bool
    steps: tuple[Step, ...]

    @property
    def connections(self) -> tuple[str, ...]:
        return tuple(sorted({step.connection for step in self.steps} - {"-"}))

    def of(self, connection: str) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.connection == connection)

    def said(self, connection: str, direction: str) -> bytes:
        """All that went over a connection in one direction."""
        return b"".join(step.data for step in self.of(connection) if step.direction == direction)

    def messages_to(self, connection: str) -> bytes:
        """What the daemon sent on a connection, without the handshake."""
        sent = [step.data for step in self.of(connection) if step.direction == "s2c"]
        return b"".join(sent if self.excerpt else sent[2:])


def _load(path: Path) -> Vector:
    content = json.loads(path.read_text())
    steps = tuple(
        Step(step["dir"], step["conn"], _data(step), step.get("event", ""), step.get("note", ""))
        for step in content["steps"]
    )
    return Vector(content["name"], content["transport"], content.get("excerpt", False), steps)


def _data(step: dict) -> bytes:
    data = bytes.fromhex(step["hex"])
    if "tail" in step:
        size = step["tail"]["len"]
        data += (bytes(range(251)) * (size // 251 + 1))[:size]
    return data


VECTORS = {path.stem: _load(path) for path in sorted(DIRECTORY.glob("*.json"))}

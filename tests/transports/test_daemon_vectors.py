"""The embedded daemon answers like a real one: its side of the captures, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.transports.raw_peer import Peer
from tests.transports.vectors import VECTORS, Step, Vector
from transports.daemon.limits import Limits
from transports.daemon.server import Daemon
from transports.spread.messages import REGULAR_MEMBERSHIP, SERVICES, TRANSITION
from transports.spread.wire import NAME_SIZE, locate

SEVERAL_DAEMONS = "several daemons"
OTHER_CONFIGURATION = "an authentication that this daemon does not have"
PATIENCE = "the embedded daemon is more patient: test_daemon_handshake"
DEFECT = "a defect of Spread that is not copied: test_daemon_server"

NOT_REPLAYED = {
    "auth_empty_list": OTHER_CONFIGURATION,
    "auth_ip_denied": OTHER_CONFIGURATION,
    "auth_list_null_ip": OTHER_CONFIGURATION,
    "auth_required_ip": OTHER_CONFIGURATION,
    "body_daemon_abort_stock": DEFECT,
    "body_max_large": "another build of Spread",
    "connect_split": PATIENCE,
    "forged_membership": "bits that are not a client's to set are refused: test_daemon_server",
    "groups_44": DEFECT,
    "join_during_transition": SEVERAL_DAEMONS,
    "reject_auth_split": PATIENCE,
    "reject_bit": "bits that are not a client's to set are refused: test_daemon_server",
    "slow_consumer": "how much is delivered depends on buffers: test_daemon_server",
    "three_daemons_partition_heal": SEVERAL_DAEMONS,
    "transitional_safe_messages": SEVERAL_DAEMONS,
    "two_daemons_crash": SEVERAL_DAEMONS,
    "two_daemons_join_and_unicast": SEVERAL_DAEMONS,
    "two_daemons_partition_merge": SEVERAL_DAEMONS,
    "two_daemons_reliable_overtakes": SEVERAL_DAEMONS,
}

LEFT_OUT = {
    # Sent ahead of its time, the auth choice is taken: test_daemon_handshake.
    "connect_pipelined": lambda step: step.connection == "A",
    # Bits 14 and 15 are refused: test_daemon_server.
    "passthrough_bits": lambda step: b"bits 14 and 15" in step.data,
}
"""Steps of replayed vectors in which the embedded daemon is meant to differ."""

LIMITS = {
    "connect_silent": Limits(handshake_timeout=0.3),
    "reject_quota": Limits(connections=1),
}

ACCEPT = re.compile(rb"\x01\x04\x04\x00?[\x04-\x1f](#[^#]+#([^#]+))", re.DOTALL)
MADE_UP_NAME = re.compile(rb"#r\d{1,4}-\d+#")

REPLAYED = sorted(VECTORS.keys() - NOT_REPLAYED.keys())


class Replay:
    """Plays the clients of one vector, and compares what the daemon says."""

    def __init__(self, vector: Vector, daemon: Daemon, unix_path: str) -> None:
        self._vector = vector
        self._daemon = daemon
        self._unix_path = unix_path
        self._peers: dict[str, Peer] = {}
        self._made_up: dict[bytes, bytes] = {}
        """Fields with names that the daemon made up, recorded -> ours."""
        self.id_beginnings: set[bytes] = set()
        """First parts of all group ids: the daemon's address and its time."""

    async def run(self) -> None:
        left_out = LEFT_OUT.get(self._vector.name, lambda step: False)
        for step in self._vector.steps:
            if not left_out(step):
                await self._play(step)

    async def close(self) -> None:
        for peer in self._peers.values():
            await peer.close()

    async def _play(self, step: Step) -> None:
        if step.direction == "ctl":
            if "SIGTERM" in step.note:
                await self._daemon.stop()
            return
        peer = self._peers.get(step.connection) or await self._open(step.connection)
        match step.direction, step.event:
            case "c2s", "":
                peer.send(self._rewritten(step.data))
            case "c2s", "close":
                await self._peers.pop(step.connection).close()
            case "s2c", "":
                await self._compare(peer, step.data)
            case "s2c", "eof" | "reset":
                assert await self._peers.pop(step.connection).read_to_end() == b""
                await peer.close()
            case "s2c", "silence":
                await self._prove_silence(peer)

    async def _open(self, connection: str) -> Peer:
        unix_path = self._unix_path if self._vector.transport == "unix" else ""
        peer = self._peers[connection] = await Peer.open(self._daemon, unix_path=unix_path)
        return peer

    async def _compare(self, peer: Peer, recorded: bytes) -> None:
        if peer.name:
            received = await peer.read(len(recorded))
            assert self._masked(received) == self._masked(recorded, ours=False)
        elif accept := ACCEPT.fullmatch(recorded):
            await self._compare_accept(peer, recorded, accept[1])
        else:
            assert await peer.read(len(recorded)) == recorded

    async def _compare_accept(self, peer: Peer, recorded: bytes, recorded_name: bytes) -> None:
        beginning = await peer.read(len(recorded) - len(recorded_name))
        name = await peer.read(beginning[-1])
        peer.name = name.decode()
        if MADE_UP_NAME.match(recorded_name):
            assert MADE_UP_NAME.match(name)
            self._made_up[recorded_name.ljust(NAME_SIZE, b"\0")] = name.ljust(NAME_SIZE, b"\0")
        else:
            assert beginning + name == recorded

    def _rewritten(self, data: bytes) -> bytes:
        for recorded, ours in self._made_up.items():
            data = data.replace(recorded, ours)
        return data

    def _masked(self, messages: bytes, *, ours: bool = True) -> bytes:
        """Blank what varies of group ids: all but the index."""
        at = 0
        while at < len(messages):
            header, body_at, end = locate(messages, at)
            if not header.type_bits & SERVICES and header.type_bits & (REGULAR_MEMBERSHIP | TRANSITION):
                if ours:
                    self.id_beginnings.add(messages[body_at : body_at + 8])
                messages = messages[:body_at] + bytes(8) + messages[body_at + 8 :]
            at = end
        return messages

    async def _prove_silence(self, silent: Peer) -> None:
        """Let all that was sent be handled: then whatever it caused comes before the answer to `silent`."""
        for peer in self._peers.values():
            if peer.name:
                await peer.unread()
        assert await silent.unread() == b""


class TestVectors:
    also_on_uvloop = True

    @pytest.mark.parametrize("name", REPLAYED)
    async def test_the_daemon_answers_as_recorded(self, name: str, tmp_path: Path) -> None:
        vector = VECTORS[name]
        daemon = Daemon(daemon_name(vector), limits=LIMITS.get(name))
        unix_path = str(tmp_path / "s")
        await daemon.start(port=0, unix_path=unix_path)
        replay = Replay(vector, daemon, unix_path)
        try:
            if name == "reject_quota":
                await replay._open("one that was there before")
            await replay.run()
            assert len(replay.id_beginnings) <= 1
        finally:
            await replay.close()
            await daemon.stop()


def daemon_name(vector: Vector) -> str:
    names = {found[2].decode() for step in vector.steps if (found := ACCEPT.fullmatch(step.data))}
    return names.pop() if names else "localhost"


def test_every_vector_is_replayed_or_listed() -> None:
    assert not NOT_REPLAYED.keys() - VECTORS.keys()
    assert not (LEFT_OUT.keys() | LIMITS.keys()) - set(REPLAYED)


def test_every_step_left_out_exists() -> None:
    for name, left_out in LEFT_OUT.items():
        assert any(map(left_out, VECTORS[name].steps))

"""Whatever a client sends, the daemon goes on, and so do all others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transports.raw_peer import CHOICE, connect_request
from transports.base import MESSAGE_LIMIT
from transports.daemon.connection import Connection
from transports.daemon.handshake import Handshake
from transports.daemon.server import Daemon
from transports.spread.messages import FIFO, SAFE, Data, Join, Kill, Leave
from transports.spread.reader import Reader
from transports.spread.wire import HEADER_SIZE, encode

NAME = "#fuzz#localhost"

HANDSHAKE = connect_request("fuzz") + CHOICE


class FakeTransport(asyncio.Transport):
    """A client's connection, without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.Protocol
        self.written = bytearray()
        self.closed = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self

    def fileno(self) -> int:
        return 4711

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class FakeClient:
    def __init__(self, daemon: Daemon) -> None:
        self.transport = FakeTransport()
        self.transport.protocol = Handshake(daemon)
        self.transport.protocol.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        if not self.transport.closed:
            self.transport.protocol.data_received(data)

    def received(self) -> bytes:
        data = bytes(self.transport.written)
        self.transport.written.clear()
        return data

    def lose(self) -> None:
        self.transport.protocol.connection_lost(None)


WORDS = st.sampled_from([0, 1, 2, 100, 101, 0x7FFFFFFF, 0x80000080, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF)
NAMES = st.sampled_from([NAME, "#watcher#localhost", "room", "", "#", "x" * 31, "x" * 32])
ORDERS = st.sampled_from(["little", "big"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message that is right, or nearly so."""
    sender = draw(st.just(NAME) | NAMES)
    kind = draw(st.sampled_from([Data, Data, Join, Leave, Kill]))
    if kind is Data:
        groups = tuple(draw(st.lists(NAMES, max_size=5)))
        bits = draw(st.sampled_from([FIFO, SAFE]) | WORDS)
        message = Data(sender, groups, draw(st.integers(-0x8000, 0x7FFF)), draw(st.binary(max_size=50)), bits)
    else:
        message = kind(sender, draw(NAMES))
    data = bytearray(encode(message, draw(ORDERS)))
    for at in draw(st.lists(st.sampled_from([0, 36, 40, 44]), max_size=1)):
        data[at : at + 4] = draw(WORDS).to_bytes(4, "little")
    return bytes(data)


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """A stream in pieces."""
    stream = draw(streams)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


STREAMS = st.one_of(
    st.binary(max_size=300),
    st.builds(bytes.__add__, st.just(HANDSHAKE), st.binary(max_size=300)),
    st.builds(bytes.__add__, st.just(HANDSHAKE), st.lists(messages(), max_size=20).map(b"".join)),
    st.builds(lambda size, rest: HANDSHAKE[:size] + rest, st.integers(0, len(HANDSHAKE)), st.binary()),
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@settings(max_examples=500, deadline=None)
@given(pieces=cut(STREAMS))
def test_no_bytes_disturb_anybody(runner: asyncio.Runner, pieces: list[bytes]) -> None:
    runner.run(fuzz(pieces))


async def fuzz(pieces: list[bytes]) -> None:
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    daemon = Daemon()
    await daemon.start(port=None)
    watcher = FakeClient(daemon)
    watcher.send(connect_request("watcher") + CHOICE + encode(Join("#watcher#localhost", "room")))
    await asyncio.sleep(0)
    watcher.received()
    attached: list = []
    inside = daemon.attach(attached.extend, membership=True)
    inside.join("room")
    inside.flush()

    client = FakeClient(daemon)
    for piece in pieces:
        client.send(piece)
        protocol = client.transport.protocol
        if isinstance(protocol, Connection):
            assert len(protocol._incomplete) < HEADER_SIZE + MESSAGE_LIMIT
    client.lose()
    watcher.send(encode(Data("#watcher#localhost", ("room",), 0, b"still here")))
    await asyncio.sleep(0)

    assert daemon.space.members == (watcher.transport.protocol, inside)
    assert daemon._taken == {"#watcher#localhost", inside.session}
    assert daemon._clients == {watcher.transport}
    told = Reader().feed(watcher.received())
    assert told[-1].body == attached[-1].body == b"still here"
    watcher.lose()
    await daemon.stop()
    assert errors == []

"""What waits for one client: one write per turn, and an end to patience."""

from __future__ import annotations

import asyncio

import pytest

from transports.daemon.limits import Limits
from transports.daemon.outbox import WRITE_SIZE, Outbox

LIMITS = Limits(waiting_messages=3, waiting_bytes=1000, patience=0.01)


class FakeTransport:
    """Takes up to `room` bytes, like a socket's buffer."""

    def __init__(self) -> None:
        self.room = 1_000_000_000
        self.writes: list[bytes] = []
        self.left_over = 0
        self.aborted = False
        self.outbox: Outbox

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == 0

    def get_write_buffer_size(self) -> int:
        return self.left_over

    def write(self, data: bytes) -> None:
        assert self.left_over == 0
        self.writes.append(data)
        self.left_over = max(0, len(data) - self.room)
        self.room = max(0, self.room - len(data))
        if self.left_over:
            self.outbox.block()

    def abort(self) -> None:
        self.aborted = True


class Fixture:
    def __init__(self, limits: Limits = LIMITS) -> None:
        self.transport = FakeTransport()
        self.filled: list[Outbox] = []
        self.overrun = asyncio.Event()
        self.outbox = Outbox(self.transport, limits, self.filled.append, self.overrun.set)
        self.transport.outbox = self.outbox

    def fill_socket(self, left_over: int, messages: int = 1) -> None:
        """Have the socket take all but some bytes of a write of 100 bytes."""
        self.transport.room = 100 - left_over
        self.outbox.put(b"w" * 100, messages)
        self.outbox.flush()


@pytest.fixture
async def fixture() -> Fixture:
    return Fixture()


async def test_all_that_was_put_is_one_write(fixture: Fixture) -> None:
    for piece in (b"one", b"two", b"three"):
        fixture.outbox.put(piece, 1)
    assert fixture.filled == [fixture.outbox]
    fixture.outbox.flush()
    fixture.outbox.flush()
    assert fixture.transport.writes == [b"onetwothree"]


async def test_much_is_written_before_the_turn_ends(fixture: Fixture) -> None:
    piece = bytes(WRITE_SIZE // 2)
    fixture.outbox.put(piece, 1)
    assert fixture.transport.writes == []
    fixture.outbox.put(piece, 1)
    assert fixture.transport.writes == [piece + piece]


async def test_a_full_socket_is_not_written_to(fixture: Fixture) -> None:
    fixture.fill_socket(left_over=50)
    fixture.outbox.put(b"later", 1)
    fixture.outbox.flush()
    assert len(fixture.transport.writes) == 1
    fixture.transport.left_over = 0
    fixture.transport.room = 1000
    fixture.outbox.unblock()
    assert fixture.transport.writes[1:] == [b"later"]


@pytest.mark.parametrize(
    ("left_over", "messages_in_write", "allowed"),
    [
        (1, 1, 2),  # the partly written one counts
        (100, 2, 1),
        (50, 2, 2),  # half of the bytes of two messages: one
        (51, 2, 1),
    ],
)
async def test_messages_that_wait_are_counted(left_over: int, messages_in_write: int, allowed: int) -> None:
    fixture = Fixture()
    fixture.fill_socket(left_over, messages_in_write)
    fixture.outbox.put(b"x", allowed)
    assert fixture.outbox._judgement is None
    fixture.outbox.put(b"x", 1)
    async with asyncio.timeout(10):
        await fixture.overrun.wait()


@pytest.mark.parametrize(
    ("pieces", "crowded"), [([(b"x", 1)], True), ([], False), ([(b"", 0)], False), ([(bytes(500), 0)], True)]
)
async def test_it_is_crowded_when_half_of_what_may_wait_is_there(
    pieces: list[tuple[bytes, int]], crowded: bool
) -> None:
    fixture = Fixture()
    fixture.fill_socket(left_over=1)
    for piece, messages in pieces:
        fixture.outbox.put(piece, messages)
    assert fixture.outbox.crowded == crowded
    fixture.transport.left_over = 0
    fixture.outbox.unblock()
    assert not fixture.outbox.crowded


async def test_nothing_is_kept_for_a_client_that_was_given_up(fixture: Fixture) -> None:
    fixture.fill_socket(left_over=50)
    fixture.outbox.put(b"x", 5)
    async with asyncio.timeout(10):
        await fixture.overrun.wait()
    fixture.outbox.put(b"x", 1)
    assert fixture.outbox._pieces == []
    assert not fixture.outbox.crowded
    fixture.outbox.close()
    assert fixture.transport.aborted
    assert len(fixture.transport.writes) == 1


async def test_a_client_that_catches_up_is_forgiven(fixture: Fixture) -> None:
    fixture.fill_socket(left_over=50)
    fixture.outbox.put(b"x", 5)
    judgement = fixture.outbox._judgement
    fixture.transport.left_over = 0
    fixture.transport.room = 1000
    fixture.outbox.unblock()
    assert judgement.cancelled()
    assert fixture.transport.writes[1:] == [b"x"]


async def test_a_client_that_catches_up_half_way_is_spared(fixture: Fixture) -> None:
    fixture.fill_socket(left_over=50, messages=4)
    fixture.outbox.put(b"x", 2)
    fixture.transport.left_over = 25
    async with asyncio.timeout(10):
        while fixture.outbox._judgement:  # noqa: ASYNC110
            await asyncio.sleep(LIMITS.patience)
    assert not fixture.overrun.is_set()
    assert fixture.outbox._pieces == [b"x"]


async def test_bytes_are_limited_without_patience(fixture: Fixture) -> None:
    fixture.fill_socket(left_over=50)
    fixture.outbox.put(bytes(950), 1)
    assert fixture.outbox._pieces != []
    fixture.outbox.put(b"x", 1)
    assert fixture.outbox._pieces == []
    assert not fixture.overrun.is_set()
    await asyncio.sleep(0)
    assert fixture.overrun.is_set()


async def test_what_the_socket_takes_still_goes_out_at_the_end(fixture: Fixture) -> None:
    fixture.outbox.put(b"last words", 1)
    fixture.outbox.close()
    assert fixture.transport.writes == [b"last words"]
    assert fixture.transport.aborted
    fixture.outbox.put(b"too late", 1)
    fixture.outbox.flush()
    assert fixture.transport.writes == [b"last words"]

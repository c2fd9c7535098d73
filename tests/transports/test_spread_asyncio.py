"""What only the asyncio client has."""

from __future__ import annotations

import asyncio
import gc
import threading
from types import SimpleNamespace

import pytest

from spreadq_core.effects import Service
from spreadq_core.events import Received, TransportEvent
from tests.transports.contract import TIMEOUT
from tests.transports.fake_daemon import Client, FakeDaemon, accept_and_wait, message
from tests.transports.spread_members import AsyncioMember, ClientTests, Make
from transports.base import ClosedError
from transports.spread.messages import Data
from transports.spread.wire import encode


class TestAsyncioSpread(ClientTests):
    also_on_uvloop = True
    member = AsyncioMember

    async def test_one_flush_is_one_write(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        with FakeDaemon(accept_and_wait) as daemon:
            member = make(daemon.address)
            await member.start()
            writes: list[bytes] = []
            stub = SimpleNamespace(write=writes.append, get_write_buffer_size=lambda: 0)
            with monkeypatch.context() as patch:
                patch.setattr(member.transport._connection, "_transport", stub)
                member.transport.join("room")
                for _ in range(10):
                    member.transport.send(("room",), Service.AGREED, 0, b"x")
                assert writes == []
                member.transport.flush()
                member.transport.flush()
            assert len(writes) == 1
            await member.end()

    async def test_what_is_said_from_within_deliver_goes_out(self, make: Make) -> None:
        def talk(client: Client) -> None:
            client.accept()
            client.say(message(b"ping"))
            expected = encode(Data(client.session, ("room",), 0, b"pong"))
            assert client.take(len(expected)) == expected
            answered.set()
            client.take_rest()

        def answer(events: list[TransportEvent]) -> None:
            if Received("#other#fake", ("room",), 0, b"ping") in events:
                member.say("room", body=b"pong")

        answered = threading.Event()
        with FakeDaemon(talk) as daemon:
            member = make(daemon.address)
            member.transport._deliver = answer
            await member.start()
            assert await asyncio.to_thread(answered.wait, TIMEOUT)
            await member.end()

    async def test_close_while_it_connects(self, make: Make) -> None:
        accepting = threading.Event()

        def say_nothing(client: Client) -> None:
            accepting.set()
            client.take_rest()

        with FakeDaemon(say_nothing) as daemon:
            member = make(daemon.address)
            starting = asyncio.create_task(member.start())
            assert await asyncio.to_thread(accepting.wait, TIMEOUT)
            await member.end()
            with pytest.raises(ClosedError, match="make a new one"):
                await starting

    async def test_a_cancelled_start_leaves_nothing_behind(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        ended = threading.Event()

        def wait(client: Client) -> None:
            client.take_request()
            client.take_rest()
            ended.set()

        with FakeDaemon(wait) as daemon:
            member = make(daemon.address)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await member.start()
            assert await asyncio.to_thread(ended.wait, TIMEOUT)
            gc.collect()
        assert caplog.records == []

    async def test_deliver_is_not_called_after_close(self, make: Make) -> None:
        def chatter(client: Client) -> None:
            client.accept()
            client.say(message(b"one"))
            client.take_rest()

        with FakeDaemon(chatter) as daemon:
            member = make(daemon.address)
            await member.start()
            await member.next(Received)
            member.transport.close()
            await member.end()
            assert member.lists == []

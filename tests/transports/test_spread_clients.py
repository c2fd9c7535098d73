"""Both clients, where daemons break, hang or talk nonsense, and when they are closed."""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from collections.abc import Callable
from itertools import count

import pytest

from spreadq_core.effects import Service
from spreadq_core.events import Connected, Disconnected, Received
from tests.transports.contract import TIMEOUT
from tests.transports.fake_daemon import Client, FakeDaemon, accept_and_wait, message
from tests.transports.spread_members import AsyncioMember, BlockingMember, ClientTests, Make
from transports.base import Backoff, ClosedError
from transports.spread import handshake, sockets
from transports.spread.messages import Data, Join, Kill
from transports.spread.wire import LARGE_MESSAGE_LIMIT, encode


class LifeTests(ClientTests):
    """What holds for both."""

    # --- reconnecting -----------------------------------------------------------------------------

    async def test_it_reconnects_under_a_new_name_through_all_kinds_of_failures(self, make: Make) -> None:
        def refuse(client: Client) -> None:
            client.take_request()
            client.say(handshake.encode_reject(handshake.NotUniqueError))

        def nonsense(client: Client) -> None:
            client.say(b"\x7f")

        def accept_and_reset(client: Client) -> None:
            client.accept()
            client.take(1)
            client.reset()

        numbers = count(1)
        with FakeDaemon(accept_and_reset, refuse, Client.reset, nonsense, accept_and_wait) as daemon:
            member = make(daemon.address, names=lambda: f"name{next(numbers)}")
            await member.start()
            assert (await member.next(Connected)).session == "#name1#fake"
            member.say("room")
            assert (await member.next(Disconnected)).reason.startswith("the connection to the daemon broke")
            assert (await member.next(Connected)).session == "#name5#fake"
            await member.end()

    @pytest.mark.parametrize(
        ("said", "reason"),
        [
            (b"", "ended the connection"),
            (message(b"x")[:60], "ended the connection"),
            (bytes(48), "unknown type"),
            (b"\xff" * 48, "a message of -1 names"),
        ],
        ids=["end", "in mid-message", "unknown type", "absurd lengths"],
    )
    async def test_the_reason_of_a_disconnect_is_told(self, make: Make, said: bytes, reason: str) -> None:
        def accept_and_end(client: Client) -> None:
            client.accept()
            client.take(1)
            client.say(said)
            client.socket.shutdown(socket.SHUT_WR)
            client.take_rest()

        with FakeDaemon(accept_and_end, accept_and_wait) as daemon:
            member = make(daemon.address)
            await member.start()
            await member.connected()
            member.say("room")
            assert reason in (await member.next(Disconnected)).reason
            await member.next(Connected)
            await member.end()

    async def test_waits_between_attempts_grow_and_begin_anew(self, make: Make) -> None:
        drawn: list[int] = []

        def jitter() -> float:
            drawn.append(1)
            return 1.0

        def accept_and_end(client: Client) -> None:
            client.accept()

        backoff = Backoff(initial=0.001, factor=2.0, limit=0.004, jitter=jitter)
        scripts = [accept_and_end, *[Client.reset] * 4, accept_and_end, accept_and_wait]
        with FakeDaemon(*scripts) as daemon:
            member = make(daemon.address, backoff=backoff)
            await member.start()
            for _ in range(3):
                await member.next(Connected)
            assert len(drawn) == 6
            await member.end()

    # --- data -------------------------------------------------------------------------------------

    async def test_what_one_read_brings_is_one_list(self, make: Make) -> None:
        def talk(client: Client) -> None:
            client.accept()
            client.take(1)
            client.say(b"".join(message(b"%d" % number) for number in range(100)))
            client.take_rest()

        with FakeDaemon(talk) as daemon:
            member = make(daemon.address)
            await member.start()
            await member.connected()
            member.say("room")
            events = await member.more()
            assert [event.body for event in events] == [b"%d" % number for number in range(100)]
            await member.end()

    async def test_the_largest_message_of_any_build_arrives(self, make: Make) -> None:
        body = bytes(LARGE_MESSAGE_LIMIT - 32)

        def talk(client: Client) -> None:
            client.accept()
            client.say(message(body))
            client.take_rest()

        with FakeDaemon(talk) as daemon:
            member = make(daemon.address)
            await member.start()
            assert (await member.next(Received)).body == body
            await member.end()

    async def test_a_daemon_that_never_reads_is_given_up(self, make: Make) -> None:
        def accept_only(client: Client) -> None:
            client.accept()
            hanging.append(client.socket.dup())

        hanging: list[socket.socket] = []
        with FakeDaemon(accept_only, accept_and_wait) as daemon:
            member = make(daemon.address, output_limit=1_000_000)
            await member.start()
            await member.connected()
            for _ in range(200):
                member.say("room", body=bytes(100_000))
            assert "more than 1000000 bytes wait" in (await member.next(Disconnected)).reason
            await member.next(Connected)
            await member.end()
        for connection in hanging:
            connection.close()

    async def test_what_the_socket_does_not_take_at_once_is_sent_later(self, make: Make) -> None:
        bodies = [bytes([number]) * 100_000 for number in range(100)]
        expected = b"".join(encode(Data("#alice#fake", ("room",), 0, body)) for body in bodies)

        all_said = threading.Event()

        def read_late(client: Client) -> None:
            client.accept()
            assert all_said.wait(TIMEOUT)
            assert client.take(len(expected)) == expected
            client.say(message(b"got it"))
            client.take_rest()

        with FakeDaemon(read_late) as daemon:
            member = make(daemon.address, names=lambda: "alice")
            await member.start()
            for body in bodies:
                member.say("room", body=body)
            all_said.set()
            await member.next(Received)
            await member.end()

    # --- closing ----------------------------------------------------------------------------------

    async def test_close_says_kill_after_all_else_and_waits_for_the_end(self, make: Make) -> None:
        heard: list[bytes] = []

        def listen(client: Client) -> None:
            client.accept()
            expected = encode(Join(client.session, "room")) + encode(Kill(client.session, client.session))
            heard.append(client.take(len(expected)))
            assert heard == [expected]
            client.say(message(b"not for you any more") * 100)

        with FakeDaemon(listen) as daemon:
            member = make(daemon.address)
            await member.start()
            member.transport.join("room")
            await member.end()
            assert heard
            assert member.transport.session == ""

    async def test_close_does_not_wait_for_ever(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("asyncio_client", "blocking_client"):
            monkeypatch.setattr(f"transports.spread.{module}.CLOSE_TIMEOUT", 0.05)

        def ignore_the_kill(client: Client) -> None:
            client.accept()
            while client.take(1000):
                pass

        with FakeDaemon(ignore_the_kill) as daemon:
            member = make(daemon.address)
            await member.start()
            began = time.monotonic()
            await member.end()
            assert 0.04 < time.monotonic() - began < sockets.CLOSE_TIMEOUT

    async def test_a_closed_client_can_not_be_used_again(self, make: Make) -> None:
        with FakeDaemon(accept_and_wait) as daemon:
            member = make(daemon.address)
            await member.end()
            with pytest.raises(ClosedError, match="make a new one"):
                await member.start()
            assert daemon.connections == 0

    async def test_close_between_two_connections(self, make: Make) -> None:
        with FakeDaemon(Client.accept) as daemon:
            member = make(daemon.address, backoff=Backoff(initial=TIMEOUT, limit=TIMEOUT))
            await member.start()
            await member.next(Disconnected)
            await member.end()
            assert daemon.connections == 1

    # --- forks ------------------------------------------------------------------------------------

    async def test_a_forked_child_does_not_disturb_its_parents_connection(self, make: Make) -> None:
        def talk(client: Client) -> None:
            client.accept()
            client.say(message(b"before"))
            client.take(1)
            client.say(message(b"after"))
            client.take_rest()

        with FakeDaemon(talk) as daemon:
            member = make(daemon.address)
            await member.start()
            await member.next(Received)
            assert run_in_child(lambda: use_and_close(member.transport))
            member.say("room")
            assert (await member.next(Received)).body == b"after"
            await member.end()


def use_and_close(transport) -> bool:
    """In the child: everything that would speak on the connection raises, and close does nothing to it."""
    try:
        transport.send(("room",), Service.AGREED, 0, b"from the child")
        transport.flush()
    except ClosedError:
        transport.close()
        return True
    return False


def run_in_child(check: Callable[[], bool]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the fake daemon is a thread
        child = os.fork()
    if child == 0:
        os._exit(0 if check() else 1)
    return os.waitpid(child, 0)[1] == 0


class TestAsyncioSpread(LifeTests):
    also_on_uvloop = True
    member = AsyncioMember


class TestBlockingSpread(LifeTests):
    member = BlockingMember

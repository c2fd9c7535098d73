"""Both clients make their first connection, or say why they can't."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from spreadq_core.events import Connected
from tests.transports.contract import TIMEOUT
from tests.transports.fake_daemon import Client, FakeDaemon, accept_and_wait
from tests.transports.spread_members import AsyncioMember, BlockingMember, ClientTests, Make
from transports.base import CannotConnectError, ProtocolError
from transports.spread import handshake


class ConnectTests(ClientTests):
    """What holds for both."""

    @pytest.mark.parametrize(
        "error",
        [
            handshake.QuotaError,
            handshake.NoNameError,
            handshake.IllegalNameError,
            handshake.NotUniqueError,
            handshake.VersionError,
            handshake.AuthenticationError,
        ],
    )
    @pytest.mark.parametrize("when", ["at once", "after the request", "after the choice"])
    async def test_every_reject_has_a_name(
        self, make: Make, error: type[handshake.RejectedError], when: str
    ) -> None:
        def refuse(client: Client) -> None:
            if when != "at once":
                client.take_request()
            if when == "after the choice":
                client.say(handshake.encode_auth_list(("NULL",)))
                client.take(handshake.AUTH_CHOICE_SIZE)
            client.say(handshake.encode_reject(error))

        with FakeDaemon(refuse) as daemon, pytest.raises(error, match="refused the connection"):
            await make(daemon.address).start()

    async def test_an_unknown_reject_is_one_as_well(self, make: Make) -> None:
        with (
            FakeDaemon(lambda client: client.say(b"\x80")) as daemon,
            pytest.raises(handshake.RejectedError, match="check the daemon's log"),
        ):
            await make(daemon.address).start()

    async def test_without_the_null_method_it_is_an_authentication_error(self, make: Make) -> None:
        def offer(client: Client) -> None:
            client.take_request()
            client.say(handshake.encode_auth_list(("IP",)))
            assert client.take_rest() == b""

        with (
            FakeDaemon(offer) as daemon,
            pytest.raises(handshake.AuthenticationError, match="AllowedAuthMethods"),
        ):
            await make(daemon.address).start()

    @pytest.mark.parametrize("ending", ["end", "reset"])
    @pytest.mark.parametrize("said", [b"", b"\x05NUL"])
    async def test_an_end_during_the_handshake_may_be_a_lost_reject(
        self, make: Make, said: bytes, ending: str
    ) -> None:
        def vanish(client: Client) -> None:
            client.take_request()
            client.say(said)
            if ending == "reset":
                client.reset()

        with FakeDaemon(vanish) as daemon, pytest.raises(handshake.HandshakeResetError, match="try again"):
            await make(daemon.address).start()

    @pytest.mark.parametrize("said", [b"\x7f", b"\x05NULL \x02"])
    async def test_what_is_no_spread_daemon_is_told(self, make: Make, said: bytes) -> None:
        def talk(client: Client) -> None:
            client.take_request()
            client.say(said)
            client.take_rest()

        with FakeDaemon(talk) as daemon, pytest.raises(ProtocolError, match="check"):
            await make(daemon.address).start()

    async def test_an_old_daemon_is_told(self, make: Make) -> None:
        def accept(client: Client) -> None:
            client.take_request()
            client.say(handshake.encode_auth_list(("NULL",)))
            client.take(handshake.AUTH_CHOICE_SIZE)
            client.say(handshake.encode_accept(handshake.Accept("#a#d", (3, 17, 4))))

        with FakeDaemon(accept) as daemon, pytest.raises(handshake.VersionError, match=r"3\.17\.4"):
            await make(daemon.address).start()

    async def test_nobody_there(self, make: Make, tmp_path: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            address = f"{unused.getsockname()[1]}@localhost"
            with pytest.raises(CannotConnectError, match=f"{address} .*is one running there"):
                await make(address).start()
        with pytest.raises(CannotConnectError, match="No such file"):
            await make(f"unix:{tmp_path}/missing").start()

    async def test_a_silent_daemon_is_given_up(self, make: Make) -> None:
        with (
            FakeDaemon(Client.take_rest) as daemon,
            pytest.raises(CannotConnectError, match="no answer in time"),
        ):
            await make(daemon.address, connect_timeout=0.05).start()

    async def test_a_full_backlog_is_waited_for(self, make: Make, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        accepting, tried = threading.Event(), threading.Event()

        def hold_up(_: Client) -> None:
            accepting.set()
            assert tried.wait(TIMEOUT)

        names = iter(["first", "second", "third", "fourth"])

        def name() -> str:
            taken = next(names)
            if taken == "second":
                tried.set()
            return taken

        with FakeDaemon(hold_up, lambda _: None, accept_and_wait, path=path, backlog=0) as daemon:
            with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
                busy.connect(str(path))
                assert accepting.wait(TIMEOUT)
                waiting.connect(str(path))
                member = make(daemon.address, names=name)
                await member.start()
            await member.connected()
            assert member.session != "#first#fake"
            await member.end()

    async def test_a_backlog_that_stays_full_is_given_up(self, make: Make, tmp_path: Path) -> None:
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
            listener.bind(str(path))
            listener.listen(0)
            waiting.connect(str(path))
            with pytest.raises(CannotConnectError, match="is one running there"):
                await make(f"unix:{path}", connect_timeout=0.05).start()

    async def test_the_handshake_is_two_writes(self, make: Make) -> None:
        def watch(client: Client) -> None:
            assert client.socket.recv(1000) == b"\4\4\0\1\5alice"
            client.socket.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.socket.recv(1)
            client.socket.settimeout(TIMEOUT)
            for byte in handshake.encode_auth_list(("NULL", "IP")):
                client.say(bytes((byte,)))
            assert client.socket.recv(1000) == b"NULL" + bytes(86)
            for byte in handshake.encode_accept(handshake.Accept("#alice#fake")):
                client.say(bytes((byte,)))
            client.session = "#alice#fake"
            client.take_rest()

        with FakeDaemon(watch) as daemon:
            member = make(daemon.address, names=lambda: "alice")
            await member.start()
            assert await member.next(Connected) == Connected("#alice#fake")
            assert member.transport.session == "#alice#fake"
            await member.end()

    async def test_an_illegal_name_is_refused_before_it_is_sent(self, make: Make) -> None:
        with FakeDaemon(Client.take_rest) as daemon:
            for name in ("eleven-long", "a b", "日"):
                with pytest.raises(handshake.IllegalNameError, match="use 1 to 10"):
                    await make(daemon.address, names=lambda name=name: name).start()


class TestAsyncioSpread(ConnectTests):
    also_on_uvloop = True
    member = AsyncioMember


class TestBlockingSpread(ConnectTests):
    member = BlockingMember

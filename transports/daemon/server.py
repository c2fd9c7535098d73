"""A daemon for one machine inside any program: ordinary Spread clients connect to it (PROTOCOL 13)."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from spreadq_core.errors import UsageError
from transports.base import Deliver, NameSource, random_name
from transports.daemon.handshake import Handshake
from transports.daemon.limits import Limits
from transports.daemon.listeners import BACKLOG, Listener, listen_tcp, listen_unix
from transports.daemon.outbox import Outbox
from transports.groups import Member
from transports.memory import Hub, MemoryTransport

DEFAULT_PORT: Final = 4803
"""Where Spread's daemons listen (PROTOCOL 1)."""

DAEMON_NAME_LIMIT: Final = 19
"""Characters of a daemon's name, so that the longest private group name fits (PROTOCOL 2.6)."""


class Daemon(Hub):
    """Lives in the running event loop, from `start` to `stop`; it has one life.

    Clients may use either byte order and any version from 3.1 on. What a client sends can end its own
    connection and nothing else: there are limits for all that it can make the daemon hold.

    Args:
        name: of the daemon, the last part of all private group names.
        limits: how much it takes from clients.

    Raises:
        UsageError: there can be no such name.
    """

    def __init__(self, name: str = "localhost", *, limits: Limits | None = None) -> None:
        if not 1 <= len(name) <= DAEMON_NAME_LIMIT or not all("$" <= character <= "~" for character in name):
            raise UsageError(
                f"daemon name {name!r}: use 1 to {DAEMON_NAME_LIMIT} printable ASCII characters "
                "from '$' to '~' (no space, '!', '\"' or '#')"
            )
        super().__init__(name, int(time.time()), None)
        self.limits = limits or Limits()
        self._filled: list[Outbox] = []
        self._clients: set[asyncio.Transport] = set()
        self._listeners: list[Listener] = []
        self._servers: list[asyncio.Server] = []
        self._stopping = False
        self._empty = asyncio.Event()

    async def start(
        self, host: str = "127.0.0.1", port: int | None = DEFAULT_PORT, unix_path: str | None = None
    ) -> None:
        """Take clients from now on.

        Args:
            host: a loopback address.
            port: TCP port; 0 for a free one, None for none.
            unix_path: where to have a unix socket for this user; removed by `stop`.

        Raises:
            UsageError: another machine could reach that address, or it was started before.
            AddressInUseError: somebody listens there.
            CannotListenError: the system does not let us listen there.
        """
        if self._schedule is not None:
            raise UsageError("a daemon is started once; make a new one")
        try:
            if port is not None:
                self._listeners.append(listen_tcp(host, port))
            if unix_path is not None:
                self._listeners.append(listen_unix(unix_path))
        except Exception:
            while self._listeners:
                self._listeners.pop().close()
            raise
        loop = asyncio.get_running_loop()
        self._schedule = loop.call_soon
        for listener in self._listeners:
            create = loop.create_unix_server if listener.path else loop.create_server
            server = await create(lambda: Handshake(self), sock=listener.socket, backlog=BACKLOG)
            self._servers.append(server)

    @property
    def address(self) -> str:
        """Where to connect, in the form that clients take; the TCP port if there is one.

        Raises:
            UsageError: the daemon does not listen.
        """
        if not self._listeners:
            raise UsageError("this daemon does not listen; start it with a port or a unix path")
        return self._listeners[0].address

    async def stop(self) -> None:
        """Disconnect everybody; clients see the end of the stream and nothing else (PROTOCOL 8)."""
        self._stopping = True
        while self._listeners:
            self._listeners.pop().remove_file()
        for server in self._servers:
            server.close()
        for member in self.space.members:
            member.disconnect("the daemon stopped")
        for client in self._clients:
            client.abort()
        if self._clients:
            await self._empty.wait()
        await asyncio.sleep(0)  # the round in which members in this process hear of it

    def attach(
        self, deliver: Deliver, *, membership: bool, names: NameSource = random_name
    ) -> MemoryTransport:
        """Make a member that lives in this process and saves two hops through sockets.

        What comes in for it is delivered in the same turn of the loop, so nothing has to limit it.

        Raises:
            UsageError: the daemon does not run.
            NotUniqueError: the name source gave a name that is in use.
        """
        if self._schedule is None or self._stopping:
            raise UsageError("attach to a daemon between its start and its stop")
        transport = MemoryTransport(self, deliver, membership=membership)
        transport.connect(names())
        return transport

    # --- for connections ------------------------------------------------------------------------------

    def admit(self, client: asyncio.Transport) -> bool:
        """Count a new client, if there is room for it; then `dismiss` has to follow."""
        if self._stopping or len(self._clients) >= self.limits.connections:
            return False
        self._clients.add(client)
        return True

    def dismiss(self, client: asyncio.Transport) -> None:
        """The connection is closed."""
        self._clients.discard(client)
        if self._stopping and not self._clients:
            self._empty.set()

    def flush_soon(self, outbox: Outbox) -> None:
        """Write `outbox` at the end of this turn of the loop."""
        self._filled.append(outbox)
        self._request_round()

    def remove(self, member: Member) -> None:
        """See `Hub.remove`."""
        if not self._stopping:
            super().remove(member)

    def _make_round(self) -> None:
        # Outboxes after inboxes: so what members in this process answer goes out in the same turn.
        try:
            super()._make_round()
        finally:
            while self._filled:
                self._filled.pop().flush()

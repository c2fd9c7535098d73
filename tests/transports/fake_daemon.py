"""A daemon that follows a script: for what a real one does rarely, or never."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.transports.contract import TIMEOUT
from transports.spread.handshake import (
    AUTH_CHOICE_SIZE,
    Accept,
    encode_accept,
    encode_auth_list,
    parse_connect_request,
)
from transports.spread.messages import Data, Kill
from transports.spread.wire import encode

DAEMON = "fake"


class Client:
    """The daemon's side of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT)
        self.socket = connection
        self.session = ""
        """Private group name, once there is one."""

    def take(self, size: int) -> bytes:
        """Read exactly so many bytes; fewer at the end of the stream."""
        data = b""
        while len(data) < size and (chunk := self.socket.recv(size - len(data))):
            data += chunk
        return data

    def take_rest(self) -> bytes:
        """Read until the client ends the stream, or asks for its end with a KILL."""
        kill = encode(Kill(self.session, self.session))
        data = b""
        while not data.endswith(kill) and (chunk := self.socket.recv(65536)):
            data += chunk
        return data

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def take_request(self) -> None:
        """Read the connect request as a real daemon does: all of it must come in one piece."""
        request, _ = parse_connect_request(self.socket.recv(16))
        self.session = f"#{request.name}#{DAEMON}"

    def accept(self) -> None:
        """Shake hands to the end."""
        self.take_request()
        self.say(encode_auth_list(("NULL",)))
        assert len(self.take(AUTH_CHOICE_SIZE)) == AUTH_CHOICE_SIZE
        self.say(encode_accept(Accept(self.session)))

    def reset(self) -> None:
        """End the connection as if there were unread bytes: the client sees a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


Script = Callable[[Client], None]


def message(body: bytes) -> bytes:
    """What another client says to `room`."""
    return encode(Data("#other#fake", ("room",), 0, body))


def accept_and_wait(client: Client) -> None:
    """Script of a daemon that has nothing to say."""
    client.accept()
    client.take_rest()


class FakeDaemon:
    """Plays one script for each connection, one after the other, in a thread of its own.

    The last script is repeated. What a script raises is raised again when the daemon ends.
    """

    def __init__(self, *scripts: Script, path: Path | None = None, backlog: int = 16) -> None:
        self._scripts = scripts
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.bind(str(path) if path else ("127.0.0.1", 0))
        self._listener.listen(backlog)
        self._errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.connections = 0

    @property
    def address(self) -> str:
        return f"unix:{self._path}" if self._path else f"{self._listener.getsockname()[1]}@127.0.0.1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(TIMEOUT)
        self._listener.close()
        if error is None and not self._errors.empty():
            raise self._errors.get()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            with connection:
                try:
                    script(Client(connection))
                except BaseException as error:
                    self._errors.put(error)

"""The sockets on which an embedded daemon listens: for this machine, and over a unix socket for this user."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from typing import Final

import attrs

from spreadq_core.errors import UsageError
from transports.base import TransportError

BACKLOG: Final = 1024
"""Connections that may wait to be accepted; a whole fleet of workers comes at once."""


class CannotListenError(TransportError):
    """The daemon can't listen where it should."""


class AddressInUseError(CannotListenError):
    """Somebody listens there already."""


@attrs.frozen
class Listener:
    """A socket that listens.

    Args:
        socket: itself.
        address: in the form that clients take.
        path: of a unix socket.
        inode: of the file at `path`, which somebody may replace.
    """

    socket: socket.socket
    address: str
    path: str = ""
    inode: int = 0

    def close(self) -> None:
        """Stop listening."""
        self.remove_file()
        self.socket.close()

    def remove_file(self) -> None:
        """Remove the file of a unix socket, which must be open, if the file is still its own."""
        try:
            if self.path and os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        except FileNotFoundError:
            pass


def listen_tcp(host: str, port: int) -> Listener:
    """Listen on the loopback interface, on a free port if `port` is 0.

    Raises:
        UsageError: the address is another one, or there is no such port.
        AddressInUseError: the port is taken.
        CannotListenError: the system does not let us.
    """
    if not _is_loopback(host):
        raise UsageError(
            f"host {host!r}: an embedded daemon serves one machine, so give 127.0.0.1; "
            "several machines use real Spread daemons"
        )
    if not 0 <= port <= 0xFFFF:
        raise UsageError(f"port {port}: give a number from 1 to 65535, or 0 for any free port")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # What lingers in the kernel of an earlier daemon's connections is no reason to wait.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(f"TCP port {port}", error) from error
    return Listener(listener, f"{listener.getsockname()[1]}@{host}")


def listen_unix(path: str) -> Listener:
    """Listen on a unix socket of mode 0600; a file that a dead daemon left behind is replaced.

    Raises:
        AddressInUseError: a daemon listens there, or the file is no socket.
        CannotListenError: the system does not let us.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        listener.bind(path)
        # Nobody can connect before `listen`.
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(f"unix socket {path}", error) from error
    return Listener(listener, f"unix:{path}", path, os.stat(path).st_ino)


def _remove_stale(path: str) -> None:
    """Remove the socket at `path` if nobody listens on it (PROTOCOL 1)."""
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if is_socket and probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def _cannot_listen(where: str, error: OSError) -> CannotListenError:
    if error.errno == errno.EADDRINUSE:
        return AddressInUseError(
            f"{where} is in use; if a Spread daemon runs there, connect to it, else choose another "
            "(--port, and the same in SPREADQ_DAEMON)"
        )
    return CannotListenError(f"cannot listen on {where}: {error.strerror or error}; choose another")

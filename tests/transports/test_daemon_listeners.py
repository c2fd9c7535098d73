"""Where an embedded daemon listens, and where it refuses to."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from spreadq_core.errors import UsageError
from transports.daemon.listeners import (
    AddressInUseError,
    CannotListenError,
    Listener,
    listen_tcp,
    listen_unix,
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s")


@pytest.fixture
def listener(path: str) -> Iterator[Listener]:
    listener = listen_unix(path)
    yield listener
    listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost"])
def test_a_free_port_is_reported(host: str) -> None:
    listener = listen_tcp(host, 0)
    port = listener.socket.getsockname()[1]
    assert port != 0
    assert listener.address == f"{port}@{host}"
    listener.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.168.1.1", "::1", "::", "example.org", "<broadcast>"])
def test_other_machines_are_served_by_real_daemons(host: str) -> None:
    with pytest.raises(UsageError, match="several machines use real Spread daemons"):
        listen_tcp(host, 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_there_is_no_such_port(port: int) -> None:
    with pytest.raises(UsageError, match="from 1 to 65535"):
        listen_tcp("127.0.0.1", port)


def test_a_port_is_taken_once() -> None:
    first = listen_tcp("127.0.0.1", 0)
    port = first.socket.getsockname()[1]
    with pytest.raises(AddressInUseError, match=f"TCP port {port} is in use"):
        listen_tcp("127.0.0.1", port)
    first.close()
    listen_tcp("127.0.0.1", port).close()


def test_a_unix_socket_is_its_owners_alone_and_vanishes(listener: Listener, path: str) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert listener.address == f"unix:{path}"
    listener.close()
    assert not os.path.exists(path)


def test_a_unix_socket_in_use_is_left_alone(listener: Listener, path: str) -> None:
    with pytest.raises(AddressInUseError, match=r"unix socket .* is in use"):
        listen_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_what_a_dead_daemon_left_behind_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    listener = listen_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    listener.close()


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("mine")
    with pytest.raises(AddressInUseError):
        listen_unix(path)
    assert Path(path).read_text() == "mine"


def test_somebody_elses_socket_is_not_removed(listener: Listener, path: str) -> None:
    os.unlink(path)
    Path(path).write_text("mine")
    listener.close()
    assert Path(path).read_text() == "mine"


@pytest.mark.parametrize("name", ["x" * 200, "missing/s"])
def test_what_the_system_does_not_allow_is_explained(tmp_path: Path, name: str) -> None:
    with pytest.raises(CannotListenError, match=r"cannot listen on unix socket .*; choose another"):
        listen_unix(str(tmp_path / name))

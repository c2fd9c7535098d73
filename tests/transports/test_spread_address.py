"""The forms in which people write addresses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from transports.base import IllegalAddressError
from transports.spread import address
from transports.spread.address import (
    DEFAULT_ADDRESS,
    UNIX_PATH_LIMIT,
    TcpAddress,
    UnixAddress,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (DEFAULT_ADDRESS, TcpAddress("localhost", 4803)),
        ("4803@127.0.0.1", TcpAddress("127.0.0.1", 4803)),
        ("1@spread-1.example.org", TcpAddress("spread-1.example.org", 1)),
        ("spread://example.org:65535", TcpAddress("example.org", 65535)),
        ("unix:/run/spread/socket", UnixAddress("/run/spread/socket")),
        ("04803", UnixAddress(f"{address.SOCKET_DIRECTORY}/4803", TcpAddress("localhost", 4803))),
    ],
)
def test_forms(text: str, parsed: TcpAddress | UnixAddress) -> None:
    assert parse_address(text) == parsed


@pytest.mark.parametrize("text", ["4803@localhost", "unix:/run/x"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "localhost:4803",
        "0",
        "65536",
        "0@localhost",
        "99999@localhost",
        "4803@",
        "@localhost",
        "4803@a b",
        "4803@a@b",
        "4803@a..b",
        "4803@" + "x" * 64,
        "4803@::1",
        "٤٨٠٣",
        "4803\n",
        "spread://host",
        "spread://:4803",
        "http://host:4803",
        "unix:",
        "unix:relative",
        "unix:/nul\0",
        "unix:/" + "x" * UNIX_PATH_LIMIT,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(IllegalAddressError, match="write 4803@host"):
        parse_address(text)


def test_the_longest_unix_path_is_taken() -> None:
    assert parse_address("unix:/" + "x" * (UNIX_PATH_LIMIT - 1)) == UnixAddress(
        "/" + "x" * (UNIX_PATH_LIMIT - 1)
    )


def test_localhost_needs_no_resolver() -> None:
    assert TcpAddress("localhost", 4803).resolve() == (socket.AF_INET, ("127.0.0.1", 4803))
    assert TcpAddress("example.org", 4803).resolve() == (socket.AF_INET, ("example.org", 4803))


def test_a_bare_port_is_the_unix_socket_as_soon_as_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "SOCKET_DIRECTORY", str(tmp_path))
    parsed = parse_address("4803")
    assert parsed.resolve() == (socket.AF_INET, ("127.0.0.1", 4803))
    (tmp_path / "4803").touch()
    assert parsed.resolve() == (socket.AF_UNIX, str(tmp_path / "4803"))

"""The handshake's bytes: any of them, whole and in parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.base import PRIVATE_NAME_LIMIT, ProtocolError
from transports.spread import handshake
from transports.spread.handshake import (
    AUTH_CHOICE_SIZE,
    AUTH_LIST_LIMIT,
    Accept,
    ConnectRequest,
    IllegalNameError,
    RejectedError,
    VersionError,
    encode_accept,
    encode_auth_choice,
    encode_auth_list,
    encode_connect_request,
    encode_reject,
    parse_accept,
    parse_auth_choice,
    parse_auth_list,
    parse_connect_request,
)

LEGAL = "".join(map(chr, range(0x24, 0x7F)))
names = st.text(st.sampled_from(LEGAL), max_size=PRIVATE_NAME_LIMIT)
versions = st.sampled_from([(3, 1, 0), (3, 14, 0), (3, 15, 2), (3, 16, 0), (4, 4, 0), (127, 0, 0)])


@given(st.builds(ConnectRequest, names, st.booleans(), st.integers(0, 1), versions), st.binary(max_size=9))
def test_connect_requests_survive_and_what_follows_is_left(request_: ConnectRequest, rest: bytes) -> None:
    data = encode_connect_request(request_)
    assert parse_connect_request(data + rest) == (request_, len(data))
    for size in range(len(data)):
        assert parse_connect_request(data[:size]) is None


@pytest.mark.parametrize("flags", range(256))
def test_membership_is_wanted_by_odd_and_positive_flags(flags: int) -> None:
    request, _ = parse_connect_request(bytes((4, 4, 0, flags, 1)) + b"a")
    assert request.membership == (flags in range(1, 128, 2))


@pytest.mark.parametrize("character", range(256))
def test_characters_of_private_names(character: int) -> None:
    data = bytes((4, 4, 0, 1, 1, character))
    if chr(character) in LEGAL:
        assert parse_connect_request(data)[0].name == chr(character)
    else:
        with pytest.raises(IllegalNameError):
            parse_connect_request(data)


@pytest.mark.parametrize("size", [11, 200, 255])
def test_too_long_names_are_refused_before_they_are_read(size: int) -> None:
    with pytest.raises(IllegalNameError):
        parse_connect_request(bytes((4, 4, 0, 1, size)))


@pytest.mark.parametrize("version", [(0, 0), (2, 99), (3, 0), (128, 0), (255, 255)])
def test_old_clients_are_refused_at_their_second_byte(version: tuple[int, int]) -> None:
    with pytest.raises(VersionError):
        parse_connect_request(bytes(version))


@pytest.mark.parametrize("name", ["eleven-long", "a b", "#", "é", "日"])
def test_we_ask_for_no_illegal_name(name: str) -> None:
    with pytest.raises(IllegalNameError, match="use 1 to 10 characters"):
        encode_connect_request(ConnectRequest(name, membership=True))


@pytest.mark.parametrize("methods", [(), ("NULL",), ("NULL", "IP"), ("NULL", "NULL", "IP")])
def test_methods_survive(methods: tuple[str, ...]) -> None:
    offered = encode_auth_list(methods)
    assert parse_auth_list(offered + b"more") == (methods, len(offered))
    chosen = encode_auth_choice(methods)
    assert len(chosen) == AUTH_CHOICE_SIZE
    assert parse_auth_choice(chosen) == methods
    assert parse_auth_choice(chosen[:-1]) is None


def test_a_choice_is_read_up_to_the_first_empty_field() -> None:
    data = b"NULL".ljust(30, b"\0") + bytes(30) + b"IP".ljust(30, b"\0")
    assert parse_auth_choice(data) == ("NULL",)


def test_a_list_of_methods_has_a_limit() -> None:
    assert parse_auth_list(bytes((AUTH_LIST_LIMIT,))) is None
    with pytest.raises(ProtocolError, match="check the address"):
        parse_auth_list(bytes((AUTH_LIST_LIMIT + 1,)))


@given(st.text(st.characters(min_codepoint=1, max_codepoint=255), min_size=1, max_size=31))
def test_accepts_survive(name: str) -> None:
    data = encode_accept(Accept(name))
    assert parse_accept(data + b"more") == (Accept(name), len(data))
    for size in range(len(data)):
        assert parse_accept(data[:size]) is None


@pytest.mark.parametrize("data", [b"\0", b"\2", b"\x7f", b"\1\4\4\0\0", b"\1\4\4\0\x20"])
def test_other_answers_are_no_accepts(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_accept(data)


@pytest.mark.parametrize("parse", [parse_auth_list, parse_accept])
@pytest.mark.parametrize("code", range(-128, 0))
def test_every_negative_byte_is_a_reject(parse: Callable[[bytes], object], code: int) -> None:
    with pytest.raises(RejectedError) as caught:
        parse(bytes((code & 0xFF,)))
    known = {-3, -4, -5, -6, -7, -9}
    assert (caught.value.code == code) == (code in known)
    if code in known:
        assert encode_reject(caught.type) == bytes((code & 0xFF,))


@pytest.mark.parametrize("error", handshake._REJECTS.values())
def test_rejects_say_what_to_do(error: type[RejectedError]) -> None:
    assert str(error()) == f"the Spread daemon refused the connection: {error.advice}"


@pytest.mark.parametrize("parse", [parse_connect_request, parse_auth_list, parse_auth_choice, parse_accept])
def test_any_bytes_give_a_value_or_a_typed_error(parse: Callable[[bytes], object]) -> None:
    @given(st.binary(max_size=300))
    def check(data: bytes) -> None:
        with contextlib.suppress(RejectedError, ProtocolError):
            parse(data)

    check()

"""Every byte of every capture is understood, and comes out of our encoders again."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from spreadq_core.events import Cause
from tests.transports.vectors import VECTORS, Step, Vector
from transports.base import ProtocolError
from transports.spread.handshake import (
    AUTH_CHOICE_SIZE,
    ConnectRequest,
    RejectedError,
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
from transports.spread.messages import Data, Membership, SelfLeave, TransitionSignal
from transports.spread.reader import Reader
from transports.spread.wire import (
    ENDIAN_MARK,
    HEADER_SIZE,
    decode_from_client,
    decode_from_daemon,
    encode,
    locate,
)

CONNECTIONS = [(name, connection) for name, vector in VECTORS.items() for connection in vector.connections]

# What a capture contains on purpose, and no encoder of ours would ever write. All other bytes of all
# captures must come out the same. The value: how reading ends, and why.
ODD_REQUESTS = {
    ("auth_two_methods", "B"): ("other bytes", "junk behind the NUL of the method's name"),
    ("c_library", "A"): ("other bytes", "the C library leaves stale memory behind the NUL in its KILL"),
    ("passthrough_bits", "B"): ("other bytes", "junk behind the NUL of sender and group"),
    ("join_several_groups_field", "A"): ("other bytes", "a JOIN of two groups; only the first counts"),
    ("connect_split", "A"): ("IncompleteError", "the name is missing"),
    ("connect_split", "B"): ("IncompleteError", "a part of the name is missing"),
    ("connect_split", "C"): ("IncompleteError", "only two bytes"),
    ("reject_auth_split", "A"): ("IncompleteError", "40 of the 90 bytes of an auth choice"),
    ("body_over_max_stock", "B"): ("IncompleteError", "the daemon closed at the sight of the header"),
    ("disconnect_half_message", "B"): ("IncompleteError", "the client closed in mid-message"),
    ("invalid_headers", "B"): ("ProtocolError", "two service bits"),
    ("invalid_headers", "C"): ("ProtocolError", "no service bit"),
    ("invalid_headers", "D"): ("ProtocolError", "service bit and JOIN"),
    ("invalid_headers", "E"): ("ProtocolError", "JOIN and LEAVE"),
    ("invalid_headers", "J"): ("ProtocolError", "num_groups -1"),
    ("invalid_headers", "K"): ("ProtocolError", "num_groups 101"),
    ("invalid_headers", "L"): ("ProtocolError", "a bit in the low byte of the hint"),
    ("invalid_headers", "M"): ("ProtocolError", "a bit in the high byte of the hint"),
    ("invalid_headers", "N"): ("ProtocolError", "data_len -1"),
    ("invalid_headers", "O"): ("ProtocolError", "little-endian without a mark"),
    ("invalid_headers", "P"): ("ProtocolError", "little-endian with half a mark"),
    ("reject_illegal_name", "A"): ("IllegalNameError", "a character outside $..~"),
    ("reject_illegal_name", "B"): ("IllegalNameError", "a character outside $..~"),
    ("reject_illegal_name", "C"): ("IllegalNameError", "a character outside $..~"),
    ("reject_illegal_name", "D"): ("IllegalNameError", "a character outside $..~"),
    ("reject_illegal_name", "E"): ("IllegalNameError", "a character outside $..~"),
    ("reject_illegal_name", "F"): ("IllegalNameError", "a character outside $..~"),
    ("reject_name_too_long", "A"): ("IllegalNameError", "11 characters"),
    ("reject_name_too_long", "B"): ("IllegalNameError", "200 characters"),
    ("reject_version", "A"): ("VersionError", "3.0"),
    ("reject_version", "B"): ("VersionError", "2.99.99"),
    ("reject_version", "C"): ("VersionError", "200.0.0, which is negative"),
}
ODD_ANSWERS = {
    ("passthrough_bits", "A"): ("other bytes", "the daemon forwards junk behind NULs"),
    ("connect_old_versions", "A"): (
        "ProtocolError",
        "no third byte of the version: the client said 3.1, and no client of ours does",
    ),
}


class IncompleteError(Exception):
    """The stream ends in the middle of something."""


def whole(parsed):
    if parsed is None:
        raise IncompleteError
    return parsed


def messages(data: bytes, decode) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        if len(data) - at < HEADER_SIZE:
            raise IncompleteError
        header, body_at, end = locate(data, at)
        if end > len(data):
            raise IncompleteError
        yield encode(decode(data, header, at + HEADER_SIZE, body_at, end), header.order)
        at = end


def requests(data: bytes, vector: Vector) -> Iterator[bytes]:
    """Read and write again, piece by piece, what a client said."""
    if data and not vector.excerpt:
        request, used = whole(parse_connect_request(data))
        yield encode_connect_request(request)
        data = data[used:]
        if data and request.authenticates:
            yield encode_auth_choice(whole(parse_auth_choice(data)))
            data = data[AUTH_CHOICE_SIZE:]
    yield from messages(data, decode_from_client)


def answers(data: bytes, vector: Vector, authenticates: bool) -> Iterator[bytes]:
    """Read and write again, piece by piece, what the daemon said."""
    try:
        if data and not vector.excerpt:
            if authenticates:
                methods, used = whole(parse_auth_list(data))
                yield encode_auth_list(methods)
                data = data[used:]
            if data:
                accept, used = whole(parse_accept(data))
                yield encode_accept(accept)
                data = data[used:]
    except RejectedError as reject:
        yield encode_reject(type(reject))
        data = data[1:]
    yield from messages(data, decode_from_daemon)


def verdict(pieces: Iterator[bytes], data: bytes) -> str:
    """Say how reading `data` ended; empty if it came out the same."""
    encoded = b""
    end = ""
    try:
        for piece in pieces:
            encoded += piece
    except (ProtocolError, RejectedError, IncompleteError) as error:
        end = type(error).__name__
        assert data.startswith(encoded)
    return end or ("" if encoded == data else "other bytes")


def request_of(vector: Vector, connection: str) -> ConnectRequest | None:
    try:
        parsed = parse_connect_request(vector.said(connection, "c2s"))
    except RejectedError:
        return None
    return parsed[0] if parsed and not vector.excerpt else None


@pytest.mark.parametrize(("name", "connection"), CONNECTIONS)
def test_requests_come_out_the_same(name: str, connection: str) -> None:
    data = VECTORS[name].said(connection, "c2s")
    odd, _why = ODD_REQUESTS.get((name, connection), ("", ""))
    assert verdict(requests(data, VECTORS[name]), data) == odd


@pytest.mark.parametrize(("name", "connection"), CONNECTIONS)
def test_answers_come_out_the_same(name: str, connection: str) -> None:
    vector = VECTORS[name]
    data = vector.said(connection, "s2c")
    request = request_of(vector, connection)
    odd, _why = ODD_ANSWERS.get((name, connection), ("", ""))
    pieces = answers(data, vector, authenticates=request is None or request.authenticates)
    assert verdict(pieces, data) == odd


@pytest.mark.parametrize("table", [ODD_REQUESTS, ODD_ANSWERS])
def test_nothing_is_called_odd_that_does_not_exist(table: dict[tuple[str, str], tuple[str, str]]) -> None:
    assert set(table) <= set(CONNECTIONS)


REJECTED = [key for key, (odd, _why) in ODD_REQUESTS.items() if odd in {"IllegalNameError", "VersionError"}]


@pytest.mark.parametrize(("name", "connection"), REJECTED)
def test_our_checks_give_the_code_that_the_daemon_gave(name: str, connection: str) -> None:
    with pytest.raises(RejectedError) as caught:
        parse_connect_request(VECTORS[name].said(connection, "c2s"))
    assert encode_reject(caught.type) == VECTORS[name].said(connection, "s2c")


# --- the content, as the notes tell it ------------------------------------------------------------

NOTED = re.compile(
    r"type=0x(?P<type>\w+) .*?field=(?P<name>'.*?') num_groups=(?P<num_groups>\d+) hint=0x\w+ "
    r"data_len=(?P<data_len>\d+)(?: groups=(?P<groups>\[.*?\])(?P<cut> \.\.\.)?)?"
    r"(?: body: group_id=(?P<group_id>\(.*?\))(?: .*\(set #(?P<own_set>\d+)\) vs_sets=(?P<sets>\[.*\]))?)?$"
)
NOTES = [
    pytest.param(step, id=f"{name}-{connection}-{number}")
    for name, vector in VECTORS.items()
    for connection in vector.connections
    for number, step in enumerate(vector.of(connection))
    if step.direction == "s2c" and NOTED.search(step.note)
]


@pytest.mark.parametrize("step", NOTES)
def test_content_is_what_the_note_says(step: Step) -> None:
    noted = NOTED.search(step.note)
    (message,) = Reader().feed(step.data)
    name = ast.literal_eval(noted["name"])
    names = ast.literal_eval(noted["groups"] or "[]")
    match message:
        case Data():
            assert message.type_bits == int(noted["type"], 16) & ~ENDIAN_MARK
            assert message.sender == name
            assert list(message.groups)[: len(names)] == names
            assert len(message.groups) == int(noted["num_groups"])
            assert len(message.body) == int(noted["data_len"])
        case Membership():
            assert f"CAUSED_BY_{message.cause.name}" in step.note
            assert message.group == name
            assert list(message.members)[: len(names)] == names
            assert len(message.members) == int(noted["num_groups"])
            assert group_id(message) == ast.literal_eval(noted["group_id"])
            assert [list(names) for names in message.sets] == ast.literal_eval(noted["sets"])
            assert message.own_set == int(noted["own_set"])
        case TransitionSignal():
            assert message.group == name
            assert group_id(message) == ast.literal_eval(noted["group_id"])
        case SelfLeave():
            assert message.group == name
        case _:
            pytest.fail(f"no daemon of these captures sends {message}")


def group_id(message: Membership | TransitionSignal) -> tuple[int, int, int]:
    return message.group_id.daemon, message.group_id.time, message.group_id.index


def test_the_notes_cover_every_kind_of_message() -> None:
    kinds = {type(message) for param in NOTES for message in Reader().feed(param.values[0].data)}
    assert kinds == {Data, Membership, TransitionSignal, SelfLeave}
    assert len(NOTES) > 150


# --- single facts worth a test of their own --------------------------------------------------------


def test_big_endian_senders_number_is_read_by_the_hints_own_mark() -> None:
    vector = VECTORS["big_endian_sender"]
    data = [m for m in Reader().feed(vector.messages_to("A")) if isinstance(m, Data)]
    assert [(m.mess_type, m.endian_mismatch) for m in data][:2] == [(0x1234, True), (-2, True)]


def test_forged_membership_is_data() -> None:
    data = [m for m in Reader().feed(VECTORS["forged_membership"].messages_to("A")) if isinstance(m, Data)]
    assert [m.type_bits for m in data] == [0x1104, 0x2010, 0x204]
    assert {m.sender for m in data} == {"#bob#localhost"}


def test_a_reject_bit_beside_a_service_is_data_without_an_extra_word() -> None:
    (message,) = Reader().feed(VECTORS["reject_bit"].messages_to("B"))[-1:]
    assert isinstance(message, Data)
    assert message.type_bits == 0x400004


def test_own_set_is_not_always_the_first() -> None:
    own_sets = {
        message.own_set
        for connection in "ABCD"
        for message in Reader().feed(VECTORS["three_daemons_partition_heal"].messages_to(connection))
        if isinstance(message, Membership) and message.cause is Cause.NETWORK
    }
    assert len(own_sets) > 1

"""Spread's client protocol on the wire: bytes <-> the values of `messages` (PROTOCOL 3-6).

Pure, and for both ends: a client decodes what daemons send, a daemon what clients send. A message is a
header of 48 bytes, `num_groups` names of 32 bytes, and `data_len` bytes of body. `reader` finds the
messages in a stream; `handshake` has what comes before the first one.

A writer may use either byte order, and marks it in the type word. The hint, which carries the
application's `mess_type`, has a mark of its own because daemons never convert it.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import msgspec

from spreadq_core.events import Cause
from transports.base import IllegalGroupError, ProtocolError
from transports.spread.messages import (
    CAUSED_BY_DISCONNECT,
    CAUSED_BY_JOIN,
    CAUSED_BY_LEAVE,
    CAUSED_BY_NETWORK,
    JOIN,
    KILL,
    LEAVE,
    REGULAR_MEMBERSHIP,
    REJECT,
    REQUESTS,
    SERVICES,
    TRANSITION,
    ClientMessage,
    DaemonMessage,
    Data,
    GroupId,
    Join,
    Kill,
    Leave,
    Membership,
    Reject,
    SelfLeave,
    TransitionSignal,
)

HEADER_SIZE: Final = 48
NAME_SIZE: Final = 32

ENDIAN_MARK: Final = 0x80000080
"""Both bits set by little-endian writers, both clear on big-endian ones; the same read either way."""

MESS_TYPE_MASK: Final = 0x00FFFF00
"""Where `mess_type` is in a hint that is in our byte order (PROTOCOL 3.4)."""

DAEMON_GROUPS_LIMIT: Final = 100
"""Destinations beyond which a daemon closes the connection (PROTOCOL 3.7)."""

LARGE_MESSAGE_LIMIT: Final = 14_319_952
"""Bytes of names and body in the largest message of any known build of Spread (PROTOCOL 3.6)."""

ByteOrder: TypeAlias = Literal["little", "big"]
"""Order of the bytes in the integers of a message (PROTOCOL 3.2)."""


def _layouts(fields: str) -> dict[ByteOrder, struct.Struct]:
    return {"little": struct.Struct("<" + fields), "big": struct.Struct(">" + fields)}


_HEADER = _layouts("I32siIi")
_START = _layouts("I32siI")
"""A header but for its last field, `data_len`."""
_START_SIZE = 44
_LENGTH = _layouts("i")
_WORD = _layouts("I")
_WORD_SIZE = 4
_GROUP_ID = _layouts("iii")
_GROUP_ID_SIZE = 12
_SETS = _layouts("II")
_SETS_AT = 20
"""Where the sets begin in the body of a membership message (PROTOCOL 6.2)."""

_CAUSES = {
    CAUSED_BY_JOIN: Cause.JOIN,
    CAUSED_BY_LEAVE: Cause.LEAVE,
    CAUSED_BY_DISCONNECT: Cause.DISCONNECT,
    CAUSED_BY_NETWORK: Cause.NETWORK,
}
_CAUSE_BITS = {cause: bit for bit, cause in _CAUSES.items()}

_CACHED_NAMES = 8192
_CACHED_LISTS = 1024


class Header(msgspec.Struct, frozen=True, gc=False):
    """What a message begins with, but for its length (PROTOCOL 3.1); integers in our order.

    Args:
        type_bits: the type word without the endian mark.
        name: of the sender, or of the group in membership messages. It has 32 characters where,
            against the protocol, there was no NUL.
        num_groups: how many names follow.
        hint: as the header's byte order gives it.
        mess_type: the application's signed number of 16 bits, from the hint.
        endian_mismatch: the hint was in the other byte order than the header.
        order: of all integers but the hint.
        names_size: bytes between header and body.
    """

    type_bits: int
    name: str
    num_groups: int
    hint: int
    mess_type: int
    endian_mismatch: bool
    order: ByteOrder
    names_size: int


# --- reading ------------------------------------------------------------------------------------


def locate(buffer: bytes, at: int) -> tuple[Header, int, int]:
    """Find the parts of the message at `at`, whose 48 bytes of header must be in `buffer`.

    Absurd lengths are refused here, before anybody waits or allocates for them.

    Returns:
        The header, where the body begins, and where the message ends (perhaps beyond `buffer`).

    Raises:
        ProtocolError: a negative length, or more than `LARGE_MESSAGE_LIMIT` bytes of names and body.
    """
    header = _parse_start(buffer[at : at + _START_SIZE])
    (data_len,) = _LENGTH[header.order].unpack_from(buffer, at + _START_SIZE)
    if data_len < 0 or NAME_SIZE * header.num_groups + data_len > LARGE_MESSAGE_LIMIT:
        raise ProtocolError(
            f"a message of {header.num_groups} names and {data_len} bytes: the other end does not speak "
            "Spread's client protocol; check the address"
        )
    body_at = at + HEADER_SIZE + header.names_size
    return header, body_at, body_at + data_len


@lru_cache(maxsize=_CACHED_NAMES)
def _parse_start(start: bytes) -> Header:
    """Cached because the messages of a sender are alike here; a hit takes a tenth of the time."""
    order: ByteOrder = "little"
    type_word, name, num_groups, hint = _START[order].unpack(start)
    if type_word & ENDIAN_MARK != ENDIAN_MARK:
        order = "big"
        type_word, name, num_groups, hint = _START[order].unpack(start)
    if num_groups < 0:
        raise ProtocolError(f"a message of {num_groups} names: check the address")
    type_bits = type_word & ~ENDIAN_MARK
    endian_mismatch = (hint & ENDIAN_MARK == ENDIAN_MARK) != (order == "little")
    number = ((_swap(hint) if endian_mismatch else hint) & MESS_TYPE_MASK) >> 8
    names_size = NAME_SIZE * num_groups
    if type_bits & (REJECT | SERVICES) == REJECT:
        names_size += _WORD_SIZE  # the refused type, which no field counts (PROTOCOL 5.5)
    return Header(
        type_bits,
        decode_name(name),
        num_groups,
        hint,
        number - 0x10000 if number & 0x8000 else number,
        endian_mismatch,
        order,
        names_size,
    )


def decode_from_daemon(buffer: bytes, header: Header, names_at: int, body_at: int, end: int) -> DaemonMessage:
    """Read what a daemon sent; the offsets are those of `locate`, and `names_at` is behind the header.

    The type bits are looked at in the order of PROTOCOL 3.3: senders may forge all but the first.

    Raises:
        ProtocolError: there is no such message, or its parts contradict each other.
    """
    bits = header.type_bits
    if bits & SERVICES:
        return _decode_data(buffer, header, names_at, body_at, end)
    if bits & REJECT:
        (refused_type,) = _WORD[header.order].unpack_from(buffer, names_at)
        refused = _decode_data(buffer, header, names_at + _WORD_SIZE, body_at, end)
        return Reject(refused.sender, refused.groups, refused.mess_type, refused.body, refused_type)
    if bits & REGULAR_MEMBERSHIP:
        return _decode_membership(header, _decode_names(buffer[names_at:body_at]), buffer[body_at:end])
    if bits & TRANSITION:
        return TransitionSignal(header.name, _decode_group_id(header, buffer[body_at:end]))
    if bits & CAUSED_BY_LEAVE:
        return SelfLeave(header.name)
    raise ProtocolError(f"the daemon sent a message of unknown type {bits:#x}; check its version")


def check_client_header(header: Header) -> None:
    """Refuse what any daemon refuses of a client, but for the sender's name and the size (PROTOCOL 3.7).

    Raises:
        ProtocolError: close this connection.
    """
    if (header.type_bits & (SERVICES | REQUESTS)).bit_count() != 1:
        raise ProtocolError(f"type {header.type_bits:#x} is not one service or one request")
    if header.num_groups > DAEMON_GROUPS_LIMIT:
        raise ProtocolError(f"{header.num_groups} groups, {DAEMON_GROUPS_LIMIT} at most")
    if header.hint & ~(ENDIAN_MARK | MESS_TYPE_MASK):
        raise ProtocolError(f"hint {header.hint:#x} has bits beside mess_type and mark")


def decode_from_client(buffer: bytes, header: Header, names_at: int, body_at: int, end: int) -> ClientMessage:
    """Read what a client sent, like `decode_from_daemon`; of a request only the first group counts.

    Raises:
        ProtocolError: `check_client_header` refuses it, or a request names no group.
    """
    check_client_header(header)
    if header.type_bits & SERVICES:
        return _decode_data(buffer, header, names_at, body_at, end)
    if header.num_groups == 0:
        raise ProtocolError("a request that names no group")
    request = Join if header.type_bits & JOIN else Leave if header.type_bits & LEAVE else Kill
    return request(header.name, decode_name(buffer[names_at : names_at + NAME_SIZE]))


@lru_cache(maxsize=_CACHED_NAMES)
def decode_name(field: bytes) -> str:
    """Read a field of 32 bytes up to its first NUL; what follows is junk (PROTOCOL 3.5)."""
    return field.partition(b"\0")[0].decode("latin-1")


def _decode_names(fields: bytes) -> tuple[str, ...]:
    """Read fields of 32 bytes, back to back."""
    return tuple([decode_name(fields[at : at + NAME_SIZE]) for at in range(0, len(fields), NAME_SIZE)])


_decode_cached_names = lru_cache(maxsize=_CACHED_LISTS)(_decode_names)


def _decode_data(buffer: bytes, header: Header, names_at: int, body_at: int, end: int) -> Data:
    # The same destinations come again and again. A long list of them is nobody's: not into the cache.
    names = _decode_cached_names if header.num_groups <= DAEMON_GROUPS_LIMIT else _decode_names
    return Data(
        header.name,
        names(buffer[names_at:body_at]),
        header.mess_type,
        buffer[body_at:end],
        header.type_bits,
        header.endian_mismatch,
    )


def _decode_group_id(header: Header, body: bytes) -> GroupId:
    if len(body) < _GROUP_ID_SIZE:
        raise ProtocolError(
            f"a group id of {len(body)} bytes, not {_GROUP_ID_SIZE}; check the daemon's version"
        )
    return GroupId(*_GROUP_ID[header.order].unpack_from(body))


def _decode_membership(header: Header, members: tuple[str, ...], body: bytes) -> Membership:
    cause = next((cause for bit, cause in _CAUSES.items() if header.type_bits & bit), None)
    if cause is None or len(body) < _SETS_AT:
        raise ProtocolError(
            f"a membership of type {header.type_bits:#x} with {len(body)} bytes; check the daemon's version"
        )
    sets, own_set = _decode_sets(header, body)
    return Membership(header.name, members, cause, _decode_group_id(header, body), sets, own_set)


def _decode_sets(header: Header, body: bytes) -> tuple[tuple[tuple[str, ...], ...], int]:
    """Read the sets, and which of them begins at the offset that the daemon gave (PROTOCOL 6.2)."""
    count, own_offset = _SETS[header.order].unpack_from(body, _GROUP_ID_SIZE)
    word = _WORD[header.order]
    sets: list[tuple[str, ...]] = []
    own_set = None
    at = _SETS_AT
    while len(sets) < count and at + _WORD_SIZE <= len(body):
        if at == _SETS_AT + own_offset:
            own_set = len(sets)
        (size,) = word.unpack_from(body, at)
        names_at = at + _WORD_SIZE
        at = names_at + NAME_SIZE * size
        sets.append(_decode_names(body[names_at:at]))
    if len(sets) != count or at > len(body) or own_set is None or not sets[own_set]:
        raise ProtocolError(f"a membership whose {count} sets contradict its {len(body)} bytes of body")
    return tuple(sets), own_set


# --- writing ------------------------------------------------------------------------------------


def encode(message: ClientMessage | DaemonMessage, order: ByteOrder = "little") -> bytes:
    """Make the bytes of one message.

    Raises:
        IllegalGroupError: a name does not fit its field.
    """
    match message:
        case Data():
            return (
                encode_data_header(
                    message.sender,
                    message.groups,
                    message.mess_type,
                    len(message.body),
                    message.type_bits,
                    order,
                    message.endian_mismatch,
                )
                + message.body
            )
        case Join():
            return _encode(order, JOIN, message.sender, (message.group,))
        case Leave():
            return _encode(order, LEAVE, message.sender, (message.group,))
        case Kill():
            return _encode(order, KILL, message.sender, (message.group,))
        case Membership():
            bits = REGULAR_MEMBERSHIP | _CAUSE_BITS[message.cause]
            return _encode(order, bits, message.group, message.members, _encode_view(message, order))
        case TransitionSignal():
            return _encode(order, TRANSITION, message.group, (), _encode_group_id(message.group_id, order))
        case SelfLeave():
            return _encode(order, CAUSED_BY_LEAVE, message.group, ())
        case Reject():
            return _encode_reject(message, order)


def encode_data_header(
    sender: str,
    groups: tuple[str, ...],
    mess_type: int,
    data_len: int,
    type_bits: int,
    order: ByteOrder = "little",
    endian_mismatch: bool = False,
) -> bytes:
    """Make what precedes the body of a data message: header and names.

    Raises:
        IllegalGroupError: a name does not fit its field.
    """
    start, names = _encode_around_length(sender, groups, mess_type, type_bits, order, endian_mismatch)
    return start + _LENGTH[order].pack(data_len) + names


@lru_cache(maxsize=_CACHED_LISTS)
def _encode_around_length(
    sender: str,
    groups: tuple[str, ...],
    mess_type: int,
    type_bits: int,
    order: ByteOrder,
    endian_mismatch: bool,
) -> tuple[bytes, bytes]:
    """Cached because a role sends to the same few destinations all the time."""
    hint = (mess_type & 0xFFFF) << 8
    if (order == "little") != endian_mismatch:
        hint |= ENDIAN_MARK
    if endian_mismatch:
        hint = _swap(hint)
    header = _encode_header(order, type_bits, encode_name(sender), len(groups), hint, 0)
    return header[:_START_SIZE], _encode_names(groups)


@lru_cache(maxsize=_CACHED_NAMES)
def encode_name(name: str) -> bytes:
    """Make a field of 32 bytes, filled up with NUL.

    Raises:
        IllegalGroupError: the name does not fit, or has a character that is no byte.
    """
    if len(name) > NAME_SIZE or not all(character <= "\xff" for character in name):
        raise IllegalGroupError(f"{name!r} is no name of at most {NAME_SIZE} bytes in latin-1")
    return name.encode("latin-1").ljust(NAME_SIZE, b"\0")


def _encode_names(names: tuple[str, ...]) -> bytes:
    return b"".join([encode_name(name) for name in names])


def _encode_header(
    order: ByteOrder, type_bits: int, name: bytes, num_groups: int, hint: int, data_len: int
) -> bytes:
    type_word = type_bits | ENDIAN_MARK if order == "little" else type_bits
    return _HEADER[order].pack(type_word, name, num_groups, hint, data_len)


def _encode(order: ByteOrder, type_bits: int, name: str, names: tuple[str, ...], body: bytes = b"") -> bytes:
    hint = ENDIAN_MARK if order == "little" else 0
    header = _encode_header(order, type_bits, encode_name(name), len(names), hint, len(body))
    return header + _encode_names(names) + body


def _encode_group_id(group_id: GroupId, order: ByteOrder) -> bytes:
    return _GROUP_ID[order].pack(group_id.daemon, group_id.time, group_id.index)


def _encode_view(message: Membership, order: ByteOrder) -> bytes:
    word = _WORD[order]
    sets = [word.pack(len(names)) + _encode_names(names) for names in message.sets]
    own_offset = sum(map(len, sets[: message.own_set]))
    return b"".join(
        (_encode_group_id(message.group_id, order), _SETS[order].pack(len(sets), own_offset), *sets)
    )


def _encode_reject(message: Reject, order: ByteOrder) -> bytes:
    header = encode_data_header(
        message.sender, message.groups, message.mess_type, len(message.body), REJECT, order
    )
    refused_type = _WORD[order].pack(message.refused_type)
    return header[:HEADER_SIZE] + refused_type + header[HEADER_SIZE:] + message.body


def _swap(word: int) -> int:
    return int.from_bytes(word.to_bytes(4, "little"), "big")

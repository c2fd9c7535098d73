"""What client and daemon say before the first message (PROTOCOL 2). Pure, for both ends.

The client's connect request and its auth choice go out in one write each, and never together. All
parsers here take what has arrived so far and give None while something is missing.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

import msgspec

from transports.base import NAME_LIMIT, PRIVATE_NAME_LIMIT, CannotConnectError, ProtocolError

ACCEPT_SESSION: Final = 1

AUTH_CHOICE_SIZE: Final = 90
"""Bytes of the client's choice: three fields (PROTOCOL 2.4)."""
_AUTH_FIELD = 30

AUTH_LIST_LIMIT: Final = 90
"""Bytes of the daemon's list of methods (PROTOCOL 2.3)."""

NULL_METHOD: Final = "NULL"
"""The method that always succeeds."""

_OLDEST_CLIENT = (3, 1)
_FIRST_WITH_PATCH = (3, 15)
_FIRST_WITH_AUTH = (3, 16)
_OLDEST_DAEMON = (4, 0)
"""Older ones describe views in another way (PROTOCOL 2.9)."""

_FLAG_MEMBERSHIP = 0x01
_PRIORITY_SHIFT = 4
_NAME_BYTES = range(0x24, 0x7F)


# --- rejects (PROTOCOL 2.8) ---------------------------------------------------------------------


class RejectedError(CannotConnectError):
    """The daemon refused the connection, with a code that we do not know if this class is bare."""

    code: ClassVar[int] = 0
    advice: ClassVar[str] = "check the daemon's log and version"

    def __init__(self, advice: str = "") -> None:
        super().__init__(f"the Spread daemon refused the connection: {advice or self.advice}")


class QuotaError(RejectedError):
    """REJECT_QUOTA."""

    code = -3
    advice = "it has as many clients as it takes (997); use another daemon, or close some"


class NoNameError(RejectedError):
    """REJECT_NO_NAME."""

    code = -4
    advice = "it wants a private name; give one of 1 to 10 characters from '$' to '~'"


class IllegalNameError(RejectedError):
    """REJECT_ILLEGAL_NAME."""

    code = -5
    advice = "illegal private name; use 1 to 10 characters from '$' to '~'"


class NotUniqueError(RejectedError):
    """REJECT_NOT_UNIQUE."""

    code = -6
    advice = "the private name is in use on it; take another one"


class VersionError(RejectedError):
    """REJECT_VERSION."""

    code = -7
    advice = "it does not speak this version of the protocol; use Spread 4.0 or later"


class AuthenticationError(RejectedError):
    """REJECT_AUTH."""

    code = -9
    advice = (
        "authentication failed; only the NULL method is supported, so allow it in the daemon's "
        "AllowedAuthMethods, and this host where RequiredAuthMethods asks for IP"
    )


class HandshakeResetError(CannotConnectError):
    """The connection ended during the handshake; a reject may have been lost with it (PROTOCOL 2.7)."""

    def __init__(self) -> None:
        super().__init__(
            "the connection ended before the Spread daemon accepted it: try again, and if that does not "
            "help check the private name, the daemon's log, and that the address is a Spread daemon's"
        )


_REJECTS = {
    error.code: error
    for error in (
        QuotaError,
        NoNameError,
        IllegalNameError,
        NotUniqueError,
        VersionError,
        AuthenticationError,
    )
}


def encode_reject(error: type[RejectedError]) -> bytes:
    """Make the one byte that tells a client why, in place of whatever it waits for."""
    return struct.pack("b", error.code)


def _raise_reject(byte: int) -> None:
    """Raise if the byte, read as signed, is a reject code."""
    if byte >= 0x80:
        raise _REJECTS.get(byte - 0x100, RejectedError)()


# --- connect request (PROTOCOL 2.1, 2.2, 2.9) ---------------------------------------------------


class ConnectRequest(msgspec.Struct, frozen=True, gc=False):
    """A client asks for a connection.

    Args:
        name: private name; empty where the daemon shall make one up.
        membership: wants membership messages.
        priority: 0 or 1; has no effect.
        version: of the client, (major, minor, patch); the shape of the handshake depends on it.
    """

    name: str
    membership: bool
    priority: int = 0
    version: tuple[int, int, int] = (4, 4, 0)

    @property
    def has_patch(self) -> bool:
        """Both sides' versions travel with their third byte."""
        return self.version >= _FIRST_WITH_PATCH

    @property
    def authenticates(self) -> bool:
        """Auth list and auth choice are exchanged."""
        return self.version >= _FIRST_WITH_AUTH


def encode_connect_request(request: ConnectRequest) -> bytes:
    """Make the request; its name must be one that `parse_connect_request` takes.

    Raises:
        IllegalNameError: it is not.
    """
    name = request.name.encode()
    _check_name(len(name), name)
    version = request.version if request.has_patch else request.version[:2]
    flags = (_FLAG_MEMBERSHIP if request.membership else 0) | request.priority << _PRIORITY_SHIFT
    return bytes((*version, flags, len(name))) + name


def parse_connect_request(data: bytes) -> tuple[ConnectRequest, int] | None:
    """Read a request, and how many bytes it took; the checks are in the daemon's order.

    Raises:
        VersionError: the client is older than 3.1.
        IllegalNameError: the name is too long or has a character outside `$`..`~`.
    """
    if len(data) < 2:
        return None
    version = struct.unpack_from("bb", data)
    if version < _OLDEST_CLIENT:
        raise VersionError
    patch_size = 1 if version >= _FIRST_WITH_PATCH else 0
    name_at = 4 + patch_size
    if len(data) < name_at:
        return None
    flags, size = struct.unpack_from("bB", data, 2 + patch_size)
    end = name_at + size
    name = data[name_at:end]
    _check_name(size, name)
    if len(data) < end:
        return None
    (patch,) = struct.unpack_from("b", data, 2) if patch_size else (0,)
    # The daemon reads the flags as a signed number, and takes only odd and positive ones (PROTOCOL 2.1).
    membership = flags > 0 and bool(flags & _FLAG_MEMBERSHIP)
    priority = (flags & 0xFF) >> _PRIORITY_SHIFT
    return ConnectRequest(name.decode("latin-1"), membership, priority, (*version, patch)), end


def _check_name(size: int, name: bytes) -> None:
    if size > PRIVATE_NAME_LIMIT or not all(byte in _NAME_BYTES for byte in name):
        raise IllegalNameError


# --- authentication (PROTOCOL 2.3, 2.4) ---------------------------------------------------------


def encode_auth_list(methods: tuple[str, ...]) -> bytes:
    """Make the daemon's list of methods, each followed by a space."""
    names = "".join(method + " " for method in methods).encode("ascii")
    return bytes((len(names),)) + names


def parse_auth_list(data: bytes) -> tuple[tuple[str, ...], int] | None:
    """Read the list of methods, and how many bytes it took.

    Raises:
        RejectedError: a reject code came in its place.
        ProtocolError: the list is too long.
    """
    if not data:
        return None
    size = data[0]
    _raise_reject(size)
    if size > AUTH_LIST_LIMIT:
        raise ProtocolError(
            f"a list of methods of {size} bytes: no Spread daemon sends it; check the address"
        )
    end = 1 + size
    if len(data) < end:
        return None
    return tuple(data[1:end].decode("latin-1").split()), end


def encode_auth_choice(methods: tuple[str, ...]) -> bytes:
    """Make the client's choice: three fields, filled up with NUL."""
    fields = b"".join(method.encode("ascii").ljust(_AUTH_FIELD, b"\0") for method in methods)
    return fields.ljust(AUTH_CHOICE_SIZE, b"\0")


def parse_auth_choice(data: bytes) -> tuple[str, ...] | None:
    """Read the choice, `AUTH_CHOICE_SIZE` bytes: its fields up to the first empty one, each up to its NUL."""
    if len(data) < AUTH_CHOICE_SIZE:
        return None
    methods: list[str] = []
    for at in range(0, AUTH_CHOICE_SIZE, _AUTH_FIELD):
        method = data[at : at + _AUTH_FIELD].partition(b"\0")[0]
        if not method:
            break
        methods.append(method.decode("latin-1"))
    return tuple(methods)


# --- accept (PROTOCOL 2.5, 2.6) -----------------------------------------------------------------


class Accept(msgspec.Struct, frozen=True, gc=False):
    """A daemon takes the connection.

    Args:
        private_group: `#name#daemon`, the connection's identity and address.
        version: of the daemon.
    """

    private_group: str
    version: tuple[int, int, int] = (4, 4, 0)


def encode_accept(accept: Accept, has_patch: bool = True) -> bytes:
    """Make the answer to a client that sends, or not, the third byte of its version."""
    name = accept.private_group.encode("latin-1")
    version = accept.version if has_patch else accept.version[:2]
    return bytes((ACCEPT_SESSION, *version, len(name))) + name


def parse_accept(data: bytes) -> tuple[Accept, int] | None:
    """Read the answer to a client of 3.15 or later, and how many bytes it took.

    Raises:
        RejectedError: a reject code came in its place.
        VersionError: the daemon is older than 4.0.
        ProtocolError: no Spread daemon answers so.
    """
    if not data:
        return None
    _raise_reject(data[0])
    if data[0] != ACCEPT_SESSION:
        raise ProtocolError(f"{data[0]} instead of an accept: no Spread daemon answers so; check the address")
    if len(data) < 5:
        return None
    version = (data[1], data[2], data[3])
    if version < _OLDEST_DAEMON:
        raise VersionError(f"it is version {version[0]}.{version[1]}.{version[2]}; use Spread 4.0 or later")
    size = data[4]
    if not 1 <= size <= NAME_LIMIT:
        raise ProtocolError(f"a private group name of {size} bytes, not 1 to {NAME_LIMIT}; check the daemon")
    end = 5 + size
    if len(data) < end:
        return None
    return Accept(data[5:end].decode("latin-1"), version), end

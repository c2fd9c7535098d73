"""Frames as bytes and back.

The kind (Spread's `mess_type`) says what a body is: 0 is the old Perl protocol, `KIND` is ours. Bytes
are never sniffed.
"""

from __future__ import annotations

import msgspec

from spreadq_core.errors import PeerError
from spreadq_core.messages import Frame
from spreadq_core.policy import BODY_LIMIT

VERSION = 1
"""Of the wire format; changed for breaks only."""

FAMILY = 0x5100
"""High byte of all kinds that are ours."""

KIND = FAMILY | VERSION

_decode = msgspec.msgpack.Decoder(Frame).decode

encode = msgspec.msgpack.Encoder().encode
"""Encode a `Frame`."""


def decode(kind: int, body: bytes, queue: str) -> Frame:
    """Read what a peer sent to `queue`.

    Raises:
        PeerError: it is not a frame of this version and queue within the limits.
    """
    if kind != KIND:
        if kind & 0xFF00 == FAMILY:
            raise PeerError(f"protocol version {kind & 0xFF}, this is version {VERSION}")
        raise PeerError(f"message type {kind} is none of ours")
    if len(body) > BODY_LIMIT:
        raise PeerError(f"frame of {len(body)} bytes")
    try:
        frame = _decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise PeerError(f"malformed frame: {error}") from None
    if frame.queue != queue:
        raise PeerError(f"frame for queue {frame.queue!r}")
    return frame

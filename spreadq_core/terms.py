"""What many tasks have in common: encoded once by their sender, decoded once by everybody else."""

from __future__ import annotations

import msgspec

from spreadq_core.errors import PeerError
from spreadq_core.ids import SECOND, Nanos

FUNCTION_LIMIT = 255
"""Bytes of the name of a function or of a codec."""

PRIORITIES = 10
"""Priorities are 0..9; a higher one goes first."""

ATTEMPTS_LIMIT = 1_000
"""The most that `max_attempts` may be."""

DURATION_LIMIT: Nanos = 10 * 365 * 86_400 * SECOND
"""The longest run limit or expiry: ten years."""

REMEMBERED_LIMIT = 1024
"""Different terms that are remembered; peers can invent any number."""


class Terms(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How a task is to be done."""

    function: str  # the name that a worker must serve; may be empty
    codec: str  # of the payload
    priority: int  # 0..9, higher first
    max_attempts: int  # how many lost workers, leases and run limits end it
    run_limit: Nanos  # for one attempt, 0 for none
    expiry: Nanos  # from when it was submitted, 0 for never
    reply: bool  # an outcome is wanted

    def fault(self) -> str:
        """What is wrong with them; "" for nothing."""
        if not 0 <= self.priority < PRIORITIES:
            return f"priority {self.priority}: 0 to {PRIORITIES - 1} are allowed"
        if not 1 <= self.max_attempts <= ATTEMPTS_LIMIT:
            return f"max_attempts {self.max_attempts}: 1 to {ATTEMPTS_LIMIT} are allowed"
        if not 0 <= self.run_limit <= DURATION_LIMIT or not 0 <= self.expiry <= DURATION_LIMIT:
            return "a run limit or an expiry is negative or longer than ten years"
        for name in (self.function, self.codec):
            try:
                if len(name.encode()) > FUNCTION_LIMIT:
                    return f"the name of a function or of a codec has more than {FUNCTION_LIMIT} bytes"
            except UnicodeEncodeError:
                return f"the name {name!r} of a function or of a codec has no form in UTF-8"
        return ""


encode = msgspec.msgpack.Encoder().encode
"""Encode `Terms`."""

_decoder = msgspec.msgpack.Decoder(Terms)


class TermsTable:
    """Decoded terms by their encoding. Also gives each encoding as one object that tasks can share."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, Terms]] = {}

    def read(self, encoded: bytes) -> tuple[bytes, Terms]:
        """The one object for this encoding, and what it says.

        Raises:
            PeerError: it is malformed, or something in it is out of range; the message says what.
        """
        known = self._known.get(encoded)
        return self._decode(encoded) if known is None else known

    def _decode(self, encoded: bytes) -> tuple[bytes, Terms]:
        try:
            terms = _decoder.decode(encoded)
            fault = terms.fault()
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise PeerError(f"malformed terms: {error}") from None
        if fault:
            raise PeerError(fault)
        if len(self._known) >= REMEMBERED_LIMIT:
            self._known.clear()
        entry = self._known[encoded] = (encoded, terms)
        return entry

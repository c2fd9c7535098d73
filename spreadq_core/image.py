"""Roles as bytes: all state of a role, with points in time relative to now.

Fields that hold points in time end in `_at`, by convention: a number, None, or a dictionary of
numbers. So equal situations give equal bytes, whenever they occur.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from spreadq_core.ids import Nanos

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(strict=False).decode


def freeze(state: msgspec.Struct, now: Nanos) -> bytes:
    """All of `state`, as of `now`."""
    plain = msgspec.to_builtins(state, builtin_types=(bytes,))
    return _encode(_moved(plain, -now))


def thaw(kind: type[T], image: bytes, now: Nanos) -> T:
    """The state that `freeze` was given, as if the time were `now`.

    Raises:
        msgspec.MsgspecError: the bytes are no image of that kind of state.
    """
    return msgspec.convert(_moved(_decode(image), now), kind)


def _moved(plain: Any, by: Nanos) -> Any:
    if isinstance(plain, dict):
        return {
            key: _in_time(value, by) if isinstance(key, str) and key.endswith("_at") else _moved(value, by)
            for key, value in plain.items()
        }
    if isinstance(plain, list):
        return [_moved(value, by) for value in plain]
    return plain


def _in_time(value: Any, by: Nanos) -> Any:
    if isinstance(value, dict):
        return {key: at + by for key, at in value.items()}
    return None if value is None else value + by

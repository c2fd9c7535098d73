"""Payload codecs: a closed set, by name. The core and the manager never look inside a payload."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from spreadq.errors import BadPayload, UnknownCodec

Codec: TypeAlias = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]
"""Encode and decode."""

DEFAULT_CODEC = "msgpack"

_YAML_BREAKS = frozenset("\x85\u2028\u2029\ufeff")


def _raw(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"the codec raw takes bytes, not {type(value).__name__}")


_CODECS: dict[str, Codec] = {
    "msgpack": (msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode),
    "json": (msgspec.json.Encoder().encode, msgspec.json.Decoder().decode),
    "raw": (_raw, bytes),
}


def check_codec(name: str) -> str:
    """`name`, if there is a codec of that name.

    Raises:
        UnknownCodec: there is none, or it needs an extra that is not installed.
    """
    _codec(name)
    return name


def encode(name: str, value: Any) -> bytes:
    """The payload of `value`.

    Raises:
        UnknownCodec: there is no codec of that name.
        BadPayload: the codec cannot encode the value.
    """
    try:
        return _codec(name)[0](value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, UnknownCodec):
            raise
        raise BadPayload(f"cannot be encoded as {name}: {error}") from error


def decode(name: str, payload: bytes) -> Any:
    """The value of a payload, made of plain builtins.

    Raises:
        UnknownCodec: there is no codec of that name.
        BadPayload: the payload is malformed.
    """
    read = _codec(name)[1]
    try:
        return read(payload)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise BadPayload(f"not valid {name}: {error}") from error


def convert(value: Any, type: Any) -> Any:  # noqa: A002 -- it is one
    """A plain value as what a type annotation says.

    Raises:
        BadPayload: it is not one.
    """
    try:
        return msgspec.convert(value, type, str_keys=True)  # json has no other keys
    except (msgspec.MsgspecError, TypeError) as error:
        raise BadPayload(str(error)) from error


def _codec(name: str) -> Codec:
    codec = _CODECS.get(name)
    if codec is None:
        if name != "yaml":
            raise UnknownCodec(f"codec {name!r} is unknown; known are msgpack, json, raw and yaml")
        codec = _CODECS["yaml"] = _yaml()
    return codec


def _yaml() -> Codec:
    try:
        import yaml  # noqa: PLC0415 -- an extra
    except ImportError:
        raise UnknownCodec("the codec yaml needs PyYAML: pip install 'spreadq[yaml]'") from None
    dumper, loader = yaml.SafeDumper, yaml.SafeLoader

    def dump(value: Any) -> bytes:
        plain = msgspec.to_builtins(value, builtin_types=(bytes,))
        try:
            text: str = yaml.dump(plain, Dumper=dumper, allow_unicode=True)
            if not _YAML_BREAKS.isdisjoint(text):  # PyYAML would read them as line breaks
                text = yaml.dump(plain, Dumper=dumper)
        except yaml.YAMLError as error:
            raise ValueError(error) from error
        return text.encode()

    def load(payload: bytes) -> Any:
        try:
            return yaml.load(payload, Loader=loader)
        except yaml.YAMLError as error:
            raise ValueError(error) from error

    return dump, load

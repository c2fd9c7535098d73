"""Payload codecs."""

from __future__ import annotations

import builtins
import contextlib
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spreadq import BadPayload, UnknownCodec, codecs

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, width=32)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


@given(PLAIN)
@pytest.mark.parametrize("codec", ["msgpack", "yaml"])
def test_plain_values_come_back(codec: str, value: Any) -> None:
    assert codecs.decode(codec, codecs.encode(codec, value)) == value


@given(PLAIN.filter(lambda value: "inf" not in repr(value)))
def test_json_has_no_infinity_but_everything_else(value: Any) -> None:
    assert codecs.decode("json", codecs.encode("json", value)) == value


@given(st.binary())
def test_raw_bytes_come_back(value: bytes) -> None:
    for form in (value, bytearray(value), memoryview(value)):
        assert codecs.decode("raw", codecs.encode("raw", form)) == value


@given(st.binary())
@pytest.mark.parametrize("codec", ["msgpack", "json", "yaml", "raw"])
def test_any_payload_gives_a_value_or_a_bad_payload(codec: str, payload: bytes) -> None:
    with contextlib.suppress(BadPayload):
        codecs.decode(codec, payload)


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        ("msgpack", b"\x91" * 100_000 + b"\xc0"),
        ("json", b"[" * 100_000 + b"]" * 100_000),
        ("yaml", b"[" * 3_000),
        ("yaml", b"!!python/object/apply:os.system ['true']"),
        ("yaml", b"\xff\xfe\xff"),
        ("json", b"\xff"),
        ("msgpack", b""),
        ("msgpack", b"\xc0\xc0"),
        ("msgpack", b"\xdf\xff\xff\xff\xff"),
    ],
)
def test_hostile_payloads_are_refused(codec: str, payload: bytes) -> None:
    with pytest.raises(BadPayload):
        codecs.decode(codec, payload)


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        ("raw", "text"),
        ("raw", None),
        ("msgpack", object()),
        ("msgpack", 2**64),
        ("msgpack", "\udcff"),
        ("json", {1j: 2}),
        ("json", b"\0" and object()),
        ("yaml", object()),
    ],
)
def test_impossible_values_are_refused(codec: str, value: Any) -> None:
    with pytest.raises(BadPayload, match=f"cannot be encoded as {codec}"):
        codecs.encode(codec, value)


def test_a_value_without_end_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    for codec in ("msgpack", "json", "yaml"):
        with pytest.raises(BadPayload):
            codecs.encode(codec, value)


@pytest.mark.parametrize("name", ["", "pickle", "JSON", "perl", "text"])
def test_unknown_codecs_are_named_and_so_are_the_known_ones(name: str) -> None:
    for use in (
        lambda: codecs.check_codec(name),
        lambda: codecs.encode(name, 1),
        lambda: codecs.decode(name, b""),
    ):
        with pytest.raises(
            UnknownCodec, match=f"codec '{name}' is unknown; known are msgpack, json, raw and yaml"
        ):
            use()


def test_yaml_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_yaml(name: str, *args: Any) -> Any:
        if name == "yaml":
            raise ImportError(name)
        return imported(name, *args)

    monkeypatch.delitem(codecs._CODECS, "yaml", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_yaml)
    with pytest.raises(UnknownCodec, match=r"pip install 'spreadq\[yaml\]'"):
        codecs.check_codec("yaml")


@pytest.mark.parametrize(
    "text", ["\x85", "a\u2028b", "\u2029", "\ufeffa", "é\x85", "\r\n", "\t ", "- a: b #c"]
)
@pytest.mark.parametrize("codec", ["msgpack", "json", "yaml"])
def test_texts_come_back_to_the_letter(codec: str, text: str) -> None:
    for value in (text, {text: [text]}):
        assert codecs.decode(codec, codecs.encode(codec, value)) == value


def test_yaml_is_read_by_people() -> None:
    assert codecs.encode("yaml", {"é": [1, "two"]}).decode() == "é:\n- 1\n- two\n"


class Point(msgspec.Struct):
    x: int


def test_conversion_names_the_place_of_a_fault() -> None:
    assert codecs.convert({"points": [{"x": 1}]}, dict[str, list[Point]]) == {"points": [Point(1)]}
    with pytest.raises(BadPayload, match=r"Expected `int`, got `str` - at `\$\[0\]\.x`"):
        codecs.convert([{"x": "1"}], list[Point])


def test_a_type_that_cannot_be_converted_to_is_a_bad_payload() -> None:
    with pytest.raises(BadPayload):
        codecs.convert(1, type(threading.Lock()))

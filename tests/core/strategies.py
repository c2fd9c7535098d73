"""Messages, frames and events of any content, made from their types."""

from __future__ import annotations

import typing

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from spreadq_core import messages as m
from spreadq_core.codec import KIND, encode
from spreadq_core.terms import Terms
from spreadq_core.terms import encode as encode_terms

MESSAGE_TYPES = typing.get_args(m.AnyMessage)

SMALL = 4
"""Most numbers are up to this, so that they meet."""

INSTANCES = [0, 1, 2, 101, 102, 201, 202]
"""Of the roles in `tests.core.world`."""


def of(kind, **fields):
    """A strategy for a message type; `fields`: strategies for some of its fields."""
    info = inspect.type_info(kind)
    made = {field.name: fields.get(field.name, _of_type(field.type)) for field in info.fields}
    return st.builds(kind, **made)


def _of_type(info):
    if isinstance(info, inspect.IntType):
        if info.ge is None:
            return st.integers(-(2**63), 2**64 - 1)
        if info.le is None:
            return st.sampled_from(INSTANCES) | st.integers(0, 2**64 - 1)
        return st.integers(info.ge, info.ge + SMALL) | st.integers(info.ge, info.le)
    if isinstance(info, inspect.StrType):
        return st.sampled_from(["", "f", "g", "raw", "#s.1#world"]) | st.text(max_size=8)
    if isinstance(info, inspect.BytesType):
        return TERMS | st.binary(max_size=8)
    if isinstance(info, inspect.BoolType):
        return st.booleans()
    if isinstance(info, inspect.NoneType):
        return st.none()
    if isinstance(info, inspect.EnumType):
        return st.sampled_from(info.cls)
    if isinstance(info, inspect.StructType):
        return of(info.cls)
    if isinstance(info, inspect.VarTupleType):
        return st.lists(_of_type(info.item_type), max_size=3).map(tuple)
    if isinstance(info, inspect.TupleType):
        return st.tuples(*map(_of_type, info.item_types))
    if isinstance(info, inspect.ListType):
        return st.lists(_of_type(info.item_type), max_size=3)
    assert isinstance(info, inspect.UnionType), info
    return st.one_of(*map(_of_type, info.types))


TERMS = st.builds(
    Terms,
    function=st.sampled_from(["f", "g"]),
    codec=st.just("raw"),
    priority=st.sampled_from([0, 1, 9]),
    max_attempts=st.integers(1, 3),
    run_limit=st.sampled_from([0, 10**9]),
    expiry=st.sampled_from([0, 10**9]),
    reply=st.booleans(),
).map(encode_terms)
"""Encoded terms that are in range."""

ANY_MESSAGE = st.one_of(*map(of, MESSAGE_TYPES))

FRAMES = of(m.Frame, queue=st.just("q") | st.text(max_size=3), messages=st.lists(ANY_MESSAGE, max_size=4))

KINDS = st.sampled_from([KIND, KIND, KIND, 0, KIND + 1, -1]) | st.integers(-(2**15), 2**15 - 1)


def bodies():
    """Bytes that are a frame, nearly one, or something else."""
    frames = FRAMES.map(encode)
    cut = st.tuples(frames, st.integers(0, 200)).map(lambda pair: pair[0][: pair[1]])
    return frames | cut | st.tuples(frames, st.integers(0), st.integers(0, 255)).map(_flip) | st.binary()


def _flip(triple):
    body, place, value = triple
    place %= len(body)
    return body[:place] + bytes([value]) + body[place + 1 :]


def builtins(frame):
    """A frame as lists and dictionaries, to be compared or broken."""
    return msgspec.to_builtins(frame, builtin_types=(bytes,))

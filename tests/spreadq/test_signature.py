"""Arguments as one value and back."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spreadq import BadPayload, UsageError
from spreadq.signature import Signature


def nothing() -> None: ...
def plain(a: int, b: int = 2) -> None: ...
def positional(a: int, /, b: int) -> None: ...
def named(a: int, *, b: int, c: int = 3) -> None: ...
def rest(a: int, *rest: int) -> None: ...
def rest_named(*rest: int, b: int) -> None: ...
def extra(a: int, **extra: int) -> None: ...
def everything(a: int, *rest: int, b: int = 1, **extra: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "packed"),
    [
        (nothing, (), {}, []),
        (plain, (1,), {}, [1]),
        (plain, (1, 3), {}, [1, 3]),
        (plain, (), {"b": 3, "a": 1}, [1, 3]),
        (positional, (1, 2), {}, [1, 2]),
        (positional, (1,), {"b": 2}, [1, 2]),
        (named, (1,), {"b": 2}, {"a": 1, "b": 2}),
        (named, (), {"a": 1, "b": 2, "c": 4}, {"a": 1, "b": 2, "c": 4}),
        (rest, (1, 2, 3), {}, [1, 2, 3]),
        (rest_named, (), {"b": 2}, {"b": 2}),
        (extra, (1,), {}, [1]),
        (extra, (1,), {"x": 2}, {"a": 1, "x": 2}),
        (everything, (1, 2), {}, [1, 2]),
    ],
)
def test_an_array_of_positional_arguments_or_a_map_of_keywords(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], packed: Any
) -> None:
    signature = Signature(function)
    assert signature.pack(args, kwargs) == packed
    function(*args, **kwargs)  # as Python allows


@given(
    st.lists(st.integers(), max_size=4), st.dictionaries(st.sampled_from("abcx"), st.integers(), max_size=3)
)
@pytest.mark.parametrize("function", [nothing, plain, positional, named, rest, rest_named, extra, everything])
def test_what_is_packed_is_called_the_same_way(
    function: Any, args: list[int], kwargs: dict[str, int]
) -> None:
    signature, real = Signature(function), inspect.signature(function)
    try:
        bound = real.bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            signature.pack(tuple(args), kwargs)
        return
    try:
        packed = signature.pack(tuple(args), kwargs)
    except UsageError:  # positional ones that have no name beside some that have only a name
        return
    unpacked_args, unpacked_kwargs = signature.unpack(packed)
    assert real.bind(*unpacked_args, **unpacked_kwargs).arguments == bound.arguments


@pytest.mark.parametrize(
    ("value", "unpacked"),
    [
        (1, ([1], {})),
        ([1, 2], ([1, 2], {})),
        ({"a": 1}, ([], {"a": 1})),
        (None, ([None], {})),
        ([], ([], {})),
        ("ab", (["ab"], {})),
    ],
)
def test_anything_but_an_array_or_a_map_is_the_only_argument(value: Any, unpacked: Any) -> None:
    def function(*args: Any, **kwargs: Any) -> None: ...

    assert Signature(function).unpack(value) == unpacked


@dataclass
class Point:
    x: int


def test_further_arguments_have_the_type_of_the_rest() -> None:
    def function(first: str, *points: Point) -> None: ...

    assert Signature(function).unpack(["a", {"x": 1}, {"x": 2}]) == (["a", Point(1), Point(2)], {})
    with pytest.raises(BadPayload, match=r"argument 'points' of .*: Expected `int`, got `str`"):
        Signature(function).unpack(["a", {"x": "1"}])


def test_a_default_need_not_have_the_type_of_its_parameter() -> None:
    def function(x: int = "none") -> None: ...  # type: ignore[assignment]

    assert Signature(function).unpack([]) == ([], {})


def test_results_are_converted() -> None:
    def function() -> list[Point]: ...

    assert Signature(function).result([{"x": 1}]) == [Point(1)]
    with pytest.raises(BadPayload, match=r"the result of .*function: Expected `array`"):
        Signature(function).result(1)

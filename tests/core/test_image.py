"""States as bytes."""

from __future__ import annotations

import enum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spreadq_core.image import freeze, thaw


class Inner(msgspec.Struct):
    ends_at: int
    tags: dict[tuple[int, str], bytes] = {}


class Colour(enum.Enum):
    RED = "red"


class Outer(msgspec.Struct):
    count: int
    woken_at: int | None
    by_key_at: dict[tuple[int, int], int]
    inner: list[Inner]
    colour: Colour = Colour.RED


TIMES = st.integers(-(2**60), 2**60)
OUTERS = st.builds(
    Outer,
    count=TIMES,
    woken_at=st.none() | TIMES,
    by_key_at=st.dictionaries(st.tuples(TIMES, TIMES), TIMES),
    inner=st.lists(st.builds(Inner, TIMES, st.dictionaries(st.tuples(TIMES, st.text()), st.binary()))),
)


def moved(outer, by):
    return Outer(
        outer.count,
        None if outer.woken_at is None else outer.woken_at + by,
        {key: at + by for key, at in outer.by_key_at.items()},
        [Inner(inner.ends_at + by, inner.tags) for inner in outer.inner],
    )


@given(OUTERS, TIMES, TIMES)
def test_thawed_at_another_time_all_points_in_time_have_moved_along(outer, then, now):
    assert thaw(Outer, freeze(outer, then), now) == moved(outer, now - then)


@given(OUTERS, TIMES, TIMES)
def test_equal_situations_at_different_times_give_equal_bytes(outer, then, by):
    assert freeze(outer, then) == freeze(moved(outer, by), then + by)


@pytest.mark.parametrize("image", [b"", b"\xc1", b"\x80", b"\x90", b"\x81\xa5count\xa1x"])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(msgspec.MsgspecError):
        thaw(Outer, image, 0)

"""A world to test in, whose roles are checked after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.invariants import check
from tests.core.world import World


@pytest.fixture
def world() -> Iterator[World]:
    """A world of default policy; what must be true of a role is true of all that are left at the end."""
    world = World()
    yield world
    for node in world.nodes:
        check(node.role)

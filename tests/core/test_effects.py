"""What a role wants done."""

from __future__ import annotations

import inspect

import pytest

from spreadq_core import effects
from spreadq_core.effects import Effect, Service

EFFECTS = [kind for _, kind in inspect.getmembers(effects, inspect.isclass) if issubclass(kind, Effect)]


@pytest.mark.parametrize("kind", EFFECTS)
def test_effects_cost_the_garbage_collector_nothing(kind):
    assert not kind.__struct_config__.gc


def test_a_service_is_called_as_in_spread():
    assert [service.value for service in Service] == ["fifo", "agreed"]

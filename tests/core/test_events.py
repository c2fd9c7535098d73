"""What happens to a role."""

from __future__ import annotations

import inspect
import typing

import pytest

from spreadq_core import events
from spreadq_core.events import Event, TransportEvent

EVENTS = [kind for _, kind in inspect.getmembers(events, inspect.isclass) if issubclass(kind, Event)]


@pytest.mark.parametrize("kind", EVENTS)
def test_events_cost_the_garbage_collector_nothing(kind):
    assert not kind.__struct_config__.gc


def test_a_transport_produces_the_first_five():
    assert [kind.__name__ for kind in typing.get_args(TransportEvent)] == [
        "Connected",
        "Disconnected",
        "Received",
        "ViewChanged",
        "Transition",
    ]

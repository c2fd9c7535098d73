"""Points in time, against plain dictionaries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spreadq_core.timers import TIMEOUT_GRAIN, Alarms, Timeouts, due

KEYS = st.integers(0, 5)
TIMES = st.integers(0, 20)


def test_due_takes_from_the_front_only():
    assert due({"a": 1, "b": 2, "c": 3}, 2) == ["a", "b"]
    assert due({"a": 3, "b": 1}, 2) == []
    assert due({}, 2) == []


# --- alarms ---------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["arm", "disarm", "ring"]), KEYS, TIMES)))
def test_alarms_are_a_dictionary_of_earliest_times(steps):
    state = {}
    alarms, model = Alarms(state), {}
    for what, key, at in steps:
        if what == "arm":
            alarms.arm(key, at)
            model[key] = min(at, model.get(key, at))
        elif what == "disarm":
            alarms.disarm(key)
            model.pop(key, None)
        else:
            rung = sorted((model.pop(k), k) for k in list(model) if model[k] <= at)
            assert alarms.ring(at) == [k for _, k in rung]
        assert alarms.deadline == min(model.values(), default=None)
        assert state == model
        assert Alarms(dict(state)).ring(100) == [k for _, k in sorted((t, k) for k, t in model.items())]


# --- timeouts -------------------------------------------------------------------------------------


def bucket_end(at):
    return (at // TIMEOUT_GRAIN + 1) * TIMEOUT_GRAIN


@given(st.lists(st.tuples(st.sampled_from(["add", "discard", "due"]), KEYS, TIMES)))
def test_timeouts_are_a_dictionary_of_times(steps):
    state = {}
    timeouts, model = Timeouts(state), {}
    for what, key, ticks in steps:
        at = ticks * (TIMEOUT_GRAIN // 3)
        if what == "add":
            timeouts.add(key, at)
            model[key] = at
        elif what == "discard":
            timeouts.discard(key)
            model.pop(key, None)
        else:
            expected = {k for k in model if bucket_end(model[k]) <= at}
            assert set(timeouts.due(at)) == expected
            for k in expected:
                del model[k]
        assert timeouts.deadline == min(map(bucket_end, model.values()), default=None)
        assert state == model
        assert Timeouts(dict(state)).deadline == timeouts.deadline


@given(st.integers(0, 2**62))
def test_a_timeout_is_never_early_and_at_most_one_grain_late(at):
    timeouts = Timeouts({"a": at})
    assert at < timeouts.deadline <= at + TIMEOUT_GRAIN
    assert timeouts.due(timeouts.deadline - 1) == []
    assert timeouts.due(timeouts.deadline) == ["a"]
    assert timeouts.deadline is None

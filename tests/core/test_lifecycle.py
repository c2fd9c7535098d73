"""The one table of a worker's states."""

from __future__ import annotations

import pytest

from spreadq_core.errors import InvariantError
from spreadq_core.lifecycle import ASSIGNABLE, TABLE, WorkerInput, WorkerState, after


@pytest.mark.parametrize("state", WorkerState)
@pytest.mark.parametrize("event", WorkerInput)
def test_every_state_and_input_is_in_the_table(state, event):
    following = TABLE[state][event]
    if following is None:
        with pytest.raises(InvariantError, match=f"a worker is {state.name}: {event.name} cannot happen"):
            after(state, event)
    else:
        assert after(state, event) is following


def test_whoever_is_gone_stays_gone():
    assert set(TABLE[WorkerState.GONE]) == {None}


def test_anybody_may_be_lost_or_drain_or_say_hello_again():
    for state in WorkerState:
        if state is not WorkerState.GONE:
            assert after(state, WorkerInput.LOST) is WorkerState.GONE
            assert after(state, WorkerInput.DRAINED) is WorkerState.DRAINING
            assert after(state, WorkerInput.HELLO) is WorkerState.GREETED


def test_only_those_who_entered_and_do_not_drain_are_given_tasks():
    assert {s for s in WorkerState if TABLE[s][WorkerInput.ASSIGNED]} == set(ASSIGNABLE)

"""What can become of a task, as exceptions."""

from __future__ import annotations

import traceback

import pytest

import spreadq
from spreadq.errors import RemoteFailure
from spreadq.requests import value_of
from spreadq_core.ids import TaskId
from spreadq_core.messages import Outcome, Status

TASK_ERRORS = [
    spreadq.RemoteError,
    spreadq.UnknownFunction,
    spreadq.TimedOut,
    spreadq.NoManager,
    spreadq.Rejected,
    spreadq.Buried,
    spreadq.Cancelled,
    spreadq.NoResponse,
]


@pytest.mark.parametrize("kind", TASK_ERRORS)
def test_each_end_of_a_task_is_an_error_of_its_own(kind: type[spreadq.TaskError]) -> None:
    assert issubclass(kind, spreadq.TaskError)
    assert issubclass(kind, spreadq.SpreadqError)
    assert not any(issubclass(kind, other) for other in TASK_ERRORS if other is not kind)


def test_python_knows_them_too() -> None:
    assert issubclass(spreadq.TimedOut, TimeoutError)
    assert issubclass(spreadq.UsageError, ValueError)
    assert issubclass(spreadq.UnknownCodec, spreadq.UsageError)
    for kind in (spreadq.BadPayload, spreadq.CannotConnectError, spreadq.UsageError):
        assert issubclass(kind, spreadq.SpreadqError)
        assert not issubclass(kind, spreadq.TaskError)


def test_a_remote_error_shows_where_it_was_raised() -> None:
    failure = RemoteFailure(
        "ValueError", "no", "Traceback (most recent call last):\n  there\nValueError: no\n"
    )
    error = spreadq.RemoteError(failure, TaskId(1, 2))
    shown = "".join(traceback.format_exception(error))
    assert shown.endswith(
        "spreadq.errors.RemoteError: ValueError: no\nAt the worker:\n"
        "Traceback (most recent call last):\n  there\nValueError: no\n"
    )
    assert error.id == TaskId(1, 2)


def test_every_status_is_told() -> None:
    for status in Status:
        if status is not Status.DONE:
            payload = b"\x93\xa1T\xa1m\xa1t" if status is Status.FAILED else b"because \xff"
            with pytest.raises(spreadq.TaskError, match="T: m" if status is Status.FAILED else "because"):
                value_of(Outcome(1, 2, 3, 4, status, 0, payload))


@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x91\xa1T", b"\x93\x01\x02\x03"])
def test_a_malformed_failure_is_a_bad_payload(payload: bytes) -> None:
    with pytest.raises(spreadq.BadPayload, match="the worker's error is malformed"):
        value_of(Outcome(1, 2, 3, 4, Status.FAILED, 0, payload))


def test_all_that_users_need_is_at_hand() -> None:
    assert sorted(spreadq.__all__) == list(spreadq.__all__)
    for name in spreadq.__all__:
        assert getattr(spreadq, name).__doc__

"""What can become of a task, as exceptions. Errors of use and of transport are in their own families."""

from __future__ import annotations

import msgspec

from spreadq_core.errors import SpreadqError, UsageError
from spreadq_core.ids import TaskId

ERROR_CODEC = "error"
"""Codec of the payload of a failed task: a `RemoteFailure`."""

TEXT_LIMIT = 32 * 1024
"""Bytes of a remote type, message or traceback that travel; of longer ones the end."""


class UnknownCodec(UsageError):
    """No codec of this name is known here."""


class BadPayload(SpreadqError):
    """A payload cannot be encoded, or is not what its codec and type say."""


class TaskError(SpreadqError):
    """A task did not come to a good end.

    Args:
        message: for people.
        id: of the task, where it got one.
    """

    def __init__(self, message: str, id: TaskId | None = None) -> None:  # noqa: A002 -- what it is called everywhere
        super().__init__(message)
        self.id = id


class RemoteError(TaskError):
    """The function raised, at the worker.

    Args:
        failure: what it raised.
        id: of the task.
    """

    def __init__(self, failure: RemoteFailure, id: TaskId | None = None) -> None:  # noqa: A002
        super().__init__(f"{failure.type}: {failure.message}", id)
        self.type = failure.type
        self.message = failure.message
        self.traceback = failure.traceback
        if failure.traceback:
            self.add_note(f"At the worker:\n{failure.traceback.rstrip()}")


class UnknownFunction(TaskError):
    """Nobody serves a function of this name."""


class TimedOut(TaskError, TimeoutError):
    """The task was not done in time. It does not run any more, unless it was submitted."""


class NoManager(TaskError):
    """Nobody manages the queue."""


class Rejected(TaskError):
    """The manager did not accept the task; the message says why."""


class Buried(TaskError):
    """Too many workers were lost over the task; the message says how the last one was."""


class Cancelled(TaskError):
    """The task was ended on request."""


class NoResponse(TaskError):
    """The function ended without a response or a value."""


class RemoteFailure(msgspec.Struct, array_like=True, frozen=True):
    """An exception as it travels: the name of its type, its text and its traceback."""

    type: str
    message: str
    traceback: str = ""

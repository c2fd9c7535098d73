"""One-of-many queued messaging over the Spread toolkit."""

from __future__ import annotations

from spreadq.app import App, Task
from spreadq.async_sender import AsyncHandle, AsyncSender
from spreadq.async_worker import AsyncWorker
from spreadq.errors import (
    BadPayload,
    Buried,
    Cancelled,
    NoManager,
    NoResponse,
    Rejected,
    RemoteError,
    TaskError,
    TimedOut,
    UnknownCodec,
    UnknownFunction,
)
from spreadq.jobs import current_task
from spreadq.sender import Handle, Sender
from spreadq.worker import Originator, Worker
from spreadq_core.errors import SpreadqError, UsageError
from spreadq_core.ids import TaskId
from spreadq_core.policy import Policy
from transports.base import CannotConnectError

__all__ = [
    "App",
    "AsyncHandle",
    "AsyncSender",
    "AsyncWorker",
    "BadPayload",
    "Buried",
    "Cancelled",
    "CannotConnectError",
    "Handle",
    "NoManager",
    "NoResponse",
    "Originator",
    "Policy",
    "Rejected",
    "RemoteError",
    "Sender",
    "SpreadqError",
    "Task",
    "TaskError",
    "TaskId",
    "TimedOut",
    "UnknownCodec",
    "UnknownFunction",
    "UsageError",
    "Worker",
    "current_task",
]

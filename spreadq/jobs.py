"""Jobs: a worker's functions, run on its loop if they are `async def`, else in threads of our own.

The loop that receives is never held up: it only starts jobs and takes note of their ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import Any, Protocol

import msgspec

from spreadq import codecs
from spreadq.errors import ERROR_CODEC, TEXT_LIMIT, BadPayload, RemoteFailure, UnknownCodec
from spreadq_core.effects import CancelJob, StartJob
from spreadq_core.events import Event, JobEnded, JobResponded
from spreadq_core.ids import TaskId
from spreadq_core.messages import Status
from spreadq_core.records import AttemptKey

UNKNOWN_FUNCTION = "spreadq.UnknownFunction"
"""Type of the failure of a task whose function its worker does not have."""


class Post(Protocol):
    """Lets the role handle an event; in the loop's thread."""

    def __call__(self, event: Event, *, alone: bool = False) -> None:
        """`alone`: no other event is about to follow, so it need not wait for one."""


_current: ContextVar[StartJob | None] = ContextVar("spreadq_job", default=None)

_encode_failure = msgspec.msgpack.Encoder().encode


class Function:
    """A function that a worker serves.

    Args:
        name: under which it is served.
        is_async: whether `call` is a coroutine function.
        call: takes the job and its decoded payload.
        answers: whether what it returns is the task's value; else it answers by responses alone.
    """

    __slots__ = ("answers", "call", "is_async", "name")

    def __init__(
        self, name: str, call: Callable[[StartJob, Any], Any], *, is_async: bool, answers: bool
    ) -> None:
        self.name = name
        self.call = call
        self.is_async = is_async
        self.answers = answers


def current_task() -> TaskId | None:
    """The task that this job is for; None outside of a job."""
    job = _current.get()
    return None if job is None else TaskId(job.sender, job.counter)


class Jobs:
    """Runs the jobs of one worker.

    Args:
        functions: by name.
        post: as `AsyncioHost.post`.
        payload_limit: bytes of a result.
        loop: where `async def` runs.
    """

    def __init__(
        self,
        functions: dict[str, Function],
        post: Post,
        payload_limit: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._functions = functions
        self._post = post
        self._payload_limit = payload_limit
        self._loop = loop
        self._tasks: dict[AttemptKey, asyncio.Task[None]] = {}
        self._mailbox = _Mailbox(loop, post)
        self._threads = _Threads(self._mailbox)

    def start(self, job: StartJob) -> None:
        """Run it; `JobEnded` is posted when it is over."""
        function = self._functions.get(job.function)
        if function is None:
            failure = RemoteFailure(UNKNOWN_FUNCTION, f"this worker does not serve {job.function!r}")
            self._mailbox.put(_failed(job, failure))
        elif function.is_async:
            key = (job.sender, job.counter, job.number)
            self._tasks[key] = self._loop.create_task(self._run_async(key, function, job))
        else:
            self._threads.put(lambda: self._run(function, job))

    def cancel(self, job: CancelJob) -> None:
        """Stop it, if it is on the loop; a thread cannot be stopped."""
        task = self._tasks.get((job.sender, job.counter, job.number))
        if task is not None:
            task.cancel()

    def respond(self, job: StartJob, value: Any) -> None:
        """Send a response to the caller of a running job; from any thread.

        Raises:
            BadPayload: it cannot be encoded, or is too large.
        """
        payload = self._encode(job.codec, value)
        self._mailbox.put(JobResponded(job.sender, job.counter, job.number, payload, job.codec))

    def close(self) -> None:
        """Stop what can be stopped; threads end with their job, or with the process."""
        for task in self._tasks.values():
            task.cancel()
        self._threads.close()

    def _run(self, function: Function, job: StartJob) -> JobEnded:
        """In a thread."""
        _current.set(job)
        try:
            value = function.call(job, codecs.decode(job.codec, job.payload))
            return self._done(function, job, value)
        except BaseException as error:
            return _failed(job, _failure(error))

    async def _run_async(self, key: AttemptKey, function: Function, job: StartJob) -> None:
        _current.set(job)
        try:
            value = await function.call(job, codecs.decode(job.codec, job.payload))
            end = self._done(function, job, value)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            told = task is not None and task.cancelling()
            end = JobEnded(*key, Status.CANCELLED) if told else _failed(job, _failure(error))
        except (Exception, SystemExit) as error:
            end = _failed(job, _failure(error))
        finally:
            del self._tasks[key]
        self._post(end, alone=not self._tasks)

    def _done(self, function: Function, job: StartJob, value: Any) -> JobEnded:
        key = (job.sender, job.counter, job.number)
        if not job.reply or not function.answers:
            return JobEnded(*key, Status.DONE)
        return JobEnded(*key, Status.DONE, self._encode(job.codec, value), job.codec)

    def _encode(self, codec: str, value: Any) -> bytes:
        payload = codecs.encode(codec, value)
        if len(payload) > self._payload_limit:
            raise BadPayload(f"the result has {len(payload)} bytes, {self._payload_limit} at most")
        return payload


class _Mailbox:
    """Takes events from any thread to the loop, in order, and in batches where they come quickly."""

    def __init__(self, loop: asyncio.AbstractEventLoop, post: Post) -> None:
        self._loop = loop
        self._post = post
        self._thread = threading.get_ident()
        self._events: deque[Event] = deque()
        self._waking = False

    def put(self, event: Event) -> None:
        self._events.append(event)
        if threading.get_ident() == self._thread:
            self._drain()
        elif not self._waking:  # else a drain is coming that will find it
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested any more
                self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._waking = False
        while self._events:
            self._post(self._events.popleft())


class _Threads:
    """A small pool of daemon threads; there is one more whenever none was free.

    An executor makes a future with a lock for each job; here, jobs go through a queue, and their ends
    through a mailbox.
    """

    def __init__(self, mailbox: _Mailbox) -> None:
        self._mailbox = mailbox
        self._jobs: SimpleQueue[Callable[[], JobEnded] | None] = SimpleQueue()
        self._free = threading.Semaphore(0)
        self._count = 0

    def put(self, run: Callable[[], JobEnded]) -> None:
        """Have `run` called in a thread."""
        if not self._free.acquire(blocking=False):
            self._count += 1
            threading.Thread(target=self._work, name=f"spreadq-job-{self._count}", daemon=True).start()
        self._jobs.put(run)

    def close(self) -> None:
        """Threads end when they are free."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (run := self._jobs.get()) is not None:
            end = copy_context().run(run)
            self._free.release()
            self._mailbox.put(end)


def _failed(job: StartJob, failure: RemoteFailure) -> JobEnded:
    payload = _encode_failure(failure)
    return JobEnded(job.sender, job.counter, job.number, Status.FAILED, payload, ERROR_CODEC)


def _failure(error: BaseException) -> RemoteFailure:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception as worse:
        message = f"({type(worse).__name__} in its __str__)"
    lines: list[str] = []
    if not isinstance(error, BadPayload | UnknownCodec):
        lines = traceback.format_exception(kind, error, error.__traceback__)
    return RemoteFailure(_text(name), _text(message), _text("".join(lines)))


def _text(text: str) -> str:
    """What of a text can travel: the names of files may have surrogates, which no codec takes."""
    encoded = text[-TEXT_LIMIT:].encode(errors="backslashreplace")
    return encoded[-TEXT_LIMIT:].decode(errors="ignore")

"""The modern shape: plain functions that run here when called, and elsewhere through the queue."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

from spreadq import codecs
from spreadq.async_sender import AsyncHandle, AsyncSender
from spreadq.async_worker import AsyncWorker
from spreadq.config import Duration, queue_name
from spreadq.jobs import Function
from spreadq.requests import DEFAULT_CALL_TIMEOUT, Options
from spreadq.sender import Handle, Sender
from spreadq.signature import Signature
from spreadq.worker import serve_until_stopped
from spreadq_core.effects import StartJob
from spreadq_core.errors import UsageError
from spreadq_core.ids import TaskId
from spreadq_core.policy import DEFAULT, Policy

P = ParamSpec("P")
R = TypeVar("R")
Called = TypeVar("Called")
"""What calling a task gives: its result, or for an `async def` a coroutine of it."""


class TaskOptions(Options, total=False):
    """What can be said of a task: `Options`, and the `timeout` of its calls."""

    timeout: Duration | None


class Task(Generic[P, R, Called]):
    """A function that can be run here, or by a worker of its app's queue.

    `task(...)` runs here. `submit` queues it and gives a handle, `call` waits for its result, `send`
    queues it one-way; each has a form with `_sync` for plain code. The errors are those of
    `AsyncSender` and `Sender`.
    """

    def __init__(self, app: App, function: Callable[P, Called], name: str, options: TaskOptions) -> None:
        self.app = app
        self.name = name
        self._function = function
        self._options = options
        self._signature = Signature(function)
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Called:
        """Run it here."""
        return self._function(*args, **kwargs)

    def options(self, **options: Unpack[TaskOptions]) -> Task[P, R, Called]:
        """The same task with other options."""
        merged: TaskOptions = {**self._options, **options}
        return Task(self.app, self._function, self.name, merged)

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> AsyncHandle[R]:
        """Queue it; returns when the manager has accepted it."""
        sender = await self.app.async_sender()
        handle = await sender.submit(self.name, self._signature.pack(args, kwargs), **self._task_options())
        return handle.typed(self._signature.result)

    async def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Have it run, and wait for its result."""
        sender = await self.app.async_sender()
        value = self._signature.pack(args, kwargs)
        timeout = self._options.get("timeout", DEFAULT_CALL_TIMEOUT)
        result = await sender.call(self.name, value, timeout=timeout, **self._task_options())
        return self._typed(result)

    async def send(self, *args: P.args, **kwargs: P.kwargs) -> TaskId:
        """Queue it one-way; returns when the manager has accepted it."""
        sender = await self.app.async_sender()
        return await sender.send(self.name, self._signature.pack(args, kwargs), **self._task_options())

    def submit_sync(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """As `submit`, in plain code."""
        value = self._signature.pack(args, kwargs)
        handle = self.app.sender().submit(self.name, value, **self._task_options())
        return handle.typed(self._signature.result)

    def call_sync(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `call`, in plain code."""
        value = self._signature.pack(args, kwargs)
        timeout = self._options.get("timeout", DEFAULT_CALL_TIMEOUT)
        return self._typed(self.app.sender().rpc(self.name, value, timeout=timeout, **self._task_options()))

    def send_sync(self, *args: P.args, **kwargs: P.kwargs) -> TaskId:
        """As `send`, in plain code."""
        value = self._signature.pack(args, kwargs)
        return self.app.sender().submit(self.name, value, reply=False, **self._task_options()).id

    def as_function(self) -> Function:
        """What a worker serves."""

        def call(_: StartJob, value: Any) -> Any:
            args, kwargs = self._signature.unpack(value)
            return self._function(*args, **kwargs)

        is_async = inspect.iscoroutinefunction(self._function)
        return Function(self.name, call, is_async=is_async, answers=True)

    def _task_options(self) -> Options:
        return {key: value for key, value in self._options.items() if key != "timeout"}  # type: ignore[return-value]

    def _typed(self, value: Any) -> R:
        result: R = self._signature.result(value)
        return result


class App:
    """Tasks of one queue: what workers serve, and what others call.

    Senders are made when they are first needed: one for each event loop, and one for each thread that
    uses the `_sync` forms.

    Args:
        queue: its name; None: as the environment says.
        address: of the Spread daemon; None: as the environment says.
        codec: of payloads: msgpack, json, raw or yaml.
        policy: limits and defaults.

    Raises:
        UsageError: the codec is unknown.
    """

    def __init__(
        self,
        queue: str | None = None,
        *,
        address: str | None = None,
        codec: str = codecs.DEFAULT_CODEC,
        policy: Policy = DEFAULT,
    ) -> None:
        self.tasks: dict[str, Task[..., Any, Any]] = {}
        self._queue = queue
        self._address = address
        self._codec = codecs.check_codec(codec)
        self.policy = policy
        self._senders: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncSender] = WeakKeyDictionary()
        self._threads = threading.local()

    @property
    def queue(self) -> str:
        """The queue's name."""
        return queue_name(self._queue)

    @overload
    def task(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R, R]: ...
    @overload
    def task(self, *, name: str = ..., **options: Unpack[TaskOptions]) -> _Decorator: ...
    def task(
        self, function: Callable[..., Any] | None = None, *, name: str = "", **options: Unpack[TaskOptions]
    ) -> Any:
        """Make a task of a function, under its own name or another.

        Args:
            function: when used without parentheses.
            name: under which it is served.
            options: for all its submissions and calls; see `TaskOptions`.

        Raises:
            UsageError: there is a task of that name already.
        """

        def decorate(function: Callable[..., Any]) -> Task[..., Any, Any]:
            task: Task[..., Any, Any] = Task(self, function, name or function.__name__, options)
            if task.name in self.tasks:
                raise UsageError(f"there is a task named {task.name!r} already")
            self.tasks[task.name] = task
            return task

        return decorate if function is None else decorate(function)

    # --- serving --------------------------------------------------------------------------------

    def worker(
        self,
        *,
        queue: str | None = None,
        address: str | None = None,
        concurrency: int = 1,
        name: str | None = None,
        policy: Policy | None = None,
    ) -> AsyncWorker:
        """A worker for all tasks of the app, to be run on an event loop; arguments replace the app's."""
        return AsyncWorker(
            {name: task.as_function() for name, task in self.tasks.items()},
            queue or self.queue,
            address=address or self._address,
            concurrency=concurrency,
            name=name,
            policy=policy or self.policy,
        )

    def run_worker(self, *, concurrency: int = 1, name: str | None = None) -> None:
        """Serve until SIGTERM or SIGINT, as `Worker.run` does."""

        async def run() -> None:
            await serve_until_stopped(self.worker(concurrency=concurrency, name=name))

        asyncio.run(run())

    # --- sending --------------------------------------------------------------------------------

    async def async_sender(self) -> AsyncSender:
        """The sender of the running event loop, connected.

        Raises:
            CannotConnectError: there is no daemon, or it refuses us.
        """
        loop = asyncio.get_running_loop()
        sender = self._senders.get(loop)
        if sender is None:
            sender = AsyncSender(self.queue, address=self._address, codec=self._codec, policy=self.policy)
            self._senders[loop] = sender
        return await sender.start()

    def sender(self) -> Sender:
        """The sender of this thread."""
        sender: Sender | None = getattr(self._threads, "sender", None)
        if sender is None:
            sender = Sender(self.queue, address=self._address, codec=self._codec, policy=self.policy)
            self._threads.sender = sender
        return sender

    async def close(self) -> None:
        """Disconnect the running event loop's sender."""
        sender = self._senders.pop(asyncio.get_running_loop(), None)
        if sender is not None:
            await sender.close()

    def close_sync(self) -> None:
        """Disconnect this thread's sender."""
        sender: Sender | None = getattr(self._threads, "sender", None)
        if sender is not None:
            del self._threads.sender
            sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Decorator:
    """What `app.task(...)` gives, for type checkers."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Task[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        raise NotImplementedError

"""Submitting tasks from plain code, or from any event loop that can watch a descriptor."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

import attrs

from spreadq import codecs
from spreadq.config import Duration, about, daemon_address, nanoseconds, new_instance, queue_name
from spreadq.errors import TimedOut
from spreadq.hosts import BlockingHost
from spreadq.requests import (
    DEFAULT_CALL_TIMEOUT,
    NEVER_ACCEPTED,
    Options,
    Pending,
    PendingRequests,
    call_expiry,
    response_value,
)
from spreadq_core.events import AbandonRequested, StopRequested
from spreadq_core.ids import SECOND, Instance, TaskId
from spreadq_core.policy import DEFAULT, Policy
from spreadq_core.sender import Sender as SenderRole
from transports.forks import generation
from transports.spread.blocking_client import BlockingSpread

OPEN_LIMIT = 500
"""Requests of one `Sender` that may be unresolved: it reads only inside its calls, and a daemon cuts off
who lets a thousand messages wait."""


R = TypeVar("R")
T = TypeVar("T")


def _plain(value: Any) -> Any:
    return value


class _Submitted(Pending):
    """Puts each of its answers into an inbox as it comes, unless its handle is asked for them."""

    __slots__ = ("_given", "_inbox")

    def __init__(
        self, sender: Instance, counter: int, inbox: deque[tuple[_Submitted, int]], *, reply: bool
    ) -> None:
        super().__init__(sender, counter, reply=reply)
        self._inbox: deque[tuple[_Submitted, int]] | None = inbox
        self._given = 0

    def changed(self) -> None:
        if self._inbox is not None:
            outcome = self.outcome  # which is an answer if it says anything beyond the responses
            says = outcome is not None and (outcome.status or outcome.codec or not self.responses)
            answers = len(self.responses) + bool(says)
            self._inbox.extend((self, index) for index in range(self._given, answers))
            self._given = answers

    def withhold(self) -> None:
        """Put nothing into the inbox."""
        if self._inbox is not None:
            for entry in [entry for entry in self._inbox if entry[0] is self]:
                self._inbox.remove(entry)
            self._inbox = None

    def give(self, index: int) -> Any:
        """An answer that was put into the inbox."""
        return response_value(self.responses[index]) if index < len(self.responses) else self.result()


class Handle(Generic[R]):
    """A task that was submitted, and what becomes of it."""

    def __init__(self, sender: Sender, pending: _Submitted, convert: Callable[[Any], R]) -> None:
        self._sender = sender
        self._pending = pending
        self._convert = convert

    def typed(self, convert: Callable[[Any], T]) -> Handle[T]:
        """The same, with a conversion of the plain value."""
        return Handle(self._sender, self._pending, convert)

    @property
    def id(self) -> TaskId:
        """Names the task everywhere."""
        return self._pending.id

    def result(self, timeout: Duration | None = None) -> R:
        """Wait for the value; it is not given by `Sender.receive` then.

        Args:
            timeout: of the wait, which does not end the task; None: for ever.

        Raises:
            TimedOut: it is not done yet.
            TaskError: it came to another end; see `errors`.
        """
        self._pending.withhold()
        if not self._sender.run_until(lambda: self._pending.outcome is not None, timeout):
            raise TimedOut(f"not done yet after {timeout}", self.id)
        return self._convert(self._pending.result())


class Sender:
    """Submits tasks to one queue, and makes calls. There is no thread behind it.

    It connects when it is first used. Not thread-safe; a forked child connects anew. To use it in a
    foreign event loop, watch `fileno()` (for writing, too, while `wants_write`), and call `dispatch()`
    when it is ready or `timeout` seconds have passed.

    Args:
        queue: its name; None: as the environment says.
        address: of the Spread daemon; None: as the environment says.
        codec: of payloads: msgpack, json, raw or yaml.
        name: for people.
        policy: limits and defaults.

    Raises:
        UsageError: a name is illegal, or none is given.
    """

    def __init__(
        self,
        queue: str | None = None,
        *,
        address: str | None = None,
        codec: str = codecs.DEFAULT_CODEC,
        name: str | None = None,
        policy: Policy = DEFAULT,
    ) -> None:
        self.queue = queue_name(queue)
        self._address = daemon_address(address)
        self._codec = codecs.check_codec(codec)
        self._name = name
        self._policy = policy
        self._set_up()

    def _set_up(self) -> None:
        """A fresh identity on a fresh connection."""
        policy = attrs.evolve(self._policy, open_limit=min(OPEN_LIMIT, self._policy.open_limit))
        self._generation = generation()
        self._role = SenderRole(self.queue, new_instance(), about(self._name, "sender"), policy)
        self._transport = BlockingSpread(self._address, membership=False)
        self._host = BlockingHost(self._role, self._transport)
        self._requests = PendingRequests(self._role, self._host)
        self._inbox: deque[tuple[_Submitted, int]] = deque()  # answers for `receive`
        self._connected = False

    def connect(self) -> Self:
        """Connect to the daemon, as the first use does; later, lost connections are made again.

        Raises:
            CannotConnectError: there is no daemon, or it refuses us.
        """
        if generation() != self._generation:
            self._transport.close()  # of our copy of the parent's connection, without a word
            self._set_up()
        if not self._connected:
            self._transport.connect()
            self._connected = True
            self._host.dispatch()
        return self

    def close(self) -> None:
        """Disconnect, when what was submitted is accepted or has had a moment to be."""
        if self._connected and generation() == self._generation:
            self._host.deliver([StopRequested()])
            while self._host.exited is None:
                self._host.dispatch(None)
            self._requests.give_up()
        self._transport.close()
        self._connected = False

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- submitting -----------------------------------------------------------------------------

    def submit(
        self,
        function: str,
        value: Any = None,
        *,
        reply: bool = True,
        wait: bool = True,
        **options: Unpack[Options],
    ) -> Handle[Any]:
        """Queue a task.

        Args:
            function: that a worker must serve.
            value: whatever the codec can encode.
            reply: its answers are of interest: `receive` or the handle give them.
            wait: return when the manager has accepted the task, not before.
            options: see `requests.Options`.

        Raises:
            UsageError: the function, an option or the size of the value is not possible, or too many
                requests are unresolved.
            BadPayload: the value cannot be encoded.
            Rejected: the manager does not accept it. Without `wait` its result says so.
            NoManager: nobody manages the queue. Without `wait` its result says so.
            CannotConnectError: there is no daemon.
        """
        self.connect()
        pending = _Submitted(*self._requests.next_id(), self._inbox, reply=reply)
        self._ask(pending, function, value, options, confirm=wait)
        if wait:
            self.run_until(lambda: pending.accepted or pending.outcome is not None, None)
            if pending.outcome is not None and pending.outcome.status in NEVER_ACCEPTED:
                pending.withhold()
                pending.result()
        return Handle(self, pending, _plain)

    def rpc(
        self,
        function: str,
        value: Any = None,
        *,
        timeout: Duration | None = DEFAULT_CALL_TIMEOUT,
        **options: Unpack[Options],
    ) -> Any:
        """Have a function run, and wait for its first response, or else its value.

        Args:
            function: that a worker must serve.
            value: whatever the codec can encode.
            timeout: after which it need not run any more; None: wait for ever.
            options: see `requests.Options`.

        Raises:
            TaskError: it came to another end; see `errors`.
            UsageError: the function, an option or the size of the value is not possible.
            BadPayload: the value cannot be encoded.
            CannotConnectError: there is no daemon.
        """
        self.connect()
        pending = Pending(*self._requests.next_id(), reply=True)
        self._ask(pending, function, value, call_expiry(timeout, options), confirm=False)
        try:
            self.run_until(lambda: pending.answered, None)
        except BaseException:
            self._requests.forget(pending)
            self._host.deliver([AbandonRequested(pending.counter)])
            raise
        return pending.answer()

    def receive(self, timeout: Duration | None = None) -> Any:
        """Wait for the next response or value of anything submitted.

        Args:
            timeout: of the wait; None: for ever.

        Raises:
            TimedOut: there was none; also as soon as nothing is open.
            TaskError: a task came to another end; see `errors`.
        """
        if not self.run_until(lambda: bool(self._inbox) or not len(self._requests), timeout):
            raise TimedOut(f"no response in {timeout}")
        if not self._inbox:
            raise TimedOut("nothing that was submitted is open")
        pending, index = self._inbox.popleft()
        return pending.give(index)

    def run_until(self, condition: Callable[[], bool], timeout: Duration | None) -> bool:
        """Do what there is to do until a condition holds; False: time is up (None: never)."""
        end = None if timeout is None else time.monotonic_ns() + nanoseconds(timeout)
        while not condition():
            left = None if end is None else (end - time.monotonic_ns()) / SECOND
            if left is not None and left <= 0:
                return False
            self._host.dispatch(left)
        return True

    # --- for foreign event loops ----------------------------------------------------------------

    def fileno(self) -> int:
        """Descriptor of the socket; changes with the connection, and is -1 while there is none."""
        return self._transport.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether to watch the descriptor for writing, too."""
        return self._transport.wants_write

    @property
    def timeout(self) -> float | None:
        """Seconds after which to call `dispatch` in any case; None: never."""
        deadline = self._host.deadline
        return None if deadline is None else max(0, deadline - time.monotonic_ns()) / SECOND

    def dispatch(self) -> None:
        """Do what there is to do, without waiting."""
        self.connect()
        self._host.dispatch(0)

    def _ask(self, pending: Pending, function: str, value: Any, options: Options, *, confirm: bool) -> None:
        payload = codecs.encode(self._codec, value)
        event = self._requests.add(pending, function, payload, self._codec, options, confirm=confirm)
        self._host.deliver([event])

"""What synchronous and asynchronous senders have in common: requests as events, outcomes as values."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypedDict

import msgspec

from spreadq import codecs, errors
from spreadq.config import Duration, optional_nanoseconds
from spreadq.jobs import UNKNOWN_FUNCTION
from spreadq_core.effects import Confirmed, Deliver, Resolve
from spreadq_core.errors import UsageError
from spreadq_core.events import SubmitRequested
from spreadq_core.host import Host
from spreadq_core.ids import ANYBODY, Instance, TaskId
from spreadq_core.messages import Outcome, Status
from spreadq_core.sender import Sender as SenderRole
from spreadq_core.terms import REMEMBERED_LIMIT, Terms

DEFAULT_CALL_TIMEOUT: Duration = 60.0
"""How long a call waits where nobody says, in seconds."""

_decode_failure = msgspec.msgpack.Decoder(errors.RemoteFailure).decode

_ERRORS: dict[Status, type[errors.TaskError]] = {
    Status.BURIED: errors.Buried,
    Status.EXPIRED: errors.TimedOut,
    Status.CANCELLED: errors.Cancelled,
    Status.REJECTED: errors.Rejected,
    Status.NO_MANAGER: errors.NoManager,
    Status.UNSERVED: errors.UnknownFunction,
}

NEVER_ACCEPTED = (Status.REJECTED, Status.NO_MANAGER)
"""How a task ends that no manager took."""


class Options(TypedDict, total=False):
    """What can be said of a task when it is submitted.

    Keys:
        priority: 0..9, higher first; default 0.
        max_attempts: how many lost workers end it; default 3.
        run_limit: how long one attempt may run; default: no limit.
        expiry: how long it is of use; default: for ever.
        headers: opaque bytes that travel along.
    """

    priority: int
    max_attempts: int
    run_limit: Duration | None
    expiry: Duration | None
    headers: bytes


class Pending:
    """What has become of a request so far."""

    __slots__ = ("accepted", "counter", "outcome", "reply", "responses", "sender")

    def __init__(self, sender: Instance, counter: int, *, reply: bool) -> None:
        self.sender = sender
        self.counter = counter
        self.reply = reply
        self.accepted = False
        self.responses: list[Deliver] = []
        self.outcome: Outcome | None = None

    def changed(self) -> None:
        """Called after each change."""

    @property
    def id(self) -> TaskId:
        """Of the task."""
        return TaskId(self.sender, self.counter)

    @property
    def answered(self) -> bool:
        """There is a first response, or the end."""
        return bool(self.responses) or self.outcome is not None

    def answer(self) -> Any:
        """The first response, else the value; raises as `value_of`."""
        if self.responses:
            return response_value(self.responses[0])
        assert self.outcome is not None
        return value_of(self.outcome)

    def result(self) -> Any:
        """The value, else the first response; raises as `value_of`."""
        assert self.outcome is not None
        done = self.outcome.status is Status.DONE and not self.outcome.codec
        return response_value(self.responses[0]) if done and self.responses else value_of(self.outcome)


class PendingRequests:
    """The requests of one sender that are not resolved, kept up to date by its host's effects."""

    def __init__(self, role: SenderRole, host: Host) -> None:
        self._role = role
        self._open: dict[int, Pending] = {}
        self._last = 0
        self._resolved = 0  # since the last one was added
        self._terms: dict[Hashable, Terms] = {}
        host.performers |= {
            Resolve: self._resolve,
            Confirmed: self._confirm,
            Deliver: self._deliver,
        }

    def __len__(self) -> int:
        return len(self._open)

    @property
    def come_one_by_one(self) -> bool:
        """Whether the next one will hardly have company: none is open, and no crowd was resolved just now."""
        return not self._open and self._resolved <= 1

    def next_id(self) -> tuple[Instance, int]:
        """Sender and counter of the next task."""
        return self._role.state.uplink.speaker.instance, self._last + 1

    def add(
        self, pending: Pending, function: str, payload: bytes, codec: str, options: Options, *, confirm: bool
    ) -> SubmitRequested:
        """The event that asks the role for the task that `pending` stands for; `confirm`: at once.

        Raises:
            UsageError: the function, the payload or an option is not possible, or too many are open.
        """
        headers = options.pop("headers", b"")
        terms = self._terms_of(function, codec, options, pending.reply)
        event = SubmitRequested(pending.counter, terms, payload, headers, confirm)
        count = len(self._open)  # those of this turn included
        if count >= self._role.policy.open_limit:
            raise UsageError(f"{count} requests are not resolved yet, and no more may be; wait for some")
        self._role.check(event)
        self._resolved = 0
        self._last = pending.counter
        self._open[self._last] = pending
        return event

    def _terms_of(self, function: str, codec: str, options: Options, reply: bool) -> Terms:
        key = (function, codec, reply, *options.items())
        try:
            terms = self._terms.get(key)
            if terms is None:
                if len(self._terms) >= REMEMBERED_LIMIT:
                    self._terms.clear()
                max_attempts = self._role.policy.max_attempts
                terms = self._terms[key] = _terms(function, codec, options, max_attempts, reply)
        except TypeError as error:
            raise UsageError(f"an option is of no possible type: {error}") from None
        return terms

    def forget(self, pending: Pending) -> None:
        """Nobody is interested any more."""
        self._open.pop(pending.counter, None)

    def give_up(self) -> None:
        """The sender is closed: whoever waits gets `Cancelled`."""
        for pending in list(self._open.values()):
            reason, (sender, counter) = b"the sender was closed before the task was done", pending.id
            outcome = Outcome(sender, counter, 0, ANYBODY, Status.CANCELLED, 0, reason, "text")
            self._resolve(Resolve(counter, outcome))

    def _resolve(self, effect: Resolve) -> None:
        pending = self._open.pop(effect.request, None)
        self._resolved += 1
        if pending is not None:
            pending.outcome = effect.outcome
            pending.changed()

    def _confirm(self, effect: Confirmed) -> None:
        for request in effect.requests:
            pending = self._open.get(request)
            if pending is not None:
                pending.accepted = True
                if not pending.reply:
                    del self._open[request]
                pending.changed()

    def _deliver(self, effect: Deliver) -> None:
        pending = self._open.get(effect.request)
        if pending is not None:
            pending.responses.append(effect)
            pending.changed()


def call_expiry(timeout: Duration | None, options: Options) -> Options:
    """Options of a call, whose deadline travels with the task."""
    options["expiry"] = timeout
    return options


def value_of(outcome: Outcome) -> Any:
    """The value of a task that is done, made of plain builtins.

    Raises:
        TaskError: it is not done, or has no value.
        BadPayload: its value is not what its codec says.
    """
    if outcome.status is Status.DONE and outcome.codec:
        return codecs.decode(outcome.codec, outcome.payload)
    id = TaskId(outcome.sender, outcome.counter)  # noqa: A001 -- what it is called everywhere
    if outcome.status is Status.DONE:
        raise errors.NoResponse("the function ended without a response", id)
    if outcome.status is Status.FAILED:
        try:
            failure = _decode_failure(outcome.payload)
        except msgspec.MsgspecError as error:
            raise errors.BadPayload(f"the worker's error is malformed: {error}") from error
        if failure.type == UNKNOWN_FUNCTION:
            raise errors.UnknownFunction(failure.message, id)
        raise errors.RemoteError(failure, id)
    raise _ERRORS[outcome.status](outcome.payload.decode(errors="replace"), id)


def response_value(response: Deliver) -> Any:
    """The value of a response."""
    return codecs.decode(response.codec, response.payload)


def _terms(function: str, codec: str, options: Options, max_attempts: int, reply: bool) -> Terms:
    if unknown := options.keys() - Options.__annotations__.keys():
        known = ", ".join(Options.__annotations__)
        raise UsageError(f"option {min(unknown)!r} is unknown; known are {known}")
    terms = Terms(
        function,
        codec,
        options.get("priority", 0),
        options.get("max_attempts", max_attempts),
        optional_nanoseconds(options.get("run_limit")),
        optional_nanoseconds(options.get("expiry")),
        reply,
    )
    if fault := terms.fault():
        raise UsageError(fault)
    return terms

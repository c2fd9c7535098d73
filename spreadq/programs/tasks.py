"""`spreadq submit` and `spreadq call`: tasks from the shell."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, TypeAlias

import msgspec
from cyclopts import Parameter

from spreadq.codecs import DEFAULT_CODEC
from spreadq.errors import BadPayload
from spreadq.programs.options import Queue, Spread
from spreadq.sender import Sender
from spreadq_core.errors import UsageError
from spreadq_core.policy import DEFAULT

QUOTED = 60
"""Characters of a wrong value that are shown."""

Value: TypeAlias = Annotated[str, Parameter(allow_leading_hyphen=True)]  # for `-`


def submit(
    function: str,
    value: Value = "[]",
    *,
    queue: Queue = None,
    priority: int = 0,
    run_limit: str | None = None,
    max_attempts: int = DEFAULT.max_attempts,
    codec: str = DEFAULT_CODEC,
    spread: Spread = None,
) -> None:
    """Queue a one-way task, and print its id when it is accepted.

    Args:
        function: that a worker must serve.
        value: its arguments in JSON: an array, an object of names, or one value; - reads stdin.
        priority: 0 to 9, higher first.
        run_limit: how long one attempt may run, e.g. 30s; what the App says is not known here.
        max_attempts: how many lost workers or overrun limits end it.
        codec: of the payload.
    """
    arguments = _json(value)
    with Sender(queue, address=spread, codec=codec) as sender:
        handle = sender.submit(
            function,
            arguments,
            reply=False,
            priority=priority,
            run_limit=run_limit,
            max_attempts=max_attempts,
        )
        print(handle.id)


def call(
    function: str,
    value: Value = "[]",
    *,
    queue: Queue = None,
    timeout: str = "60s",
    priority: int = 0,
    run_limit: str | None = None,
    max_attempts: int = DEFAULT.max_attempts,
    codec: str = DEFAULT_CODEC,
    spread: Spread = None,
) -> None:
    """Have a function run, and print its result in JSON.

    Args:
        function: that a worker must serve.
        value: its arguments in JSON: an array, an object of names, or one value; - reads stdin.
        timeout: how long to wait; the exit status is 124 when it is over.
        priority: 0 to 9, higher first.
        run_limit: how long one attempt may run, e.g. 30s; what the App says is not known here.
        max_attempts: how many lost workers or overrun limits end it.
        codec: of the payload.
    """
    arguments = _json(value)
    with Sender(queue, address=spread, codec=codec) as sender:
        result = sender.rpc(
            function,
            arguments,
            timeout=timeout,
            priority=priority,
            run_limit=run_limit,
            max_attempts=max_attempts,
        )
    try:
        print(json.dumps(msgspec.to_builtins(result, str_keys=True, enc_hook=str), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadPayload(f"the result has no form in JSON: {error}") from error


def _json(text: str) -> Any:
    try:
        return json.loads(sys.stdin.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        what = "stdin" if text == "-" else repr(text[:QUOTED])
        raise UsageError(f"{what} is not valid JSON: {error}") from error

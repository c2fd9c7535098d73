"""`spreadq submit` and `spreadq call`: tasks from the shell."""

from __future__ import annotations

import json
import sys
from typing import Any

from spreadq.codecs import DEFAULT_CODEC
from spreadq.programs.options import Queue, Spread
from spreadq.sender import Sender
from spreadq_core.errors import UsageError


def submit(
    function: str,
    value: str = "[]",
    *,
    queue: Queue = None,
    priority: int = 0,
    codec: str = DEFAULT_CODEC,
    spread: Spread = None,
) -> None:
    """Queue a one-way task, and print its id when it is accepted.

    Args:
        function: that a worker must serve.
        value: its arguments in JSON: an array, an object of names, or one value; - reads stdin.
        priority: 0 to 9, higher first.
        codec: of the payload.
    """
    with Sender(queue, address=spread, codec=codec) as sender:
        print(sender.submit(function, _json(value), reply=False, priority=priority).id)


def call(
    function: str,
    value: str = "[]",
    *,
    queue: Queue = None,
    timeout: str = "60s",
    priority: int = 0,
    codec: str = DEFAULT_CODEC,
    spread: Spread = None,
) -> None:
    """Have a function run, and print its result in JSON.

    Args:
        function: that a worker must serve.
        value: its arguments in JSON: an array, an object of names, or one value; - reads stdin.
        timeout: how long to wait; the exit status is 124 when it is over.
        priority: 0 to 9, higher first.
        codec: of the payload.
    """
    with Sender(queue, address=spread, codec=codec) as sender:
        result = sender.rpc(function, _json(value), timeout=timeout, priority=priority)
    print(json.dumps(result, default=str))


def _json(text: str) -> Any:
    source = sys.stdin.read() if text == "-" else text
    try:
        return json.loads(source)
    except ValueError as error:
        raise UsageError(f"the arguments are not valid JSON: {error}") from error

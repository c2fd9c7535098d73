"""What type checkers are to make of tasks: `E:` marks the lines where they must find an error."""
# mypy: warn-unused-ignores

from collections.abc import Coroutine
from typing import Any, assert_type

import spreadq

app = spreadq.App("images")


@app.task(run_limit="30s", max_attempts=3)
def resize(path: str, width: int = 100, *, upscale: bool = False) -> bytes:
    return b""


@app.task
async def rotate(path: str, degrees: float) -> list[int]:
    return []


@app.task
def many(first: str, *rest: int) -> None: ...


@app.task(priorty=3)  # E: no such option
def misspelt() -> None: ...


@app.task(priority="high")  # E: no such priority
def urgent() -> None: ...


# Here, they are the functions that they were.
assert_type(resize("a.png", 100, upscale=True), bytes)
coroutine = rotate("a.png", 90)
assert_type(coroutine, Coroutine[Any, Any, list[int]])
resize(1)  # E: not a path
resize("a.png", upscale="yes")  # E: not a bool
resize("a.png", 100, True)  # E: by keyword only
many("a", 1, 2)
many("a", "b")  # E: not an int


async def from_asyncio() -> None:
    assert_type(await resize.call("a.png", width=100), bytes)
    assert_type(await rotate.call("a.png", 90), list[int])
    assert_type(await rotate("a.png", 90), list[int])
    handle = await resize.submit("a.png")
    assert_type(handle, spreadq.AsyncHandle[bytes])
    assert_type(await handle.result(timeout="5s"), bytes)
    assert_type(await resize.send("a.png", 1), spreadq.TaskId)
    assert_type(await resize.options(priority=9).call("a.png"), bytes)
    await resize.call()  # E: no path
    await resize.call("a.png", height=1)  # E: no such parameter
    await rotate.submit("a.png", "90")  # E: not a float
    await resize.send(path=b"a.png")  # E: not a str
    await many.send("a", *["b"])  # E: not ints
    (await resize.call("a.png")).encode()  # E: bytes have no such method
    resize.options(timeouts=1)  # E: no such option


def from_plain_code() -> None:
    assert_type(resize.call_sync("a.png", width=100), bytes)
    assert_type(rotate.call_sync("a.png", 90), list[int])
    handle = rotate.submit_sync("a.png", 90)
    assert_type(handle, spreadq.Handle[list[int]])
    assert_type(handle.result(), list[int])
    assert_type(many.send_sync("a", 1), spreadq.TaskId)
    resize.call_sync(7)  # E: not a str
    rotate.send_sync("a.png")  # E: no degrees


class Worker(spreadq.Worker):
    """May be derived from."""


worker = Worker("images")


@worker.function
def plain(worker: spreadq.Worker, originator: spreadq.Originator, value: dict[str, int]) -> None:
    worker.respond(originator, {"task": str(originator.task)})


@worker.function(name="another")
def other(worker: spreadq.Worker, originator: spreadq.Originator, value: Any) -> None:
    worker.respond()  # E: to whom


with spreadq.Sender("images") as sender:
    assert_type(sender.submit("plain", 1, reply=False, priority=3).id, spreadq.TaskId)
    sender.submit("plain", prority=3)  # E: no such option
    sender.rpc("plain", {}, timeout="5s", max_attempts=1)

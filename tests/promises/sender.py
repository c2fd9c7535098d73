"""`python -m tests.promises.sender WHAT QUEUE ADDRESS ...`: senders that come to a bad end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading

from spreadq import AsyncSender, Sender, UnknownFunction


def say(word: str) -> None:
    """For the test, which reads what we say."""
    os.write(1, f"{word}\n".encode())


def submit_and_hang(queue: str, address: str, gate: str) -> None:
    """Two jobs that hold until there is a file `gate`, and behind them 50 tasks of each kind."""
    sender = Sender(queue, address=address).connect()
    for number in range(2):
        sender.submit("hold", [f"hold-{os.getpid()}-{number}", gate], reply=False)
    for number in range(50):
        sender.submit("echo", [f"one-way-{os.getpid()}-{number}"], reply=False)
        sender.submit("echo", [f"call-{os.getpid()}-{number}"])
    say("ready")
    threading.Event().wait()


def ask_for_many(queue: str, address: str, count: str) -> None:
    """Many calls at a time, whose answers come while nobody reads."""
    logging.basicConfig(level=logging.INFO)

    async def ask() -> None:
        async with AsyncSender(queue, address=address) as sender:
            labels = [f"call-{number}" for number in range(int(count))]
            handles = [await sender.submit("echo", [label], wait=False) for label in labels[1:]]
            handles.insert(0, await sender.submit("echo", [labels[0]]))
            say("ready")
            answers = [await handle.result("20s") for handle in handles]
            say(f"{sum(map(str.__eq__, answers, labels))} right")

    asyncio.run(ask())


def call_with_deadline(queue: str, address: str, timeout: str) -> None:
    """A call that nobody serves in time."""
    with contextlib.suppress(UnknownFunction):
        Sender(queue, address=address).rpc("echo", ["late"], timeout=timeout)


def fork(queue: str, address: str, count: str) -> None:
    """Parent and child use the same sender, at the same time."""
    sender = Sender(queue, address=address).connect()
    sender.rpc("echo", ["before"])
    handle = sender.submit("echo", ["across", 0.2])
    child = os.fork()
    who = "parent" if child else "child"
    for number in range(int(count)):
        if sender.rpc("echo", [f"{who}-{number}"]) == f"{who}-{number}":
            say("right")
    if child:
        assert handle.result("10s") == "across"
        sender.close()
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status))
    sender.close()
    os._exit(0)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    {
        "submit-and-hang": submit_and_hang,
        "ask-for-many": ask_for_many,
        "call-with-deadline": call_with_deadline,
        "fork": fork,
    }[what](*arguments)

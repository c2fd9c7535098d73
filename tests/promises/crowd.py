"""`python -m tests.promises.crowd QUEUE ADDRESS COUNT`: many workers in one process."""

from __future__ import annotations

import asyncio
import sys

from spreadq.programs.runtime import run, set_up_logging
from tests.promises.jobs import app


async def serve(queue: str, address: str, count: int) -> None:
    workers = [app.worker(queue=queue, address=address, name=f"one-of-{count}") for _ in range(count)]
    await asyncio.gather(*(worker.start() for worker in workers))
    await asyncio.gather(*(worker.wait() for worker in workers))


if __name__ == "__main__":
    set_up_logging("json", verbose=False)
    run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))

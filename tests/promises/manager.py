"""`python -m tests.promises.manager QUEUE ADDRESS STATE {NAME: MILLISECONDS}`: a manager in a hurry.

It is `sqm`, with a policy of its own, so that tests need not wait for the usual times.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import attrs

from spreadq.manager import QueueManager
from spreadq.programs.runtime import log_end, run, set_up_logging, stopping
from spreadq_core.ids import MILLISECOND
from spreadq_core.policy import DEFAULT, Policy


async def manage(queue: str, address: str, state: Path, policy: Policy) -> int:
    manager = QueueManager(queue, address, state=state, policy=policy)
    with stopping(manager.stop):
        await manager.start()
        return log_end(await manager.wait())


if __name__ == "__main__":
    times = {name: round(value * MILLISECOND) for name, value in json.loads(sys.argv[4]).items()}
    set_up_logging("json", verbose=False)
    queue, address, state = sys.argv[1:4]
    sys.exit(run(manage(queue, address, Path(state), attrs.evolve(DEFAULT, **times))))

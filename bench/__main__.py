"""`python -m bench [NAME...]`: measure, beside a raw floor in the same run."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter

from bench import core, daemon, end_to_end
from bench.figures import Benchmark, Figure, show
from spreadq.programs.runtime import exit_statuses
from spreadq_core.errors import UsageError

BENCHMARKS: dict[str, Benchmark] = {
    "core": core.hot_path,
    "memory": core.memory,
    "daemon": daemon.throughput,
    "rpc": end_to_end.rpc_latency,
    "serve": end_to_end.rpc_latency_serve,
    "outstanding": end_to_end.rpc_rate,
    "senders": end_to_end.senders_rate,
    "one-way": end_to_end.one_way_rate,
    "kill": end_to_end.kill_to_restart,
}

app = App(name="python -m bench", help="Measure spreadq on this machine.")


@app.default
def bench(
    *names: str,
    spread: Annotated[str | None, Parameter(help="Address of a real daemon to measure at, too.")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Run benchmarks.

    Args:
        names: which; all without.
        spread: see its help.
        as_json: print one JSON document.

    Returns:
        0, whether goals are reached or not: that is for people to judge.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise UsageError(f"benchmark {unknown[0]!r} is unknown; known are {', '.join(BENCHMARKS)}")
    figures: list[Figure] = []
    for name in names or BENCHMARKS:
        for address in (None, spread) if spread and BENCHMARKS[name] not in _ALONE else (None,):
            print(f"{name} {address or ''}", file=sys.stderr)
            figures += BENCHMARKS[name](address)
    show(figures, as_json=as_json)
    return 0


_ALONE = (core.hot_path, core.memory, daemon.throughput, end_to_end.rpc_latency_serve)
"""What has nothing to do with a real daemon."""


if __name__ == "__main__":
    with exit_statuses():
        app()

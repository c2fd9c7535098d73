"""`spreadq status`: a queue's state, for people or programs."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from spreadq.config import queue_name
from spreadq.programs.options import Json, Spread
from spreadq.status import ask_status

_STATE_STYLES = {"working": "green", "available": "", "greeted": "yellow", "draining": "yellow"}


def status(queue: str | None = None, *, spread: Spread = None, as_json: Json = False) -> None:
    """Show the state of a queue.

    Args:
        queue: its name; without it, as SPREAD_QUEUE_NAME or SPREAD_QUEUE says.
    """
    document = ask_status(queue_name(queue), spread)
    if as_json:
        print(json.dumps(document))
    else:
        show(document, Console())


def show(document: dict[str, Any], console: Console) -> None:
    """Print a report, as `report` makes it."""
    manager, tasks = document["manager"], document["tasks"]
    console.print(
        f"[bold]{escape(document['queue'])}[/bold]  managed by {escape(manager['name'])} (process "
        f"{manager['pid']} on {escape(manager['host'])}) for {_age(manager['uptime_s'])}, kept in "
        f"{manager['durability']}",
        highlight=False,
    )
    shown = (
        "queued",
        "running",
        "done",
        "failed",
        "buried",
        "expired",
        "cancelled",
        "rejected",
        "reassigned",
    )
    console.print("  ".join(f"{name} [bold]{tasks[name]}[/bold]" for name in shown), highlight=False)
    if tasks["queued"]:
        console.print(f"the oldest waits since {_age(document['oldest_age_s'])}", highlight=False)
    for function, count in document["unserved"].items():
        console.print(
            Text(f"{count} wait for a worker that serves {function!r}; none is here", style="yellow")
        )
    if not document["workers"]:
        console.print("no workers", style="yellow")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("worker", "host", "pid", "state", "running", "idle", "done", "functions"):
        numeric = heading in ("pid", "running", "idle", "done")
        table.add_column(heading, justify="right" if numeric else "left")
    for worker in document["workers"]:
        functions = worker["functions"]
        table.add_row(
            Text(worker["name"]),
            Text(worker["host"]),
            str(worker["pid"]),
            Text(worker["state"], style=_STATE_STYLES.get(worker["state"], "")),
            f"{worker['running']}/{worker['capacity']}",
            "" if worker["running"] else _age(worker["idle_s"]),
            str(worker["done"]),
            Text("all" if functions is None else " ".join(functions)),
        )
    console.print(table)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"

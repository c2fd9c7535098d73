"""The commands `spreadq` and `sqm`. Each is in a file of its own, which is imported when it is used."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from spreadq.programs.runtime import USAGE, exit_statuses

_VERSION = importlib.metadata.version("spreadq")

app = App(name="spreadq", help="Queued messaging over the Spread toolkit.", version=_VERSION)
for _path, _help in (
    ("serve:serve", "Serve queues on this machine: a daemon and managers in one process."),
    ("serve:manager", "Manage queues at a Spread daemon."),
    ("serve:daemon", "Run the embedded Spread daemon alone, for this machine."),
    ("worker:worker", "Serve the functions of an App or a Worker."),
    ("tasks:submit", "Queue a one-way task, and print its id when it is accepted."),
    ("tasks:call", "Have a function run, and print its result in JSON."),
    ("status:status", "Show the state of a queue."),
    ("demo:demo", "Count the words of many files, and kill a worker meanwhile."),
):
    app.command(f"spreadq.programs.{_path}", help=_help)  # for the list of commands, which imports none


def main(tokens: Sequence[str] | None = None) -> None:
    """The command `spreadq`."""
    _run(app, tokens)


def sqm_main(tokens: Sequence[str] | None = None) -> None:
    """The command `sqm`."""
    from spreadq.programs.serve import sqm  # noqa: PLC0415 -- as late as the commands above

    help_text = "Manage one queue: the queue manager of Spread::Queue."
    _run(App(name="sqm", help=help_text, version=_VERSION, default_command=sqm), tokens)


def _run(program: App, tokens: Sequence[str] | None) -> None:
    with exit_statuses():
        try:
            result = program(tokens, exit_on_error=False, print_error=True, result_action="return_value")
        except CycloptsError:
            raise SystemExit(USAGE) from None
        print(end="", flush=True)  # here, where it is known what to do if nobody reads it
    sys.exit(result if isinstance(result, int) else 0)

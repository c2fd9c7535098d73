"""Options that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter

from spreadq.programs.runtime import LogFormat

Spread: TypeAlias = Annotated[
    str | None, Parameter(name="--spread", help="Address of the Spread daemon, as 4803@host.")
]
Queue: TypeAlias = Annotated[str | None, Parameter(name=["--queue", "-Q"], help="Name of the queue.")]
State: TypeAlias = Annotated[Path | None, Parameter(help="Directory for what managers keep.")]
Verbose: TypeAlias = Annotated[
    bool, Parameter(name=["--verbose", "-v"], negative="", help="Log what happens in detail.")
]
Log: TypeAlias = Annotated[LogFormat, Parameter(name="--log-format", help="Human on a terminal, else json.")]
Json: TypeAlias = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON document.")]
Port: TypeAlias = Annotated[int, Parameter(help="TCP port on this machine; 0: any free one.")]
Unix: TypeAlias = Annotated[
    Path | None, Parameter(name="--unix", help="Path of a unix socket to listen at, too.")
]

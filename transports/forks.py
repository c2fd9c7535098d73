"""Lets clients notice that they are a forked child's copy, without a system call for each use."""

from __future__ import annotations

import os

_generation = 0


def generation() -> int:
    """A number that a process has in common with no child of its own."""
    return _generation


def _forked() -> None:
    global _generation  # noqa: PLW0603 -- the one thing here that a process is
    _generation += 1


os.register_at_fork(after_in_child=_forked)

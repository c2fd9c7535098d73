"""Errors by whose fault they are: the user's, a peer's, or our own."""

from __future__ import annotations

from spreadq_core.notes import NoteName


class SpreadqError(Exception):
    """Everything that spreadq raises."""


class UsageError(SpreadqError, ValueError):
    """You asked for something that is not possible; the message says what is."""


class PeerError(SpreadqError):
    """A peer sent what it may not. Never leaves a role's `handle`, which makes it a note."""

    def __init__(self, message: str, note: NoteName = NoteName.BAD_FRAME) -> None:
        super().__init__(message)
        self.note = note


class InvariantError(SpreadqError, AssertionError):
    """We broke a promise of our own: a defect in spreadq. The process should stop."""

"""Errors by whose fault they are: the user's, a peer's, or our own."""

from __future__ import annotations


class SpreadqError(Exception):
    """Everything that spreadq raises."""


class UsageError(SpreadqError, ValueError):
    """You asked for something that is not possible; the message says what is."""


class PeerError(SpreadqError):
    """A peer sent what the protocol does not allow. Never leaves a role's `handle`."""


class InvariantError(SpreadqError, AssertionError):
    """We broke a promise of our own: a defect in spreadq. The process should stop."""

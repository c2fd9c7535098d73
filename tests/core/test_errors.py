"""Errors by whose fault they are."""

from __future__ import annotations

from spreadq_core.errors import InvariantError, PeerError, SpreadqError, UsageError
from spreadq_core.notes import NoteName


def test_every_error_is_a_spreadq_error_and_the_builtin_that_people_expect():
    assert issubclass(UsageError, SpreadqError)
    assert issubclass(UsageError, ValueError)
    assert issubclass(InvariantError, SpreadqError)
    assert issubclass(InvariantError, AssertionError)
    assert issubclass(PeerError, SpreadqError)


def test_a_peers_error_names_the_note_that_it_becomes():
    assert PeerError("x").note is NoteName.BAD_FRAME
    assert PeerError("x", NoteName.STALE_LINK).note is NoteName.STALE_LINK
    assert str(PeerError("x")) == "x"

"""Names of notes."""

from __future__ import annotations

from spreadq_core.notes import NoteName


def test_a_note_is_called_as_its_member_in_lower_case():
    assert all(name.value == name.name.lower() for name in NoteName)

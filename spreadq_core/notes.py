"""Names of all notes: the one place where they are registered."""

from __future__ import annotations

import enum


class NoteName(enum.StrEnum):
    """What a `Note` may say."""

    BAD_FRAME = "bad_frame"

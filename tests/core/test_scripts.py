"""Whole conversations as text; `script` says how they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.script import run

SCRIPTS = sorted((Path(__file__).parents[1] / "scripts").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path, request):
    text = path.read_text()
    happened = run(text)
    if request.config.getoption("--rewrite-scripts"):
        path.write_text(happened)
    else:
        assert happened == text

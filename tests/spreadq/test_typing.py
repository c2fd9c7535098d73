"""Type checkers see the signatures of tasks."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api")

SAMPLE = Path(__file__).with_name("typed_sample.py")
ROOT = Path(__file__).parents[2]


def test_correct_uses_pass_and_wrong_ones_are_errors(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYPYPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(ROOT)]).strip(":"))
    cache = request.config.cache.mkdir("mypy")
    options = [
        "--strict",
        "--disable-error-code=unused-coroutine",
        "--follow-imports=silent",
        "--config-file=",
        "--no-error-summary",
        f"--cache-dir={cache}",
    ]
    output, complaints, _ = api.run([*options, str(SAMPLE)])
    assert not complaints
    lines = SAMPLE.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# E: " in line}
    found = {int(match[1]): match[0] for match in re.finditer(r":(\d+): error: .*", output)}
    unexpected = [f"{number}: {found[number]}" for number in sorted(found.keys() - wrong)]
    assert not unexpected
    missed = [lines[number - 1] for number in sorted(wrong - found.keys())]
    assert not missed


def test_the_packages_say_that_they_are_typed() -> None:
    for package in ("spreadq", "spreadq_core", "transports"):
        assert (ROOT / package / "py.typed").exists()

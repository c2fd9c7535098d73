"""`python -m bench`: what is measured, and how it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as program
from bench.figures import Figure
from spreadq_core.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What was measured, and where."""
    asked: list[tuple[str, str | None]] = []

    def pretend(name: str, benchmark: object) -> None:
        def measure(address: str | None) -> list[Figure]:
            asked.append((name, address))
            return [Figure(name, 1.0, "s")]

        monkeypatch.setitem(program.BENCHMARKS, name, measure)
        if benchmark in program._ALONE:
            monkeypatch.setattr(program, "_ALONE", (*program._ALONE, measure))

    for name, benchmark in list(program.BENCHMARKS.items()):
        pretend(name, benchmark)
    return asked


def test_all_of_them_unless_some_are_named(
    asked: list[tuple[str, str | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.bench(as_json=True) == 0
    assert asked == [(name, None) for name in program.BENCHMARKS]
    captured = capsys.readouterr()
    assert [figure["name"] for figure in json.loads(captured.out)] == list(program.BENCHMARKS)
    assert [line.strip() for line in captured.err.splitlines()] == list(program.BENCHMARKS)
    asked.clear()
    program.bench("kill", "core", as_json=True)
    assert asked == [("kill", None), ("core", None)]


def test_at_a_real_daemon_too_where_that_says_something(asked: list[tuple[str, str | None]]) -> None:
    program.bench("core", "rpc", "serve", "daemon", spread="4803@host", as_json=True)
    assert asked == [("core", None), ("rpc", None), ("rpc", "4803@host"), ("serve", None), ("daemon", None)]


def test_unknown_names_are_refused_before_anything_is_measured(asked: list[tuple[str, str | None]]) -> None:
    with pytest.raises(UsageError, match="benchmark 'cores' is unknown; known are core, memory, daemon"):
        program.bench("core", "cores")
    assert not asked


def test_as_a_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"], cwd=ROOT, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert "benchmark 'nonsense' is unknown" in result.stderr

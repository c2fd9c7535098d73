"""A figure, its floor and its goal, and how they are shown."""

from __future__ import annotations

import json

import pytest

from bench.figures import Figure, Goal, quantile, show

KEYS = ["name", "value", "unit", "floor", "ratio", "goal", "ok", "note"]


@pytest.mark.parametrize(
    ("goal", "value", "floor", "ratio", "ok"),
    [
        (Goal("<=", 5), 5.0, None, None, True),
        (Goal("<=", 5), 5.1, None, None, False),
        (Goal(">=", 5), 5.0, None, None, True),
        (Goal(">=", 5), 4.9, None, None, False),
        (Goal("<=", 1.2, "ratio"), 240.0, 200.0, 1.2, True),
        (Goal("<=", 1.2, "ratio"), 250.0, 200.0, 1.25, False),
        (Goal("<=", 1.2, "ratio"), 1.0, None, None, None),
        (Goal("<=", 1.2, "ratio"), None, 200.0, None, None),
        (Goal("<=", 5), None, None, None, None),
        (None, 5.0, 10.0, 0.5, None),
        (Goal("<=", 1), 0.0, 4.0, 0.0, True),
    ],
)
def test_a_goal_is_for_the_value_or_its_ratio_to_the_floor(
    goal: Goal | None, value: float | None, floor: float | None, ratio: float | None, ok: bool | None
) -> None:
    figure = Figure("name", value, "us", floor, goal)
    assert (figure.ratio, figure.ok) == (ratio, ok)


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        (Goal("<=", 3.5), "<= 3.5"),
        (Goal(">=", 60_000), ">= 60000"),
        (Goal("<=", 1.4, "ratio"), "<= 1.4 x floor"),
    ],
)
def test_a_goal_is_shown_as_it_is_meant(goal: Goal, text: str) -> None:
    assert str(goal) == text


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([3.0], 0.99, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 3.0),
        ([*map(float, range(100))], 0.99, 99.0),
        ([*map(float, range(1000))], 0.99, 990.0),
        ([1.0, 2.0], 1.0, 2.0),
        ([1.0, 2.0], 0.0, 1.0),
    ],
)
def test_quantiles_are_values_that_were_measured(values: list[float], q: float, expected: float) -> None:
    assert quantile(values, q) == expected


class TestShow:
    figures = (
        Figure("fast", 1.5, "us", 1.0, Goal("<=", 2, "ratio"), "a note"),
        Figure("slow", 123456.7, "calls/s", goal=Goal(">=", 200_000)),
        Figure("unknown", None, "ms"),
    )

    def test_for_programs_one_document_where_what_was_not_measured_is_null(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        show(self.figures, as_json=True)
        fast, slow, unknown = json.loads(capsys.readouterr().out)
        assert list(fast) == KEYS
        assert list(fast.values()) == ["fast", 1.5, "us", 1.0, 1.5, "<= 2 x floor", True, "a note"]
        assert list(slow.values()) == ["slow", 123456.7, "calls/s", None, None, ">= 200000", False, ""]
        assert list(unknown.values()) == ["unknown", None, "ms", None, None, None, None, ""]

    def test_for_people_a_table(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "150")
        show(self.figures, as_json=False)
        _, fast, slow, unknown = capsys.readouterr().out.splitlines()
        assert fast.split() == ["fast", "1.5", "us", "1", "1.5", "<=", "2", "x", "floor", "ok", "a", "note"]
        assert slow.split() == ["slow", "123,457", "calls/s", ">=", "200000", "missed"]
        assert unknown.split() == ["unknown", "ms"]

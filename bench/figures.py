"""A figure, its floor and its goal, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import attrs
from rich.console import Console
from rich.table import Table

FILE_WIDTH = 120
"""Columns of the table where it is not shown on a terminal."""


@attrs.frozen
class Goal:
    """What a figure should reach.

    Args:
        sense: whether it should be at most or at least so much.
        value: of the figure, or of its ratio to the floor.
        of: which of the two.
    """

    sense: Literal["<=", ">="]
    value: float
    of: Literal["value", "ratio"] = "value"

    def holds(self, measured: float) -> bool:
        """Whether a figure, or a ratio, reaches it."""
        return measured <= self.value if self.sense == "<=" else measured >= self.value

    def __str__(self) -> str:
        return f"{self.sense} {self.value:g}{' x floor' if self.of == 'ratio' else ''}"


@attrs.frozen
class Figure:
    """One measurement.

    Args:
        name: stable, for programs.
        value: None where it was not measured.
        unit: of value and floor.
        floor: the raw figure measured in the same run, if there is one.
        goal: if there is one.
        note: for people.
    """

    name: str
    value: float | None
    unit: str
    floor: float | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The figure in terms of its floor."""
        return self.value / self.floor if self.value is not None and self.floor else None

    @property
    def ok(self) -> bool | None:
        """Whether the goal is reached; None where there is nothing to compare."""
        measured = self.value if self.goal is None or self.goal.of == "value" else self.ratio
        return None if self.goal is None or measured is None else self.goal.holds(measured)

    def document(self) -> dict[str, Any]:
        """The form for programs; its keys are part of the public interface."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "floor": self.floor,
            "ratio": self.ratio,
            "goal": None if self.goal is None else str(self.goal),
            "ok": self.ok,
            "note": self.note,
        }


Benchmark: TypeAlias = Callable[[str | None], list[Figure]]
"""Measures at the Spread daemon of that address, or at the embedded one."""


def show(figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print figures as a table or as one JSON document."""
    if as_json:
        print(json.dumps([figure.document() for figure in figures]))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("figure", "value", "unit", "floor", "ratio", "goal", "", "note"):
        table.add_column(heading, justify="right" if heading in ("value", "floor", "ratio") else "left")
    for figure in figures:
        verdict = {True: "[green]ok[/green]", False: "[red]missed[/red]", None: ""}[figure.ok]
        table.add_row(
            figure.name,
            _number(figure.value),
            figure.unit,
            _number(figure.floor),
            _number(figure.ratio),
            "" if figure.goal is None else str(figure.goal),
            verdict,
            figure.note,
        )
    console = Console()
    if not console.is_terminal:  # nothing to fit in: names are not to be cut
        console.width = FILE_WIDTH
    console.print(table)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def quantile(values: Sequence[float], q: float) -> float:
    """Nearest rank."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]

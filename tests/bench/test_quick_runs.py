"""Each benchmark measures what it says, with so little work that its figures mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import core, daemon, end_to_end
from bench.figures import Benchmark, Figure

ROOT = Path(__file__).parents[2]

SMALL = {
    core: {"TASKS": 128, "REPEATS": 1, "QUEUED": 2000, "WEIGHED": 2000},
    daemon: {"REPEATS": 1},
    end_to_end: {
        "WARM_UP": 5,
        "ROUNDS": 2,
        "CALLS_PER_ROUND": 5,
        "RATE_CALLS": 200,
        "SENDERS_CALLS": 200,
        "ONE_WAY_TASKS": 200,
        "ONE_WAY_OUTSTANDING": 50,
        "KILLS": 1,
    },
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little work, in the directory in which `python -m bench...` works."""
    for module, settings in SMALL.items():
        for name, value in settings.items():
            assert getattr(module, name) > value
            monkeypatch.setattr(module, name, value)
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("SPREAD_QUEUE_NAME", raising=False)


@pytest.mark.parametrize(
    ("benchmark_", "names"),
    [
        (core.memory, ["memory_queued_task"]),
        (daemon.throughput, ["daemon_in_and_out"]),
        (end_to_end.rpc_latency, ["rpc_p50_embedded", "rpc_p99_embedded"]),
        (end_to_end.rpc_latency_serve, ["rpc_p50_serve", "rpc_p99_serve"]),
        (end_to_end.senders_rate, ["rpc_64_senders_embedded"]),
        (end_to_end.one_way_rate, ["one_way_embedded"]),
        (end_to_end.kill_to_restart, ["kill_to_restart_p50_embedded", "kill_to_restart_p99_embedded"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_it_gives_its_figures(benchmark_: Benchmark, names: list[str]) -> None:
    figures = benchmark_(None)
    assert [figure.name for figure in figures] == names
    assert all(figure.value is not None and figure.value > 0 for figure in figures)
    assert all(figure.unit in ("us", "ms", "calls/s", "tasks/s", "messages/s", "bytes") for figure in figures)


def test_latency_is_measured_beside_the_floor() -> None:
    figures = end_to_end.rpc_latency(None)
    assert all(figure.floor is not None and figure.ratio is not None for figure in figures)
    assert [str(figure.goal) for figure in figures] == ["<= 1.2 x floor", "<= 2 x floor"]


def test_outstanding_calls_at_a_manager_of_its_own_and_within_the_daemon() -> None:
    figures = end_to_end.rpc_rate(None)
    assert [figure.name for figure in figures] == [
        "rpc_64_outstanding_embedded",
        "rpc_64_outstanding_serve",
    ]


def test_the_core_with_few_and_many_workers_and_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def cost(workers: int, capacity: int, queued: int, frame: int) -> float:
        measured.append((workers, queued))
        return core_cost(min(workers, 20), capacity, queued, frame)

    core_cost = core._cost
    monkeypatch.setattr(core, "_cost", cost)
    figures = core.hot_path(None)
    assert {(4, 0), (10, 0), (10_000, 0), (10, 2000)} == set(measured)
    by_name: dict[str, Figure] = {figure.name: figure for figure in figures}
    assert list(by_name) == ["core_submit_assign_done", "core_10000_workers", "core_1000000_queued"]
    assert all(figure.value is not None and figure.value > 0 for figure in figures)


@pytest.mark.parametrize("benchmark_", [daemon.throughput, end_to_end.rpc_latency_serve])
def test_what_has_nothing_to_do_with_a_real_daemon_is_not_measured_there(benchmark_: Benchmark) -> None:
    assert benchmark_("9@127.0.0.1") == []

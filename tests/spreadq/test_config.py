"""Settings and their units."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from spreadq import UsageError, config
from transports.spread.address import DEFAULT_ADDRESS


@pytest.mark.parametrize(
    ("duration", "nanoseconds"),
    [
        ("250ms", 250_000_000),
        ("30s", 30_000_000_000),
        ("1.5s", 1_500_000_000),
        (" 5 m ", 300_000_000_000),
        ("2h", 7_200_000_000_000),
        ("1d", 86_400_000_000_000),
        (5, 5_000_000_000),
        (0.25, 250_000_000),
        (1e-9, 1),
        (timedelta(minutes=1, microseconds=1), 60_000_001_000),
    ],
)
def test_durations_have_units_and_numbers_are_seconds(duration: Any, nanoseconds: int) -> None:
    assert config.nanoseconds(duration) == config.optional_nanoseconds(duration) == nanoseconds


@pytest.mark.parametrize("duration", ["5", "", "s", "5 sec", "-5s", "5s5s", "1e3s", "5S", "1_0s"])
def test_a_duration_without_its_unit_is_refused(duration: str) -> None:
    with pytest.raises(UsageError, match=r"write a number with a unit: 250ms, 30s, 5m, 2h, 1d"):
        config.nanoseconds(duration)


@pytest.mark.parametrize("duration", [0, -1, "0s", "0.0ms", float("inf"), float("nan"), timedelta(0), 1e-12])
def test_a_duration_is_positive_and_finite(duration: Any) -> None:
    with pytest.raises(UsageError, match="must be positive and finite"):
        config.nanoseconds(duration)


def test_a_duration_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="must be positive and finite"):
        config.nanoseconds("9" * 400 + "d")


def test_no_duration_is_no_limit() -> None:
    assert config.optional_nanoseconds(None) == 0


def test_the_address_is_as_given_else_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPREADQ_DAEMON", raising=False)
    assert config.daemon_address(None) == DEFAULT_ADDRESS
    monkeypatch.setenv("SPREADQ_DAEMON", "4804@there")
    assert config.daemon_address(None) == "4804@there"
    assert config.daemon_address("unix:/here") == "unix:/here"


def test_the_queue_is_as_given_else_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPREAD_QUEUE_NAME", "SPREAD_QUEUE"):
        monkeypatch.setenv(name, "")
    with pytest.raises(UsageError, match="set SPREAD_QUEUE_NAME"):
        config.queue_name(None)
    monkeypatch.setenv("SPREAD_QUEUE", "b")
    assert config.queue_name(None) == "b"
    monkeypatch.setenv("SPREAD_QUEUE_NAME", "a")
    assert (config.queue_name(None), config.queue_name(""), config.queue_name("c")) == ("a", "a", "c")


def test_instances_are_never_zero_and_never_the_same() -> None:
    instances = {config.new_instance() for _ in range(1000)}
    assert len(instances) == 1000
    assert all(0 < instance < 2**64 for instance in instances)


def test_who_has_no_name_is_named_by_host_and_process() -> None:
    named, unnamed = config.about("me", "worker"), config.about(None, "worker")
    assert named.name == "me"
    assert unnamed.name == f"worker-{unnamed.host}-{unnamed.pid}"

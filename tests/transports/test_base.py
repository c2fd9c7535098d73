"""Limits, names and waits that all transports share."""

from __future__ import annotations

import math
from itertools import islice

import pytest

from spreadq_core.errors import PeerError, SpreadqError, UsageError
from transports import base


def test_private_names_are_legal_and_never_the_same() -> None:
    drawn = [base.random_name() for _ in range(1000)]
    assert len(set(drawn)) == len(drawn)
    assert all(len(name) == base.PRIVATE_NAME_LIMIT and name.isascii() and name.isalnum() for name in drawn)


def test_the_body_limit_is_what_a_stock_daemon_survives() -> None:
    assert base.body_limit(1) == 143_120
    assert base.body_limit(2) == 143_088
    assert 48 + 32 * base.GROUPS_LIMIT <= 1432 < 48 + 32 * (base.GROUPS_LIMIT + 1)


@pytest.mark.parametrize("name", ["$", "~", "x" * base.NAME_LIMIT, "MQ_queue"])
def test_legal_groups(name: str) -> None:
    base.check_group(name)


@pytest.mark.parametrize("name", ["", " ", "!", '"', "#", "\x7f", "é", "日", "x" * (base.NAME_LIMIT + 1)])
def test_illegal_groups(name: str) -> None:
    with pytest.raises(base.IllegalGroupError):
        base.check_group(name)


def test_a_destination_may_be_any_name_that_a_peer_may_have() -> None:
    base.check_message(("#alice#localhost", "with space", "\xff"), 0, 0)


@pytest.mark.parametrize(
    ("groups", "kind", "size", "error"),
    [
        ((), 0, 0, base.TooManyGroupsError),
        (("g",) * (base.GROUPS_LIMIT + 1), 0, 0, base.TooManyGroupsError),
        (("g",), base.KIND_MAX + 1, 0, base.IllegalKindError),
        (("g",), base.KIND_MIN - 1, 0, base.IllegalKindError),
        (("g",), 0, base.body_limit(1) + 1, base.MessageTooLongError),
        (("g", ""), 0, 0, base.IllegalGroupError),
    ],
)
def test_messages_over_a_limit_are_refused_again_and_again(
    groups: tuple[str, ...], kind: int, size: int, error: type[Exception]
) -> None:
    for _ in range(2):
        with pytest.raises(error):
            base.check_message(groups, kind, size)


def test_messages_at_every_limit_pass() -> None:
    for kind in (base.KIND_MIN, base.KIND_MAX):
        base.check_message(("g",), kind, base.body_limit(1))
    base.check_message(("g",) * base.GROUPS_LIMIT, 0, base.body_limit(base.GROUPS_LIMIT))


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (base.IllegalGroupError, UsageError),
        (base.TooManyGroupsError, UsageError),
        (base.MessageTooLongError, UsageError),
        (base.IllegalKindError, UsageError),
        (base.IllegalAddressError, UsageError),
        (base.ClosedError, UsageError),
        (base.ProtocolError, PeerError),
        (base.CannotConnectError, SpreadqError),
        (base.StalledError, SpreadqError),
    ],
)
def test_errors_say_whose_fault_it_is(error: type[Exception], fault: type[Exception]) -> None:
    assert issubclass(error, base.TransportError)
    assert issubclass(error, fault)


def test_waits_grow_to_the_limit() -> None:
    backoff = base.Backoff(initial=1.0, factor=3.0, limit=5.0, jitter=lambda: 1.0)
    assert list(islice(backoff.delays(), 4)) == [1.0, 3.0, 5.0, 5.0]
    assert list(islice(backoff.delays(), 1)) == [1.0]


def test_jitter_takes_up_to_half_of_a_wait() -> None:
    backoff = base.Backoff(initial=1.0, factor=1.0, limit=1.0, jitter=lambda: 0.0)
    assert next(backoff.delays()) == 0.5


def test_waits_never_overflow() -> None:
    backoff = base.Backoff(initial=1.0, factor=1e300, limit=2.0)
    assert max(islice(backoff.delays(), 1000)) <= 2.0


@pytest.mark.parametrize(
    "options",
    [{"initial": 0.0}, {"limit": -1.0}, {"factor": 0.5}, {"initial": math.nan}],
)
def test_impossible_waits_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="backoff"):
        base.Backoff(**options)

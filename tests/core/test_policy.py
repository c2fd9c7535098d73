"""Limits and defaults."""

from __future__ import annotations

import attrs
import pytest

from spreadq_core.errors import UsageError
from spreadq_core.policy import DEFAULT, Policy


@pytest.mark.parametrize("setting", [field.name for field in attrs.fields(Policy)])
@pytest.mark.parametrize("value", [0, -1, 1.5, None])
def test_every_setting_is_a_positive_whole_number(setting, value):
    with pytest.raises(UsageError, match=setting):
        Policy(**{setting: value})


def test_a_policy_does_not_change():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        DEFAULT.lease = 1


def test_both_budgets_together_stay_well_below_the_daemons_limit():
    assert DEFAULT.senders_budget + DEFAULT.workers_budget <= 800

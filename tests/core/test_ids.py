"""Names and identities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spreadq_core.errors import UsageError
from spreadq_core.ids import QUEUE_NAME_LIMIT, QueueGroups, TaskId, earliest


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**62))
def test_a_task_id_is_read_as_it_was_written(sender, counter):
    task = TaskId(sender, counter)
    assert TaskId.parse(str(task)) == task


@given(st.text(alphabet="0123456789abcdefABCDEFx_+- \n٣"))
def test_no_other_text_is_a_task_id(text):
    try:
        task = TaskId.parse(text)
    except UsageError:
        return
    assert str(task) == text


@pytest.mark.parametrize(
    "text",
    ["", "-", "1-1", "00c0ffee00c0ffee", "00c0ffee00c0ffee-", "00c0ffee00c0ffee-1_0", "+0c0ffee00c0ffee-1"],
)
def test_what_is_not_a_task_id_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match="one looks like 00c0ffee00c0ffee-1"):
        TaskId.parse(text)


def test_the_groups_of_a_queue_are_its_name_behind_a_prefix():
    groups = QueueGroups.of("mail")
    assert groups.queue == "mail"
    assert (groups.submit, groups.work) == ("MQ_mail", "WQ_mail"), "as in Spread::Queue 0.4"
    assert (groups.workers, groups.senders) == ("PQ_mail", "SQ_mail")
    assert (groups.managers, groups.control) == ("XQ_mail", "CQ_mail")


def test_the_longest_name_still_fits_a_spread_group():
    groups = QueueGroups.of("q" * QUEUE_NAME_LIMIT)
    assert len(groups.submit) == 31


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "a queue needs a name"),
        ("q" * 29, "29 characters, 28 at most"),
        ("a b", "only the printable ASCII"),
        ("a#b", "only the printable ASCII"),
        ("ä", "only the printable ASCII"),
        ("\x7f", "only the printable ASCII"),
    ],
)
def test_an_illegal_name_is_refused_with_the_reason(name, reason):
    with pytest.raises(UsageError, match=reason):
        QueueGroups.of(name)


def test_the_earliest_of_some_times_may_be_never():
    assert earliest(3, None, 2) == 2
    assert earliest(None, None) is None
    assert earliest() is None

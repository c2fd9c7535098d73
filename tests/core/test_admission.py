"""Which tasks are let in."""

from __future__ import annotations

import pytest

from spreadq_core.admission import refusal
from spreadq_core.messages import Refusal, Submit
from spreadq_core.policy import Policy
from spreadq_core.records import QueueState, SenderRecord
from spreadq_core.terms import Terms

POLICY = Policy(payload_limit=10, queue_limit=2, sender_limit=1, outcome_bytes_limit=5)
CALL = Terms("f", "raw", 0, 3, 0, 0, True)
ONE_WAY = Terms("f", "raw", 0, 3, 0, 0, False)


def refused(payload=b"", headers=b"", terms=CALL, held=0, tasks=0, kept=0):
    sender = SenderRecord(tasks=dict.fromkeys(range(held)))
    state = QueueState(tasks=tasks, outcome_bytes=kept)
    rejected = refusal(Submit(7, b"", payload, headers), terms, sender, state, POLICY)
    assert rejected is None or rejected.counter == 7
    return rejected and (rejected.refusal, rejected.reason)


def test_a_task_within_all_limits_is_let_in():
    assert refused(b"x" * 10, tasks=1, kept=4) is None
    assert refused(b"x" * 6, b"y" * 4) is None


@pytest.mark.parametrize(
    ("situation", "why", "reason"),
    [
        ({"payload": b"x" * 11}, Refusal.MALFORMED, "payload and headers of 11 bytes, 10 at most"),
        ({"payload": b"x" * 6, "headers": b"y" * 5}, Refusal.MALFORMED, "payload and headers of 11 bytes"),
        ({"tasks": 2}, Refusal.QUEUE_FULL, "the queue holds 2 tasks, which is its limit"),
        ({"held": 1}, Refusal.SENDER_FULL, "the queue holds 1 tasks of this sender"),
        ({"kept": 5}, Refusal.OUTCOMES_FULL, "the queue keeps 5 bytes of outcomes"),
    ],
)
def test_over_a_limit_a_task_is_rejected_with_the_reason(situation, why, reason):
    refusal_, text = refused(**situation)
    assert refusal_ is why
    assert reason in text


def test_kept_outcomes_do_not_keep_one_way_tasks_out():
    assert refused(terms=ONE_WAY, kept=10**9) is None

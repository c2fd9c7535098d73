"""Which tasks are let in. A limit rejects, with a reason; nothing is ever dropped."""

from __future__ import annotations

from spreadq_core.messages import Refusal, Rejected, Submit
from spreadq_core.policy import Policy
from spreadq_core.records import QueueState, SenderRecord
from spreadq_core.terms import Terms


def refusal(
    submit: Submit, terms: Terms, sender: SenderRecord, state: QueueState, policy: Policy
) -> Rejected | None:
    """Why a task is not let in, or None."""
    size = len(submit.payload) + len(submit.headers)
    if (
        size <= policy.payload_limit
        and state.tasks < policy.queue_limit
        and len(sender.tasks) < policy.sender_limit
        and (not terms.reply or state.outcome_bytes < policy.outcome_bytes_limit)
    ):
        return None
    if size > policy.payload_limit:
        reason = f"payload and headers of {size} bytes, {policy.payload_limit} at most"
        return Rejected(submit.counter, Refusal.MALFORMED, reason)
    if state.tasks >= policy.queue_limit:
        reason = f"the queue holds {state.tasks} tasks, which is its limit"
        return Rejected(submit.counter, Refusal.QUEUE_FULL, reason)
    if len(sender.tasks) >= policy.sender_limit:
        reason = f"the queue holds {len(sender.tasks)} tasks of this sender, which is the limit"
        return Rejected(submit.counter, Refusal.SENDER_FULL, reason)
    reason = f"the queue keeps {state.outcome_bytes} bytes of outcomes that nobody has fetched"
    return Rejected(submit.counter, Refusal.OUTCOMES_FULL, reason)

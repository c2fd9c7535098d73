"""Hypothesis strategies for messages of Spread's client protocol."""

from __future__ import annotations

from hypothesis import strategies as st

from spreadq_core.events import Cause
from transports.spread.messages import (
    SERVICES,
    Data,
    GroupId,
    Join,
    Kill,
    Leave,
    Membership,
    Reject,
    SelfLeave,
    TransitionSignal,
)
from transports.spread.wire import ENDIAN_MARK

byte_orders = st.sampled_from(["little", "big"])
names = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=31)
lists_of_names = st.lists(names, max_size=5).map(tuple)
mess_types = st.integers(-0x8000, 0x7FFF)
bodies = st.binary(max_size=200)
_signed = st.integers(-(2**31), 2**31 - 1)
_group_ids = st.builds(GroupId, _signed, _signed, _signed)
_service = st.sampled_from([1, 2, 4, 8, 0x10, 0x20])
_other_bits = st.integers(0, 2**32 - 1).map(lambda bits: bits & ~(ENDIAN_MARK | SERVICES | 0x70000))

plain_data = st.builds(Data, names, lists_of_names, mess_types, bodies, _service, st.booleans())
forged_data = st.builds(
    lambda data, bits: Data(
        data.sender, data.groups, data.mess_type, data.body, data.type_bits | bits, data.endian_mismatch
    ),
    plain_data,
    _other_bits,
)
client_messages = st.one_of(
    forged_data, st.builds(Join, names, names), st.builds(Leave, names, names), st.builds(Kill, names, names)
)


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    sets = draw(st.lists(lists_of_names, min_size=1, max_size=4).filter(any))
    own_set = draw(st.sampled_from([index for index, names in enumerate(sets) if names]))
    return Membership(
        draw(names),
        draw(lists_of_names),
        draw(st.sampled_from(Cause)),
        draw(_group_ids),
        tuple(sets),
        own_set,
    )


daemon_messages = st.one_of(
    forged_data,
    memberships(),
    st.builds(TransitionSignal, names, _group_ids),
    st.builds(SelfLeave, names),
    st.builds(Reject, names, lists_of_names, mess_types, bodies, st.integers(0, 2**32 - 1)),
)

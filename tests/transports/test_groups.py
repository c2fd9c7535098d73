"""The rules of a daemon: examples from the protocol, then any history against a naive model."""

from __future__ import annotations

from itertools import count

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from spreadq_core.errors import InvariantError
from spreadq_core.events import Cause, Received, ViewChanged
from transports.groups import GroupSpace, Member, News, private_group
from transports.spread.messages import (
    AGREED,
    SELF_DISCARD,
    Data,
    GroupId,
    Join,
    Leave,
    Membership,
    SelfLeave,
)
from transports.spread.wire import encode

TIME = 1_700_000_000
LOOPBACK = 0x7F000001


class Named(Member):
    def __init__(self, name: str, *, membership: bool = True) -> None:
        super().__init__(private_group(name, "d"), membership=membership)

    def put(self, news: News) -> None:
        raise NotImplementedError

    def disconnect(self, reason: str) -> None:
        raise NotImplementedError


@pytest.fixture
def space() -> GroupSpace:
    return GroupSpace(TIME)


def connect(space: GroupSpace, *names: str, membership: bool = True) -> list[Named]:
    members = [Named(name, membership=membership) for name in names]
    for member in members:
        space.connect(member)
    return members


def join(space: GroupSpace, member: Member, *groups: str) -> None:
    for group in groups:
        space.apply(member, Join(member.name, group))


def told(news: list[News]) -> list[tuple]:
    return [(item.message, [receiver.name for receiver in item.receivers]) for item in news]


def membership(group: str, members: list[Member], cause: Cause, index: int, subject: Member) -> Membership:
    names = tuple(sorted(member.name for member in members))
    return Membership(group, names, cause, GroupId(LOOPBACK, TIME, index), ((subject.name,),))


def test_members_are_sorted_but_told_in_the_order_in_which_they_joined(space: GroupSpace) -> None:
    zoe, adam, mia = connect(space, "zoe", "adam", "mia")
    join(space, zoe, "room")
    join(space, adam, "room")
    news = space.apply(mia, Join(mia.name, "room"))
    assert told(news) == [
        (membership("room", [zoe, adam, mia], Cause.JOIN, 3, mia), [zoe.name, adam.name, mia.name])
    ]


def test_names_sort_like_their_bytes(space: GroupSpace) -> None:
    members = connect(space, "~", "a", "Z", "$", "aa", "\xe9")
    for member in members:
        news = space.apply(member, Join(member.name, "room"))
    names = news[0].message.members
    assert [name.encode("latin-1") for name in names] == sorted(name.encode("latin-1") for name in names)


def test_a_leave_is_told_to_the_leaver_first(space: GroupSpace) -> None:
    alice, bob = connect(space, "alice", "bob")
    join(space, alice, "room")
    join(space, bob, "room")
    news = space.apply(alice, Leave(alice.name, "room"))
    assert told(news) == [
        (SelfLeave("room"), [alice.name]),
        (membership("room", [bob], Cause.LEAVE, 3, alice), [bob.name]),
    ]


def test_a_disconnect_is_told_once_per_group_in_sorted_order(space: GroupSpace) -> None:
    alice, bob = connect(space, "alice", "bob")
    join(space, alice, "zoo", "alpha", "mid", "alone")
    join(space, bob, "mid", "zoo", "alpha")
    news = space.disconnect(alice)
    assert told(news) == [
        (membership(group, [bob], Cause.DISCONNECT, 3, alice), [bob.name])
        for group in ("alpha", "mid", "zoo")
    ]
    assert alice.groups == set()
    assert space.members == (bob,)


def test_a_group_that_was_empty_begins_anew(space: GroupSpace) -> None:
    (alice,) = connect(space, "alice")
    join(space, alice, "room")
    space.apply(alice, Leave(alice.name, "room"))
    news = space.apply(alice, Join(alice.name, "room"))
    assert news[0].message.group_id.index == 1


@pytest.mark.parametrize("request_type", [Join, Leave])
def test_what_changes_nothing_is_not_told(space: GroupSpace, request_type: type) -> None:
    alice, bob = connect(space, "alice", "bob")
    join(space, alice, "room")
    member = alice if request_type is Join else bob
    before = space.generation
    assert space.apply(member, request_type(member.name, "room")) == []
    assert space.generation == before


def test_members_without_membership_are_members_to_the_others(space: GroupSpace) -> None:
    (alice,) = connect(space, "alice")
    (quiet,) = connect(space, "quiet", membership=False)
    join(space, alice, "room")
    news = space.apply(quiet, Join(quiet.name, "room"))
    assert told(news) == [(membership("room", [alice, quiet], Cause.JOIN, 2, quiet), [alice.name])]
    news = space.apply(quiet, Leave(quiet.name, "room"))
    assert told(news) == [(membership("room", [alice], Cause.LEAVE, 3, quiet), [alice.name])]


def test_a_look_alike_of_a_private_group_gets_no_data(space: GroupSpace) -> None:
    alice, bob = connect(space, "alice", "bob")
    join(space, bob, alice.name)
    assert bob.groups == {alice.name}
    message = Data(bob.name, (alice.name,), 0, b"")
    assert space.receivers(bob, message) == (alice,)


@pytest.mark.parametrize(
    ("groups", "receivers"),
    [
        (("room",), "ab"),
        (("room", "room", "#a#d"), "ab"),
        (("#c#d", "room"), "cab"),
        (("empty", "#x#d", "#a#elsewhere", "#a", "#"), ""),
        ((), ""),
    ],
)
def test_each_receiver_gets_a_message_once(
    space: GroupSpace, groups: tuple[str, ...], receivers: str
) -> None:
    a, b, c = connect(space, "a", "b", "c")
    join(space, a, "room")
    join(space, b, "room")
    found = space.receivers(c, Data(c.name, groups, 0, b""))
    assert [member.name for member in found] == [f"#{name}#d" for name in receivers]


def test_who_discards_its_own_messages_is_left_out(space: GroupSpace) -> None:
    a, b = connect(space, "a", "b")
    join(space, a, "room")
    join(space, b, "room")
    message = Data(a.name, ("room", a.name), 0, b"", AGREED | SELF_DISCARD)
    assert space.receivers(a, message) == (b,)


def test_a_name_is_connected_once(space: GroupSpace) -> None:
    connect(space, "alice")
    with pytest.raises(InvariantError, match="#alice#d is connected already"):
        connect(space, "alice")


def test_news_come_as_frames_and_as_events(space: GroupSpace) -> None:
    alice, bob = connect(space, "alice", "bob")
    (view,) = space.apply(alice, Join(alice.name, "room"))
    assert view.event == ViewChanged("room", (alice.name,), Cause.JOIN, (alice.name,))
    assert view.frame == encode(view.message)
    (data,) = space.apply(bob, Data(bob.name, ("room",), -7, b"body"))
    assert data.event == Received(bob.name, ("room",), -7, b"body")
    assert data.frame == encode(data.message)
    (farewell,) = space.apply(alice, Leave(alice.name, "room"))
    assert farewell.event == ViewChanged("room", (), Cause.LEAVE, (alice.name,))
    assert farewell.frame == encode(SelfLeave("room"))


# --- any history ----------------------------------------------------------------------------------


@attrs.define
class ModelGroup:
    joined: list[str] = attrs.Factory(list)
    changes: int = 0


class Model:
    """What PROTOCOL 4, 5 and 6.1 say, in the most obvious way."""

    def __init__(self) -> None:
        self.wants_views: dict[str, bool] = {}
        self.groups: dict[str, ModelGroup] = {}

    def join(self, name: str, group: str) -> list[tuple]:
        entry = self.groups.setdefault(group, ModelGroup())
        if name in entry.joined:
            return []
        entry.joined.append(name)
        return self._view(group, Cause.JOIN, name)

    def leave(self, name: str, group: str) -> list[tuple]:
        if group not in self.groups or name not in self.groups[group].joined:
            return []
        own = [(SelfLeave(group), [name])] if self.wants_views[name] else []
        self.groups[group].joined.remove(name)
        return own + self._view(group, Cause.LEAVE, name)

    def disconnect(self, name: str) -> list[tuple]:
        told = []
        for group in sorted(self.groups):
            if name in self.groups[group].joined:
                self.groups[group].joined.remove(name)
                told += self._view(group, Cause.DISCONNECT, name)
        del self.wants_views[name]
        return told

    def send(self, name: str, message: Data) -> list[tuple]:
        receivers: list[str] = []
        for group in message.groups:
            if group.startswith("#"):
                receivers += [group] if group in self.wants_views else []
            elif group in self.groups:
                receivers += self.groups[group].joined
        if message.type_bits & SELF_DISCARD:
            receivers = [receiver for receiver in receivers if receiver != name]
        return [(message, list(dict.fromkeys(receivers)))]

    def _view(self, group: str, cause: Cause, subject: str) -> list[tuple]:
        entry = self.groups[group]
        entry.changes += 1
        if not entry.joined:
            del self.groups[group]
        receivers = [name for name in entry.joined if self.wants_views[name]]
        group_id = GroupId(LOOPBACK, TIME, entry.changes)
        view = Membership(group, tuple(sorted(entry.joined)), cause, group_id, ((subject,),))
        return [(view, receivers)] if receivers else []


GROUPS = st.sampled_from(["room", "Room", "a", "", "\xe9", "#look#alike"])


class AnyHistory(RuleBasedStateMachine):
    connected = Bundle("connected")

    @initialize()
    def begin(self) -> None:
        self.space = GroupSpace(TIME)
        self.model = Model()
        self.numbers = count()

    @rule(target=connected, membership=st.booleans(), prefix=st.sampled_from("azM~$"))
    def connect(self, membership: bool, prefix: str) -> Member:
        member = Named(f"{prefix}{next(self.numbers)}", membership=membership)
        self.space.connect(member)
        self.model.wants_views[member.name] = membership
        return member

    @rule(member=connected, group=GROUPS)
    def join(self, member: Member, group: str) -> None:
        news = self.space.apply(member, Join(member.name, group))
        assert told(news) == self.model.join(member.name, group)

    @rule(member=connected, group=GROUPS)
    def leave(self, member: Member, group: str) -> None:
        news = self.space.apply(member, Leave(member.name, group))
        assert told(news) == self.model.leave(member.name, group)

    @rule(member=consumes(connected))
    def disconnect(self, member: Member) -> None:
        assert told(self.space.disconnect(member)) == self.model.disconnect(member.name)

    @rule(
        member=connected,
        groups=st.lists(GROUPS, max_size=4),
        others=st.lists(connected, max_size=3),
        discard=st.booleans(),
    )
    def send(self, member: Member, groups: list[str], others: list[Member], discard: bool) -> None:
        destinations = (*groups, *(other.name for other in others))
        message = Data(member.name, destinations, 1, b"x", AGREED | (SELF_DISCARD if discard else 0))
        assert told(self.space.apply(member, message)) == self.model.send(member.name, message)

    @invariant()
    def everybody_knows_where_they_are(self) -> None:
        assert {member.name: member.groups for member in self.space.members} == {
            name: {group for group, entry in self.model.groups.items() if name in entry.joined}
            for name in self.model.wants_views
        }


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

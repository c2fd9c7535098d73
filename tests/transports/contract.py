"""What every transport promises: one contract, inherited by the tests of each transport.

A test module derives from `TransportContract` and gives it a fixture `network`. Order between members
is tested on one daemon, where everything has one total order.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from itertools import count
from typing import TypeVar

import pytest

from spreadq_core.effects import Service
from spreadq_core.events import (
    Cause,
    Connected,
    Disconnected,
    Received,
    TransportEvent,
    ViewChanged,
)
from transports.base import (
    GROUPS_LIMIT,
    KIND_MAX,
    KIND_MIN,
    NAME_LIMIT,
    IllegalGroupError,
    IllegalKindError,
    MessageTooLongError,
    TooManyGroupsError,
    Transport,
    body_limit,
)

E = TypeVar("E", bound=TransportEvent)

TIMEOUT = 10.0
"""Seconds after which a test gives up waiting for an event."""

MARK = 4711


class Member(abc.ABC):
    """A connected transport, and the events that it gave."""

    transport: Transport

    def __init__(self) -> None:
        self.session = ""
        self._events: list[TransportEvent] = []
        self._marks = count()

    @abc.abstractmethod
    async def more(self) -> list[TransportEvent]:
        """Wait for events, `TIMEOUT` seconds at most.

        Raises:
            TimeoutError: there were none.
        """

    async def until(self, wanted: Callable[[TransportEvent], bool]) -> list[TransportEvent]:
        """Take events up to and including the first that is wanted."""
        at = 0
        while True:
            while at == len(self._events):
                self._events += await self.more()
            at += 1
            if wanted(self._events[at - 1]):
                taken, self._events = self._events[:at], self._events[at:]
                return taken

    async def next(self, kind: type[E]) -> E:
        """Take events up to the next of this kind, and give that one."""
        event = (await self.until(lambda event: isinstance(event, kind)))[-1]
        assert isinstance(event, kind)
        return event

    async def view(self, group: str) -> ViewChanged:
        """Take events up to the next view of `group`."""
        event = (await self.until(lambda event: isinstance(event, ViewChanged) and event.group == group))[-1]
        assert isinstance(event, ViewChanged)
        return event

    async def connected(self) -> None:
        self.session = (await self.next(Connected)).session

    async def join(self, group: str) -> ViewChanged:
        """Join and wait for the own view."""
        self.transport.join(group)
        self.transport.flush()
        return await self.view(group)

    def say(self, *groups: str, body: bytes = b"", kind: int = 0, service: Service = Service.AGREED) -> None:
        self.transport.send(groups, service, kind, body)
        self.transport.flush()

    async def all_so_far(self) -> list[TransportEvent]:
        """Take all that is ordered before a message to ourselves that is sent now."""
        mark = str(next(self._marks)).encode()
        self.say(self.session, body=mark, kind=MARK)
        events = await self.until(
            lambda event: isinstance(event, Received) and (event.kind, event.body) == (MARK, mark)
        )
        return events[:-1]


class Network(abc.ABC):
    """Makes members that can reach each other."""

    @abc.abstractmethod
    async def connect(self, *, membership: bool = True) -> Member:
        """Give a member that is connected and has taken its `Connected`."""

    @abc.abstractmethod
    async def interrupt(self, member: Member) -> None:
        """Break the member's connection; its transport gets another one after a moment."""


def sorted_sessions(*members: Member) -> tuple[str, ...]:
    return tuple(sorted(member.session for member in members))


class TransportContract:
    """The tests. Derive from it, and give a fixture `network`."""

    # --- sessions ---------------------------------------------------------------------------------

    async def test_a_session_is_a_private_group_name(self, network: Network) -> None:
        alice, bob = await network.connect(), await network.connect()
        assert alice.session != bob.session
        for member in (alice, bob):
            assert member.session.startswith("#")
            assert 4 <= len(member.session) <= NAME_LIMIT

    async def test_after_a_reconnect_the_session_is_new_and_nothing_is_joined(
        self, network: Network, group: str
    ) -> None:
        alice, bob = await network.connect(), await network.connect()
        await bob.join(group)
        await alice.join(group)
        assert (await bob.view(group)).members == sorted_sessions(alice, bob)
        old = alice.session
        await network.interrupt(alice)
        assert (await alice.next(Disconnected)).reason
        await alice.connected()
        assert alice.session != old
        gone = await bob.view(group)
        assert (gone.members, gone.cause, gone.together) == ((bob.session,), Cause.DISCONNECT, (old,))
        bob.say(group, body=b"for members")
        bob.say(alice.session, body=b"for alice")
        assert (await alice.next(Received)).body == b"for alice"

    async def test_calls_while_disconnected_are_dropped(self, network: Network, group: str) -> None:
        alice, bob = await network.connect(), await network.connect()
        await bob.join(group)
        await network.interrupt(alice)
        await alice.next(Disconnected)
        alice.transport.join(group)
        alice.transport.send((group,), Service.AGREED, 0, b"lost")
        alice.transport.leave(group)
        alice.transport.flush()
        with pytest.raises(IllegalGroupError):
            alice.transport.join("")
        with pytest.raises(MessageTooLongError):
            alice.transport.send((group,), Service.AGREED, 0, bytes(body_limit(1) + 1))
        await alice.connected()
        alice.transport.flush()
        assert await alice.all_so_far() == []
        alice.say(bob.session, body=b"arrives")
        assert (await bob.until(lambda event: isinstance(event, Received)))[-1].body == b"arrives"
        assert await bob.all_so_far() == []

    async def test_after_close_nothing_is_delivered_and_calls_are_harmless(
        self, network: Network, group: str
    ) -> None:
        alice, bob = await network.connect(), await network.connect()
        await alice.join(group)
        await bob.join(group)
        await alice.all_so_far()
        alice.transport.close()
        assert (await bob.view(group)).cause is Cause.DISCONNECT
        bob.say(alice.session, group, body=b"too late")
        alice.transport.close()
        alice.transport.join(group)
        alice.transport.flush()
        await bob.all_so_far()
        assert alice._events == []

    async def test_what_was_said_before_close_arrives(self, network: Network) -> None:
        alice, bob = await network.connect(), await network.connect()
        alice.transport.send((bob.session,), Service.AGREED, 1, b"last words")
        alice.transport.close()
        assert (await bob.next(Received)).body == b"last words"

    # --- membership -------------------------------------------------------------------------------

    async def test_who_joins_gets_a_view_with_itself(self, network: Network, group: str) -> None:
        alice = await network.connect()
        view = await alice.join(group)
        assert view == ViewChanged(group, (alice.session,), Cause.JOIN, (alice.session,))

    async def test_members_see_each_other_in_the_same_order(self, network: Network, group: str) -> None:
        members = []
        for _ in range(4):
            members.append(await network.connect())
            expected = ViewChanged(group, sorted_sessions(*members), Cause.JOIN, (members[-1].session,))
            assert await members[-1].join(group) == expected
            for member in members[:-1]:
                assert await member.view(group) == expected

    async def test_joining_twice_and_leaving_what_was_not_joined_change_nothing(
        self, network: Network, group: str
    ) -> None:
        alice = await network.connect()
        await alice.join(group)
        alice.transport.join(group)
        alice.transport.leave(group + "-other")
        alice.transport.flush()
        assert await alice.all_so_far() == []

    async def test_a_leave_is_seen_by_both_sides(self, network: Network, group: str) -> None:
        alice, bob = await network.connect(), await network.connect()
        await alice.join(group)
        await bob.join(group)
        await alice.view(group)
        bob.transport.leave(group)
        bob.transport.flush()
        assert await bob.view(group) == ViewChanged(group, (), Cause.LEAVE, (bob.session,))
        assert await alice.view(group) == ViewChanged(group, (alice.session,), Cause.LEAVE, (bob.session,))
        alice.say(group, body=b"not for bob")
        await alice.next(Received)
        assert await bob.all_so_far() == []

    async def test_a_close_is_seen_as_disconnect_in_every_group(self, network: Network, group: str) -> None:
        groups = [group + suffix for suffix in ("-c", "-a", "-b")]
        alice, bob = await network.connect(), await network.connect()
        for member in (alice, bob):
            for name in groups:
                await member.join(name)
        await alice.all_so_far()
        bob.transport.close()
        for name in sorted(groups):
            assert await alice.next(ViewChanged) == ViewChanged(
                name, (alice.session,), Cause.DISCONNECT, (bob.session,)
            )

    async def test_without_membership_there_are_no_views_but_all_data(
        self, network: Network, group: str
    ) -> None:
        alice, silent = await network.connect(), await network.connect(membership=False)
        await alice.join(group)
        silent.transport.join(group)
        silent.transport.flush()
        assert (await alice.view(group)).members == sorted_sessions(alice, silent)
        alice.say(group, body=b"data")
        alice.transport.leave(group)
        alice.transport.flush()
        await alice.until(lambda event: isinstance(event, ViewChanged) and event.members == ())
        silent.transport.leave(group)
        events = await silent.all_so_far()
        assert [type(event) for event in events] == [Received]

    # --- data -------------------------------------------------------------------------------------

    @pytest.mark.parametrize("service", Service)
    async def test_a_member_gets_its_own_message(
        self, network: Network, group: str, service: Service
    ) -> None:
        alice = await network.connect()
        await alice.join(group)
        alice.say(group, body=b"echo", kind=7, service=service)
        assert await alice.next(Received) == Received(alice.session, (group,), 7, b"echo")

    async def test_who_is_no_member_may_send_and_gets_nothing_back(
        self, network: Network, group: str
    ) -> None:
        alice, bob = await network.connect(), await network.connect()
        await alice.join(group)
        bob.say(group, body=b"from outside")
        assert await alice.next(Received) == Received(bob.session, (group,), 0, b"from outside")
        assert await bob.all_so_far() == []

    async def test_a_private_name_is_an_address(self, network: Network) -> None:
        alice, bob = await network.connect(), await network.connect()
        bob.say(alice.session, body=b"to you")
        bob.say(bob.session, body=b"to me")
        assert await alice.next(Received) == Received(bob.session, (alice.session,), 0, b"to you")
        assert await bob.next(Received) == Received(bob.session, (bob.session,), 0, b"to me")

    async def test_several_destinations_and_each_receiver_once(self, network: Network, group: str) -> None:
        alice, bob, carol = [await network.connect() for _ in range(3)]
        first, second = group + "-1", group + "-2"
        await alice.join(first)
        await alice.join(second)
        await bob.join(second)
        await alice.all_so_far()
        destinations = (second, first, alice.session, second)
        carol.say(*destinations, body=b"once")
        expected = Received(carol.session, destinations, 0, b"once")
        assert await carol.all_so_far() == []
        for member in (alice, bob):
            assert await member.all_so_far() == [expected]

    async def test_what_nobody_receives_is_dropped(self, network: Network, group: str) -> None:
        alice = await network.connect()
        alice.say(group, "#nobody#nowhere", "#nobody", body=b"into the void")
        assert await alice.all_so_far() == []

    async def test_as_many_destinations_as_allowed(self, network: Network, group: str) -> None:
        alice = await network.connect()
        await alice.join(group)
        destinations = (*(f"{group}-{number}" for number in range(GROUPS_LIMIT - 1)), group)
        alice.say(*destinations)
        assert (await alice.next(Received)).groups == destinations

    @pytest.mark.parametrize("kind", [KIND_MIN, -1, 0, 1, KIND_MAX])
    async def test_kinds_are_signed_numbers_of_16_bits(self, network: Network, kind: int) -> None:
        alice = await network.connect()
        alice.say(alice.session, kind=kind)
        assert (await alice.next(Received)).kind == kind

    @pytest.mark.parametrize("size", [0, 1, 1352, 1353, 65536, body_limit(1)])
    async def test_bodies_of_any_allowed_size(self, network: Network, size: int) -> None:
        alice, bob = await network.connect(), await network.connect()
        body = (bytes(range(251)) * (size // 251 + 1))[:size]
        alice.say(bob.session, body=body)
        assert (await bob.next(Received)).body == body

    async def test_all_messages_have_one_order(self, network: Network, group: str) -> None:
        alice, bob = await network.connect(), await network.connect()
        await alice.join(group)
        await bob.join(group)
        for number in range(50):
            for member, service in ((alice, Service.AGREED), (bob, Service.FIFO)):
                for part in range(2):
                    member.transport.send((group,), service, part, b"%d" % number)
                member.transport.flush()
        for member in (alice, bob):
            member.transport.send((group,), Service.AGREED, MARK, b"")
            member.transport.flush()
        heard = []
        for member in (alice, bob):
            marks: list[str] = []
            while len(marks) < 2:
                event = await member.next(Received)
                heard.append(event)
                marks += [event.sender] * (event.kind == MARK)
        assert heard[:202] == heard[202:]
        for member in (alice, bob):
            numbers = [
                (int(event.body), event.kind)
                for event in heard[:202]
                if event.sender == member.session and event.body
            ]
            assert numbers == [(number, part) for number in range(50) for part in range(2)]

    # --- limits -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", ["", "x" * (NAME_LIMIT + 1), "a b", "#a#b", "ä", "日本", "nul\0"])
    async def test_illegal_groups_are_refused(self, network: Network, name: str) -> None:
        alice = await network.connect()
        with pytest.raises(IllegalGroupError, match="use 1 to 31"):
            alice.transport.join(name)
        with pytest.raises(IllegalGroupError, match="use 1 to 31"):
            alice.transport.leave(name)

    @pytest.mark.parametrize("name", ["", "x" * (NAME_LIMIT + 1), "日本", "nul\0"])
    async def test_illegal_destinations_are_refused(self, network: Network, group: str, name: str) -> None:
        alice = await network.connect()
        with pytest.raises(IllegalGroupError, match="at most 31 bytes"):
            alice.transport.send((group, name), Service.FIFO, 0, b"")

    @pytest.mark.parametrize("groups", [0, GROUPS_LIMIT + 1])
    async def test_no_or_too_many_destinations_are_refused(
        self, network: Network, group: str, groups: int
    ) -> None:
        alice = await network.connect()
        with pytest.raises(TooManyGroupsError, match="use 1 to 43"):
            alice.transport.send((group,) * groups, Service.FIFO, 0, b"")

    @pytest.mark.parametrize("groups", [1, 2, GROUPS_LIMIT])
    async def test_bodies_that_a_daemon_would_not_survive_are_refused(
        self, network: Network, group: str, groups: int
    ) -> None:
        alice = await network.connect()
        with pytest.raises(MessageTooLongError, match="split it"):
            alice.transport.send((group,) * groups, Service.FIFO, 0, bytes(body_limit(groups) + 1))
        alice.transport.flush()
        assert await alice.all_so_far() == []

    @pytest.mark.parametrize("kind", [KIND_MIN - 1, KIND_MAX + 1])
    async def test_illegal_kinds_are_refused(self, network: Network, group: str, kind: int) -> None:
        alice = await network.connect()
        with pytest.raises(IllegalKindError, match="use a number from"):
            alice.transport.send((group,), Service.FIFO, kind, b"")

"""Who is in which group, and who is told what: the rules of one daemon, apart from any socket.

The embedded daemon and the in-process bus both keep one `GroupSpace`. It takes requests one after the
other and answers with the news that they make; that order is Spread's total order, in which views and
messages take their places side by side (PROTOCOL 7.2). Names are latin-1 text, which sorts like its bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from functools import cached_property
from typing import Final, TypeAlias

import attrs

from spreadq_core.errors import InvariantError
from spreadq_core.events import Cause, Received, TransportEvent, ViewChanged
from transports.spread.messages import (
    SELF_DISCARD,
    Data,
    GroupId,
    Join,
    Leave,
    Membership,
    SelfLeave,
)
from transports.spread.wire import encode

PRIVATE_MARK: Final = "#"
"""What private group names begin with; a destination that begins so is never a group (PROTOCOL 3.5)."""

_ADDRESS: Final = 0x7F000001
"""127.0.0.1 in group ids: the daemons that are built on this serve one machine (PROTOCOL 6.1)."""

Request: TypeAlias = Data | Join | Leave
"""What members ask for while they are connected (PROTOCOL 4)."""


def private_group(private_name: str, daemon_name: str) -> str:
    """Give the name under which all members know a connection (PROTOCOL 2.6)."""
    return f"{PRIVATE_MARK}{private_name}{PRIVATE_MARK}{daemon_name}"


class Member(ABC):
    """Somebody who can be in groups and be told something.

    Attributes:
        name: the private group name.
        membership: whether views are wanted; without them one is still a member in everybody's eyes.
        groups: what it is in; kept by its `GroupSpace`.
    """

    def __init__(self, name: str, *, membership: bool) -> None:
        self.name = name
        self.membership = membership
        self.groups: set[str] = set()

    @abstractmethod
    def put(self, news: News) -> None:
        """Take `news`; it must come out behind all that was put before."""

    @abstractmethod
    def disconnect(self, reason: str) -> None:
        """End the connection, if there is one; `reason` is for people."""


class News:
    """Something that some members are to be told, in the form that each of them needs.

    Attributes:
        message: a view, a self-leave or data.
        receivers: whom to tell, in the order in which they joined (PROTOCOL 7.2).
    """

    def __init__(self, message: Membership | SelfLeave | Data, receivers: tuple[Member, ...]) -> None:
        self.message = message
        self.receivers = receivers

    def deliver(self) -> None:
        """Put it to all receivers."""
        for receiver in self.receivers:
            receiver.put(self)

    @cached_property
    def frame(self) -> bytes:
        """The message as it goes to a client of the daemon."""
        return encode(self.message)

    @cached_property
    def event(self) -> TransportEvent:
        """The message as a member in this process gets it."""
        message = self.message
        match message:
            case Data():
                return Received(message.sender, message.groups, message.mess_type, message.body)
            case Membership():
                return ViewChanged(message.group, message.members, message.cause, message.sets[0])
            case SelfLeave():
                return ViewChanged(message.group, (), Cause.LEAVE, (self.receivers[0].name,))


@attrs.define(eq=False)
class _Group:
    members: dict[Member, None] = attrs.Factory(dict)
    """In the order in which they joined."""
    names: list[str] = attrs.Factory(list)
    """Of the members, sorted."""
    index: int = 0
    """Counts the changes, from 1; the last part of the group id (PROTOCOL 6.1)."""


class GroupSpace:
    """All connections and groups of one daemon.

    Args:
        time: when the daemon's life began, in UNIX seconds: a part of all group ids (PROTOCOL 6.1).

    Attributes:
        generation: grows with every change; what `receivers` said holds while it stays the same.
    """

    def __init__(self, time: int) -> None:
        self.generation = 0
        self._time = time
        self._members: dict[str, Member] = {}
        self._groups: dict[str, _Group] = {}

    @property
    def members(self) -> tuple[Member, ...]:
        """All that are connected."""
        return tuple(self._members.values())

    def connect(self, member: Member) -> None:
        """Let `member` be spoken to under its name.

        Raises:
            InvariantError: the name is in use; the owner has to keep names unique.
        """
        if member.name in self._members:
            raise InvariantError(f"{member.name} is connected already")
        self._members[member.name] = member
        self.generation += 1

    def apply(self, member: Member, request: Request) -> list[News]:
        """Carry out what a connected `member` asks for (PROTOCOL 4)."""
        match request:
            case Data():
                return [News(request, self.receivers(member, request))]
            case Join():
                return self._join(member, request.group)
            case Leave():
                return self._leave(member, request.group)

    def disconnect(self, member: Member) -> list[News]:
        """Remove `member` from everything: one view for each group that goes on, groups sorted."""
        del self._members[member.name]
        self.generation += 1
        return [
            news for group in sorted(member.groups) for news in self._remove(member, group, Cause.DISCONNECT)
        ]

    def receivers(self, sender: Member, message: Data) -> tuple[Member, ...]:
        """Find who gets `message`: each one once, unknown destinations being nobody (PROTOCOL 5.1)."""
        found: dict[Member, None] = {}
        for name in message.groups:
            if name.startswith(PRIVATE_MARK):
                if member := self._members.get(name):
                    found[member] = None
            elif group := self._groups.get(name):
                found.update(group.members)
        if message.type_bits & SELF_DISCARD:
            found.pop(sender, None)
        return tuple(found)

    def _join(self, member: Member, name: str) -> list[News]:
        """Nothing happens if it is a member already."""
        if name in member.groups:
            return []
        group = self._groups.setdefault(name, _Group())
        group.members[member] = None
        insort(group.names, member.name)
        member.groups.add(name)
        return self._changed(name, group, Cause.JOIN, member)

    def _leave(self, member: Member, name: str) -> list[News]:
        """Nothing happens if it is no member; else it hears of it before the others (PROTOCOL 5.4)."""
        if name not in member.groups:
            return []
        farewell = [News(SelfLeave(name), (member,))] if member.membership else []
        return farewell + self._remove(member, name, Cause.LEAVE)

    def _remove(self, member: Member, name: str, cause: Cause) -> list[News]:
        group = self._groups[name]
        del group.members[member]
        del group.names[bisect_left(group.names, member.name)]
        member.groups.discard(name)
        if not group.members:
            del self._groups[name]
        return self._changed(name, group, cause, member)

    def _changed(self, name: str, group: _Group, cause: Cause, subject: Member) -> list[News]:
        """Make the new view, if anybody wants it: in a large group that is a long list."""
        self.generation += 1
        group.index += 1
        receivers = tuple(member for member in group.members if member.membership)
        if not receivers:
            return []
        group_id = GroupId(_ADDRESS, self._time, group.index)
        view = Membership(name, tuple(group.names), cause, group_id, ((subject.name,),))
        return [News(view, receivers)]

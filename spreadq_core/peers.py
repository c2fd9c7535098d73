"""The workers and senders that have a link to a manager: who they are, where, and what waits for them."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from spreadq_core.effects import Send, Service
from spreadq_core.events import ViewChanged
from spreadq_core.ids import ANYBODY, Instance, Nanos, QueueGroups, earliest
from spreadq_core.link import Link, Speaker
from spreadq_core.messages import About, AnyMessage, Frame, SenderHello, Welcome, WorkerHello
from spreadq_core.policy import Policy
from spreadq_core.timers import Alarms


class SenderPeer(msgspec.Struct, gc=False):
    """A sender."""

    about: About  # for people
    session: str  # its private name
    link: Link  # ours with it
    told: int = 0  # it knows that all up to this counter are accepted
    owed: bool = True  # a one-way task ended of which it may not know that it was accepted
    accept_at: Nanos | None = None  # when it must be told of more, if there is more
    finished: list[int] = []  # tasks whose outcome it should have got from a worker, since the last check
    unclosed: list[int] = []  # those of before, if it had not closed them by then
    check_at: Nanos | None = None  # when what is unclosed is sent again


class WorkerPeer(msgspec.Struct, gc=False):
    """A worker."""

    about: About  # for people
    session: str  # its private name
    link: Link  # ours with it
    lease_at: Nanos  # when its lease ends, unless it is heard before
    rested_at: Nanos  # when it last said anything about its jobs
    entered: bool = False  # the queue may assign to it


Peer: TypeAlias = SenderPeer | WorkerPeer


class PeersState(msgspec.Struct, gc=False):
    """All state of `Peers`."""

    senders: dict[Instance, SenderPeer] = {}  # by instance
    workers: dict[Instance, WorkerPeer] = {}  # by instance
    alarm_at: dict[Instance, Nanos] = {}  # by instance, when something about it is due
    # by presence group, who was in it when it was last seen since we connected
    views: dict[str, list[str]] = {}


class Peers:
    """Peers by instance and by session, with an alarm for each."""

    def __init__(self, groups: QueueGroups, policy: Policy, state: PeersState) -> None:
        self._groups = groups
        self._policy = policy
        self.state = state
        self.senders = state.senders
        self.workers = state.workers
        self._sessions: dict[str, Instance] = {}
        self._alarms: Alarms[Instance] = Alarms(state.alarm_at)
        self._dirty: dict[Instance, Peer] = {}
        peers: dict[Instance, Peer] = {**self.senders, **self.workers}
        for instance, peer in peers.items():
            self._sessions[peer.session] = instance

    def get(self, instance: Instance) -> Peer | None:
        """The peer with this instance."""
        return self.workers.get(instance) or self.senders.get(instance)

    # --- coming and going -----------------------------------------------------------------------

    def opens_link(self, frame: Frame, peer: Peer | None) -> bool:
        """Whether a frame that is not of `peer`'s link, if it has one, opens a new one."""
        if frame.number != 1 or not frame.messages or frame.target != ANYBODY:
            return False
        if peer is not None and frame.link <= peer.link.number:
            return False
        other = WorkerPeer if type(frame.messages[0]) is SenderHello else SenderPeer
        return type(frame.messages[0]) in (SenderHello, WorkerHello) and not isinstance(peer, other)

    def open(self, session: str, frame: Frame, hello: SenderHello | WorkerHello, now: Nanos) -> Peer:
        """A new link, which replaces what we had with this peer."""
        instance, about = frame.source, hello.about
        old = self.get(instance)
        if old is not None:
            self._sessions.pop(old.session, None)
        self._sessions[session] = instance
        link = Link(frame.link, (session,), Service.FIFO, instance)
        self._alarms.disarm(instance)
        shares = self._shares()
        peer: Peer
        if isinstance(hello, SenderHello):
            peer = self.senders[instance] = SenderPeer(about, session, link)
        else:
            lease_at = now + self._policy.lease
            peer = self.workers[instance] = WorkerPeer(about, session, link, lease_at, now)
        if self._shares() != shares:  # smaller ones are told at once, lest somebody say too much
            self._dirty.update(self.senders)
            self._dirty.update(self.workers)
        self.say(instance, peer, Welcome(self._policy.lease))
        return peer

    def is_present(self, session: str, group: str) -> bool:
        """Whether a session is in the view of one of the presence groups."""
        return session in self.state.views.get(group, ())

    def remove(self, instance: Instance) -> Peer:
        """The peer has no link any more."""
        peer: Peer = self.workers.pop(instance) if instance in self.workers else self.senders.pop(instance)
        self._sessions.pop(peer.session, None)
        self._dirty.pop(instance, None)
        self._alarms.disarm(instance)
        return peer

    def view_changed(self, event: ViewChanged) -> tuple[list[str], list[str]]:
        """Sessions that left a presence group, and those that came.

        Before the first view since we connected nobody's departure can be inferred.
        """
        if event.group not in (self._groups.workers, self._groups.senders):
            return [], []
        before, members = self.state.views.get(event.group, ()), event.members
        self.state.views[event.group] = list(members)
        return sorted(set(before).difference(members)), sorted(set(members).difference(before))

    def at(self, session: str) -> Instance | None:
        """The peer whose current session this is."""
        return self._sessions.get(session)

    def reconnected(self) -> None:
        """We were away ourselves."""
        self.state.views.clear()

    # --- speaking, and alarms -------------------------------------------------------------------

    def say(self, instance: Instance, peer: Peer, message: AnyMessage) -> None:
        """Say `message` when the turn ends."""
        peer.link.mail.append(message)
        self._dirty[instance] = peer

    def touch(self, instance: Instance, peer: Peer) -> None:
        """See when the turn ends what the link has to say of itself, and when next."""
        self._dirty[instance] = peer

    def flush(self, speaker: Speaker, now: Nanos, out: list[Send]) -> None:
        """End a turn: what waits for each peer that was touched, with its share of our attention."""
        policy, (for_senders, for_workers) = self._policy, self._shares()
        for instance, peer in self._dirty.items():
            link, told, said = peer.link, peer.link.grant, len(out)
            link.grant = for_senders if isinstance(peer, SenderPeer) else for_workers
            link.flush(speaker, now, policy, out)
            if link.grant < told and len(out) == said:
                out.append(link.sign_of_life(speaker, now))
            self.arm(instance, peer)
        self._dirty.clear()

    def _shares(self) -> tuple[int, int]:
        """How many frames each sender and each worker may leave unreceipted."""
        policy = self._policy
        for_senders = max(1, policy.senders_budget // max(1, len(self.senders)))
        return for_senders, max(1, policy.workers_budget // max(1, len(self.workers)))

    @property
    def deadline(self) -> Nanos | None:
        """When an alarm rings."""
        return self._alarms.deadline

    def ring(self, now: Nanos) -> list[tuple[Instance, Peer]]:
        """Those whose alarm rang: something about them is due."""
        return [(instance, peer) for instance in self._alarms.ring(now) if (peer := self.get(instance))]

    def arm(self, instance: Instance, peer: Peer) -> None:
        """Set the peer's alarm for whatever is due next."""
        policy = self._policy
        link_at = peer.link.deadline(policy)
        if isinstance(peer, WorkerPeer):
            at: Nanos | None = peer.lease_at if link_at is None else min(link_at, peer.lease_at)
        else:
            at = earliest(link_at, peer.accept_at, peer.check_at)
        if at is not None:
            self._alarms.arm(instance, at)

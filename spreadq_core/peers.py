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
    """A sender.

    Args:
        about: for people.
        session: its private name.
        link: ours with it.
        present: it is in the senders' view.
        away_at: since when it is not.
        told: it knows that all up to this counter are accepted.
        accept_at: when it must be told of more, if there is more.
        finished_at: when outcomes came that it should have got from a worker; oldest first.
    """

    about: About
    session: str
    link: Link
    present: bool
    away_at: Nanos | None
    told: int = 0
    accept_at: Nanos | None = None
    finished_at: dict[int, Nanos] = {}


class WorkerPeer(msgspec.Struct, gc=False):
    """A worker.

    Args:
        about: for people.
        session: its private name; "": an earlier manager knew it, and it has not said hello to us.
        link: ours with it.
        present: it is in the workers' view.
        lease_at: when its lease ends, unless it is heard before.
        rested_at: when it last ended an attempt, or entered.
        ready: it has made all its claims.
        entered: it may be assigned tasks.
    """

    about: About
    session: str
    link: Link
    present: bool
    lease_at: Nanos
    rested_at: Nanos
    ready: bool = False
    entered: bool = False


Peer: TypeAlias = SenderPeer | WorkerPeer


class PeersState(msgspec.Struct, gc=False):
    """All state of `Peers`: peers by instance, and the presence groups' members since we connected."""

    senders: dict[Instance, SenderPeer] = {}
    workers: dict[Instance, WorkerPeer] = {}
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
        self._alarms: Alarms[Instance] = Alarms()
        self._dirty: dict[Instance, Peer] = {}
        for instance, peer in [*self.senders.items(), *self.workers.items()]:
            self._sessions[peer.session] = instance
            self.arm(instance, peer)

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
        link.queue(link.home, Welcome(self._policy.lease))
        self._alarms.disarm(instance)
        if isinstance(hello, SenderHello):
            present = session in self.state.views.get(self._groups.senders, ())
            self.senders[instance] = sender = SenderPeer(about, session, link, present, None if present else now)
            return sender
        present = session in self.state.views.get(self._groups.workers, ())
        lease_at = now + self._policy.lease
        self.workers[instance] = worker = WorkerPeer(about, session, link, present, lease_at, now)
        return worker

    def await_worker(self, instance: Instance, now: Nanos) -> None:
        """An earlier manager knew this worker: it has a lease to say hello."""
        about = About("(not back yet)", "", 0)
        link = Link(0, (), Service.FIFO, instance)
        self.workers[instance] = WorkerPeer(about, "", link, False, now + self._policy.lease, now)
        self.arm(instance, self.workers[instance])

    def remove(self, instance: Instance) -> Peer:
        """The peer has no link any more."""
        peer: Peer = self.workers.pop(instance) if instance in self.workers else self.senders.pop(instance)
        self._sessions.pop(peer.session, None)
        self._dirty.pop(instance, None)
        self._alarms.disarm(instance)
        return peer

    def view_changed(self, event: ViewChanged) -> tuple[list[Instance], list[Instance]]:
        """Peers whose *current* session left a presence group, and those whose came.

        Before the first view since we connected nobody's departure can be inferred.
        """
        if event.group not in (self._groups.workers, self._groups.senders):
            return [], []
        before = self.state.views.get(event.group)
        self.state.views[event.group] = list(event.members)
        gone = set(before or ()).difference(event.members)
        come = set(event.members).difference(before or ())
        return self._known(gone), self._known(come)

    def _known(self, sessions: set[str]) -> list[Instance]:
        return [self._sessions[session] for session in sorted(sessions) if session in self._sessions]

    def reconnected(self) -> None:
        """We were away ourselves."""
        self.state.views.clear()

    # --- speaking, and alarms -------------------------------------------------------------------

    def say(self, instance: Instance, peer: Peer, message: AnyMessage) -> None:
        """Say `message` when the turn ends."""
        peer.link.queue(peer.link.home, message)
        self._dirty[instance] = peer

    def touch(self, instance: Instance, peer: Peer) -> None:
        """See when the turn ends what the link has to say of itself, and when next."""
        self._dirty[instance] = peer

    def flush(self, speaker: Speaker, now: Nanos, out: list[Send]) -> None:
        """End a turn: what waits for each peer that was touched, with its share of our attention."""
        policy = self._policy
        for_senders = max(1, policy.senders_budget // max(1, len(self.senders)))
        for_workers = max(1, policy.workers_budget // max(1, len(self.workers)))
        for instance, peer in self._dirty.items():
            peer.link.grant = for_senders if isinstance(peer, SenderPeer) else for_workers
            peer.link.flush(speaker, now, policy, out)
            self.arm(instance, peer)
        self._dirty.clear()

    @property
    def touched(self) -> list[tuple[Instance, Peer]]:
        """Those for whom `flush` has something to do."""
        return list(self._dirty.items())

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
            finished_at = next(iter(peer.finished_at.values()), None)
            at = earliest(
                link_at,
                peer.accept_at,
                None if finished_at is None else finished_at + policy.outcome_delay,
                None if peer.away_at is None else peer.away_at + policy.departed_keep,
            )
        if at is not None:
            self._alarms.arm(instance, at)

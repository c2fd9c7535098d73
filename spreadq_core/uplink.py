"""A worker's or a sender's way to whoever manages the queue: its session, its link, the epoch it obeys."""

from __future__ import annotations

import msgspec

from spreadq_core.codec import decode
from spreadq_core.effects import Effect, Join, Send, Service
from spreadq_core.errors import PeerError
from spreadq_core.events import Connected, Received
from spreadq_core.ids import ANYBODY, Nanos
from spreadq_core.link import Groups, Link, Sent, Speaker
from spreadq_core.messages import About, AnyMessage, Frame, TookOver
from spreadq_core.notes import NoteName
from spreadq_core.policy import Policy


class Uplink(msgspec.Struct, gc=False):
    """The peer's side."""

    speaker: Speaker  # who it is
    about: About  # for people
    home: Groups  # the group in which managers hear it
    presence: str  # the group in which managers see it
    link: Link  # the newest; number 0 before the first
    session: str = ""  # its private name, "" while offline

    def connected(self, event: Connected) -> Effect:
        """A connection: show up. A new link must be opened."""
        self.session = event.session
        return Join(self.presence)

    def open(self, hello: AnyMessage, policy: Policy, now: Nanos) -> Link:
        """A new link to whoever manages, with a hello in it."""
        number, grant = self.link.number + 1, policy.manager_window
        self.link = Link(number, self.home, Service.AGREED, grant=grant, spoke_at=now)
        self.link.mail.append(hello)
        return self.link

    def read(self, event: Received) -> Frame:
        """The frame in a message.

        Raises:
            PeerError: there is none.
        """
        return decode(event.kind, event.body, self.speaker.queue)

    def is_called(self, frame: Frame) -> bool:
        """Whether a manager asks for a new link.

        Raises:
            PeerError: that manager was replaced, or means a link that we have replaced.
        """
        if frame.epoch < self.speaker.epoch:
            raise PeerError(f"epoch {frame.epoch} is over", NoteName.STALE_EPOCH)
        self.speaker.epoch = frame.epoch
        for message in () if frame.link else frame.messages:
            if type(message) is TookOver:
                if message.link not in (0, self.link.number):
                    raise PeerError(f"link {message.link} is replaced", NoteName.STALE_LINK)
                return True
        return False

    def receive(self, frame: Frame, now: Nanos) -> tuple[list[Sent], list[AnyMessage]]:
        """A manager's frame on the link: our frames that it receipts, its messages that are next.

        Raises:
            PeerError: it belongs to another link.
        """
        link = self.link
        ours = frame.link == link.number and frame.target == self.speaker.instance
        if not ours or link.peer not in (ANYBODY, frame.source):
            link.owe(now)  # so that whoever speaks sees which link we have, and with whom
            raise PeerError(f"link {frame.link} of manager {frame.source:016x}", NoteName.STALE_LINK)
        link.peer = frame.source
        return link.receipted(frame.receipt, now), link.receive(frame, now, link.grant)

    def flush(self, now: Nanos, policy: Policy, silence: Nanos) -> list[Send]:
        """What the link has to say; after a `silence` of this length (0: any), that we are there."""
        out: list[Send] = []
        if self.session:
            self.link.flush(self.speaker, now, policy, out)
            spoke_at = self.link.spoke_at
            if silence and spoke_at is not None and now >= spoke_at + silence:
                out.append(self.link.sign_of_life(self.speaker, now))
        return out

    def deadline(self, policy: Policy, silence: Nanos) -> Nanos | None:
        """When the link next has something to say of itself."""
        if not self.session:
            return None
        at, spoke_at = self.link.deadline(policy), self.link.spoke_at
        if not silence or spoke_at is None:
            return at
        return spoke_at + silence if at is None or spoke_at + silence < at else at

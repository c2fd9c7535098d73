"""Links: what makes sure that messages between a manager and one peer arrive, once and in order.

A peer opens its link by a frame numbered 1 with its hello in it, and opens a new one (the next link
number) after every connect and whenever a manager says that it took over or does not know the link.
Frames are numbered on both sides, carry the highest number received in a row, and are sent again
until receipted. On Spread nothing is lost within a session, so this costs nothing there; it carries
tasks over reconnects, restarts, and networks that do lose frames.
"""

from __future__ import annotations

import msgspec

from spreadq_core.codec import KIND, encode
from spreadq_core.effects import Send, Service
from spreadq_core.ids import ANYBODY, Instance, Nanos
from spreadq_core.messages import AnyMessage, Frame
from spreadq_core.policy import Policy

Groups = tuple[str, ...]

FIRST_CHUNK = 64
"""Messages that a frame is first tried with; adapts to the size of the messages."""

CHUNK_LIMIT = 512

ROUND_TRIPS = 4
"""A frame is overdue after this many round trips, if that is longer than `Policy.resend_after`."""


class Speaker(msgspec.Struct, gc=False):
    """What all frames of one role have in common."""

    queue: str
    instance: Instance
    epoch: int

    def alone(self, groups: Groups, messages: list[AnyMessage], target: Instance = ANYBODY) -> Send:
        """A frame that belongs to no link: not numbered, not repeated."""
        frame = Frame(self.queue, self.instance, target, 0, 0, 0, self.epoch, 0, messages)
        return Send(groups, Service.AGREED, KIND, encode(frame))


class Sent(msgspec.Struct, gc=False):
    """A frame of ours that is not receipted."""

    number: int
    groups: Groups
    messages: list[AnyMessage]
    sent_at: Nanos
    tries: int = 1


class Link(msgspec.Struct, gc=False):
    """One side of a link."""

    number: int  # which link of the peer that opened it
    home: Groups  # where the other side is reached
    service: Service  # how our frames are sent
    peer: Instance = ANYBODY  # the other side, 0 while a manager is still sought
    grant: int = 1  # how many of the other side's frames may be unreceipted; told in every frame
    window: int = 1  # how many of ours may be, as last told by the other side
    sent: int = 0
    unreceipted: list[Sent] = []
    mail: list[AnyMessage] = []
    """What waits for `home`, until the turn ends or the window opens."""
    casts: dict[Groups, list[AnyMessage]] = {}
    """What waits for the other side and others at once."""
    chunk: int = FIRST_CHUNK
    round_trip: Nanos = 0
    received: int = 0
    ahead: dict[int, list[AnyMessage]] = {}
    owed: int = 0
    """Frames received since we last said so."""
    owed_at: Nanos | None = None
    """When the first of them came."""
    spoke_at: Nanos | None = None
    """When we last sent anything, or opened it."""

    # --- receiving ------------------------------------------------------------------------------

    def receive(self, frame: Frame, now: Nanos, ahead_limit: int) -> list[AnyMessage]:
        """Take a frame of the peer's; give the messages that are now next in order, each once.

        Args:
            frame: of this link.
            now: the time.
            ahead_limit: how far ahead of the next number a frame is kept; further ones come again.
        """
        if frame.window > 0:
            self.window = frame.window
        number = frame.number
        if number == self.received + 1:
            self.received = number
            self.owe(now)
            if not self.ahead:
                return frame.messages
            messages = list(frame.messages)
            while (following := self.ahead.pop(self.received + 1, None)) is not None:
                self.received += 1
                messages += following
            return messages
        if number:  # a repetition or a gap: the other side should know soon where we stand
            self.owe(now)
            if self.received < number <= self.received + ahead_limit:
                self.ahead[number] = frame.messages
        return []

    def owe(self, now: Nanos, *, at_once: bool = False) -> None:
        """Say soon where we stand, or when this turn ends."""
        if at_once:
            self.owed += self.grant
        if self.owed_at is None:
            self.owed_at = now
        self.owed += 1

    def receipted(self, number: int, now: Nanos) -> list[Sent]:
        """The peer has all our frames up to `number`: give those that it had not before."""
        unreceipted = self.unreceipted
        if not unreceipted or unreceipted[0].number > number:
            return []
        count = len(unreceipted) if unreceipted[-1].number <= number else number - unreceipted[0].number + 1
        done = unreceipted[:count]
        del unreceipted[:count]
        if done[0].tries == 1:  # else the others had to wait for it
            self.round_trip += (now - done[-1].sent_at - self.round_trip) // 8
        return done

    # --- sending --------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another frame may be sent now."""
        return len(self.unreceipted) < self.window

    def flush(self, speaker: Speaker, now: Nanos, policy: Policy, out: list[Send]) -> None:
        """End a turn: append to `out` what waits, what is overdue, and a receipt if it must go alone."""
        if self.mail:
            self.mail = self._pack(self.home, self.mail, speaker, now, policy.frame_limit, out)
        if self.casts:
            for groups in list(self.casts):
                rest = self._pack(groups, self.casts.pop(groups), speaker, now, policy.frame_limit, out)
                if rest:
                    self.casts[groups] = rest
        if self.unreceipted and now >= self._overdue_at(policy):
            first = self.unreceipted[0]
            first.tries += 1
            first.sent_at = now
            out.append(self._send(first.groups, first.number, first.messages, speaker, now))
        if self.is_due(now, policy):
            out.append(self.sign_of_life(speaker, now))

    def is_due(self, now: Nanos, policy: Policy) -> bool:
        """Whether what is owed can wait no longer for a frame to ride on."""
        owed_at = self.owed_at
        return owed_at is not None and (2 * self.owed >= self.grant or now >= owed_at + policy.receipt_delay)

    def sign_of_life(self, speaker: Speaker, now: Nanos) -> Send:
        """A frame without messages: a receipt, and proof that we are there. It is not numbered."""
        return self._send(self.home, 0, [], speaker, now)

    def _pack(
        self,
        groups: Groups,
        messages: list[AnyMessage],
        speaker: Speaker,
        now: Nanos,
        limit: int,
        out: list[Send],
    ) -> list[AnyMessage]:
        """Send messages in as few frames as fit; give those for which the window is too small."""
        while messages and self.has_room:
            part = messages if len(messages) <= self.chunk else messages[: self.chunk]
            send = self._send(groups, self.sent + 1, part, speaker, now)
            if len(send.body) > limit and len(part) > 1:
                self.chunk = len(part) // 2
                continue
            if len(send.body) < limit // 2 and len(part) == self.chunk < CHUNK_LIMIT:
                self.chunk *= 2
            self.sent += 1
            self.unreceipted.append(Sent(self.sent, groups, part, now))
            out.append(send)
            messages = messages[len(part) :]
        return messages

    def _send(
        self, groups: Groups, number: int, messages: list[AnyMessage], speaker: Speaker, now: Nanos
    ) -> Send:
        self.owed, self.owed_at = 0, None
        self.spoke_at = now
        frame = Frame(
            speaker.queue,
            speaker.instance,
            self.peer,
            self.number,
            number,
            self.received,
            speaker.epoch,
            self.grant,
            messages,
        )
        return Send(groups, self.service, KIND, encode(frame))

    # --- time -----------------------------------------------------------------------------------

    def _overdue_at(self, policy: Policy) -> Nanos:
        first = self.unreceipted[0]
        patience = max(policy.resend_after, ROUND_TRIPS * self.round_trip)
        return first.sent_at + min(patience << (first.tries - 1), max(patience, policy.resend_limit))

    def deadline(self, policy: Policy) -> Nanos | None:
        """When `flush` next has something to say of itself."""
        if self.owed_at is not None:
            receipt_at = self.owed_at + policy.receipt_delay
            return min(receipt_at, self._overdue_at(policy)) if self.unreceipted else receipt_at
        return self._overdue_at(policy) if self.unreceipted else None

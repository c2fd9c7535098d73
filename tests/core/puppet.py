"""Peers whose every word is chosen by the test."""

from __future__ import annotations

from spreadq_core.codec import KIND, decode, encode
from spreadq_core.events import Cause, Connected, Received, ViewChanged
from spreadq_core.ids import SECOND
from spreadq_core.messages import Frame
from tests.core.invariants import check

START = 1_000 * SECOND


class Driven:
    """A role that is driven event by event, and checked after each."""

    def __init__(self, role):
        self.role = role
        self.now = START
        self.effects = []
        self.sent = []

    def handle(self, *events):
        """Let it handle events in one turn; gives the effects."""
        effects = []
        for event in events:
            effects += self.role.handle(event, self.now)
        self.sent = [(send.groups, decode(send.kind, send.body, "q")) for send in self.role.flush(self.now)]
        check(self.role, honest=False)
        self.effects += effects
        return effects

    def connect(self, session="#me.1#world"):
        return self.handle(Connected(session))

    def view(self, group, *members, cause=Cause.JOIN, who=()):
        return self.handle(ViewChanged(group, tuple(sorted(members)), cause, who))

    def said(self):
        """Messages of the last turn."""
        return [message for _, frame in self.sent for message in frame.messages]

    def notes(self):
        return [effect.name.value for effect in self.effects if hasattr(effect, "fields")]

    def hear(self, session, frame, groups=("WQ_q",), kind=KIND):
        return self.handle(Received(session, groups, kind, encode(frame)))


def frame(source, *messages, target=0, link=1, number=1, receipt=0, epoch=0, window=9):
    return Frame("q", source, target, link, number, receipt, epoch, window, list(messages))

"""Who manages the queue: how managers meet in their group, and how one takes over.

The order of managers is (epoch, instance). A newcomer takes over when it is alone or nobody answers
its question; the epoch it takes is one more than any it has heard of, and is kept before it is said.
"""

from __future__ import annotations

import enum

import msgspec

from spreadq_core.effects import Effect, Exit, Join, KeepEpoch, Note, Send
from spreadq_core.events import Cause, ViewChanged
from spreadq_core.ids import Instance, Nanos, QueueGroups
from spreadq_core.link import Speaker
from spreadq_core.messages import About, TookOver, Who
from spreadq_core.notes import NoteName
from spreadq_core.policy import EPOCH_LIMIT, Policy


class Stage(enum.Enum):
    """How far a manager is on its way."""

    OFFLINE = "offline"
    MEETING = "meeting"
    """It waits to see who else is in the managers' group."""
    ASKING = "asking"
    """It is not alone, and asked who manages."""
    ENTERING = "entering"
    """It joins the queue's groups."""
    PRIMARY = "primary"
    """It manages."""
    STOPPED = "stopped"


PRIMARY = Stage.PRIMARY

UNHEARD_STEP = 1_000
"""How far a newcomer's epoch is above all that it knows, where one who may have a higher is silent."""


class PrimacyState(msgspec.Struct, gc=False):
    """What a manager knows of its own standing."""

    heard: int  # the highest epoch heard of
    stage: Stage = Stage.OFFLINE  # how far it is
    session: str = ""  # its private name, "" while offline
    held: bool = False  # it was the primary before, and has what it knew then
    met: list[str] = []  # sessions in the managers' group, ours included
    entered: list[str] = []  # groups of the queue in which it has seen itself since it connected
    asked_at: Nanos | None = None  # when it asked who manages, or said so to one who might


class Primacy:
    """The part of a manager that decides whether it manages."""

    def __init__(
        self, groups: QueueGroups, speaker: Speaker, about: About, policy: Policy, state: PrimacyState
    ) -> None:
        self._groups = groups
        self._speaker = speaker
        self._about = about
        self._policy = policy
        self.state = state
        self._out: list[Send] = []

    @property
    def stage(self) -> Stage:
        """How far this manager is."""
        return self.state.stage

    @property
    def manages(self) -> bool:
        """Whether this manager is the one."""
        return self.state.stage is PRIMARY

    @property
    def alone(self) -> bool:
        """Whether nobody else is in the managers' group."""
        return len(self.state.met) == 1

    def take_said(self) -> list[Send]:
        """What is to be said at the end of the turn."""
        out, self._out = self._out, []
        return out

    def stop(self) -> None:
        """This manager is at its end."""
        self.state.stage, self.state.asked_at = Stage.STOPPED, None

    @property
    def deadline(self) -> Nanos | None:
        """When the question who manages has waited long enough for an answer."""
        asked_at = self.state.asked_at
        return None if asked_at is None else asked_at + self._policy.who_wait

    def connected(self, session: str) -> list[Effect]:
        """A connection: meet the other managers first."""
        state = self.state
        state.session, state.stage = session, Stage.MEETING
        state.met, state.entered, state.asked_at = [], [], None
        return [Join(self._groups.managers)]

    def disconnected(self) -> None:
        """No connection: nothing can be said of the others."""
        self.state.session, self.state.stage, self.state.asked_at = "", Stage.OFFLINE, None

    def view(self, event: ViewChanged, now: Nanos) -> list[Effect]:
        """A group's members changed; it may be the managers' group, or one where we see ourselves first."""
        state = self.state
        if state.session not in event.members:
            return []
        if event.group == self._groups.managers:
            state.met = list(event.members)
            if self.alone and state.stage in (Stage.MEETING, Stage.ASKING):
                return self._enter()
            if event.cause is Cause.NETWORK and self.manages:
                self.contest()
            elif state.stage is Stage.MEETING:
                state.stage, state.asked_at = Stage.ASKING, now
                self._out.append(self._speaker.alone((self._groups.managers,), [Who()]))
        elif state.stage is Stage.ENTERING and event.group not in state.entered:
            state.entered.append(event.group)
            if len(state.entered) == len(self._to_enter):
                return self._take_over()
        return []

    def tick(self, now: Nanos) -> list[Effect]:
        """Nobody answered in time: whoever is there does not manage."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return []
        self.state.asked_at = None
        if self.manages:
            return self._take_over()
        if not self.state.held:
            self.state.heard += UNHEARD_STEP
        return self._enter()

    def asked(self, asker: str) -> None:
        """A newcomer asks who manages."""
        if self.manages:
            self.greet(asker)

    def greet(self, *groups: str) -> None:
        """Say that we manage."""
        self._out.append(self._speaker.alone(groups, [TookOver(0, self._about)]))

    def other_took_over(self, other: tuple[int, Instance], sender: str, about: About) -> list[Effect]:
        """Another manager, whose (epoch, instance) is `other`, says that it manages."""
        state, ours = self.state, (self._speaker.epoch, self._speaker.instance)
        state.heard = max(state.heard, other[0])
        if state.held and ours > other:
            self.asked(sender)
            return []
        where = f"{about.name} (process {about.pid} on {about.host})"
        self.stop()
        if state.held:
            lost = Note(NoteName.LOST_PRIMACY, {"epoch": other[0], "to": where})
            return [lost, Exit(75, f"{where} has taken queue {self._groups.queue} over")]
        return [Exit(4, f"queue {self._groups.queue} is managed by {where} already; stop that one first")]

    def contest(self) -> None:
        """A peer obeys another manager: if it is here, one of us must go."""
        if not self.alone:
            self.greet(self._groups.managers)

    def heard(self, epoch: int, now: Nanos) -> list[Effect]:
        """A peer has seen a higher epoch: of a manager that is gone, unless one here says that it is its."""
        state = self.state
        state.heard = max(state.heard, epoch)
        if self.alone:
            return self._take_over()
        if state.asked_at is None:
            state.asked_at = now
            self.greet(self._groups.managers)
        return []

    def _enter(self) -> list[Effect]:
        self.state.stage, self.state.asked_at = Stage.ENTERING, None
        return [Join(group) for group in self._to_enter]

    @property
    def _to_enter(self) -> tuple[str, ...]:
        groups = self._groups  # the presence groups last: who sees us there can speak to us
        return (groups.submit, groups.work, groups.control, groups.workers, groups.senders)

    def _take_over(self) -> list[Effect]:
        state, speaker = self.state, self._speaker
        effects: list[Effect] = []
        if not state.held or state.heard > speaker.epoch:
            speaker.epoch = state.heard = min(max(state.heard, speaker.epoch) + 1, EPOCH_LIMIT)
            effects.append(KeepEpoch(speaker.epoch))
        state.stage, state.held = Stage.PRIMARY, True
        self.greet(self._groups.workers, self._groups.senders, self._groups.managers)
        return [*effects, Note(NoteName.TOOK_OVER, {"epoch": speaker.epoch})]

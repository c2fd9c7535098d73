"""A world in which roles meet: one total order of messages, virtual time, no sockets.

Everything is deterministic. Jobs are started by the roles and ended by the test.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from spreadq_core import effects as f
from spreadq_core.events import (
    Cause,
    Connected,
    Disconnected,
    JobEnded,
    Received,
    SubmitRequested,
    ViewChanged,
)
from spreadq_core.host import Host, Role
from spreadq_core.ids import SECOND
from spreadq_core.messages import About, Status


class Node(Host):
    """One role in the world, with what it did."""

    def __init__(self, world: World, name: str, role: Role, *, membership: bool) -> None:
        super().__init__(role)
        self.performers |= {
            f.StartJob: self.start_job,
            f.CancelJob: self.cancel_job,
            f.Resolve: self.resolve,
            f.Deliver: self.deliver_response,
            f.Confirmed: self.confirm,
            f.KeepEpoch: self.keep_epoch,
        }
        self.world, self.name, self.membership = world, name, membership
        self.session = ""
        self.connections = 0
        self.alarm_at: int | None = None
        self.jobs: dict[tuple[int, int, int], f.StartJob] = {}
        self.started: list[f.StartJob] = []
        self.cancelled: list[f.CancelJob] = []
        self.resolved: dict[int, f.Resolve] = {}
        self.confirmed: list[int] = []
        self.responses: list[f.Deliver] = []
        self.notes: list[f.Note] = []
        self.epochs: list[int] = []
        self.exited: f.Exit | None = None
        self.frozen = False
        self.held: list[Any] = []

    def now(self):
        return self.world.time

    def set_alarm(self, at):
        self.alarm_at = at

    def hear(self, event):
        """Events from the world; a frozen process gets them when it thaws."""
        if self.frozen:
            self.held.append(event)
        else:
            self.deliver([event])

    def send(self, sends):
        for send in sends:
            self.world.multicast(self, send)

    def join(self, effect):
        self.world.operate("join", self, effect.group)

    def leave(self, effect):
        self.world.operate("leave", self, effect.group)

    def start_job(self, effect):
        self.started.append(effect)
        self.jobs[effect.sender, effect.counter, effect.number] = effect

    def cancel_job(self, effect):
        self.cancelled.append(effect)

    def resolve(self, effect):
        assert effect.request not in self.resolved, "resolved twice"
        self.resolved[effect.request] = effect

    def deliver_response(self, effect):
        self.responses.append(effect)

    def confirm(self, effect):
        self.confirmed += effect.requests

    def keep_epoch(self, effect):
        self.epochs.append(effect.epoch)

    def exit(self, effect):
        self.exited = effect

    def note(self, effect):
        self.notes.append(effect)

    # what tests do

    def submit(self, function="f", payload=b"", **options):
        request = self.role.state.last + 1
        self.deliver([SubmitRequested(request, function, payload, "raw", **options)])
        return request

    def end(self, key=None, status=Status.DONE, payload=b"", codec="raw"):
        """End a running job, the oldest if none is named."""
        key = next(iter(self.jobs)) if key is None else key
        del self.jobs[key]
        self.deliver([JobEnded(*key, status, payload, codec)])

    def noted(self, name):
        return [note for note in self.notes if note.name == name]


class World:
    """One daemon's worth of group communication in virtual time."""

    def __init__(self) -> None:
        self.time = 1_000 * SECOND
        self.nodes: list[Node] = []
        self.groups: dict[str, list[str]] = {}
        self.queue: deque[tuple[Any, ...]] = deque()
        self.sessions: dict[str, Node] = {}
        self.trace: Callable[[str, Any], None] | None = None
        self.lose: Callable[[Node, f.Send], bool] = lambda node, send: False

    def add(self, name, role, *, membership=False, connect=True):
        node = Node(self, name, role, membership=membership)
        self.nodes.append(node)
        if connect:
            self.connect(node)
        return node

    def connect(self, node):
        node.connections += 1
        node.session = f"#{node.name}{node.connections}#world"
        self.sessions[node.session] = node
        node.hear(Connected(node.session))

    def disconnect(self, node, *, tell=True, cause=Cause.DISCONNECT):
        """The connection is cut: what the node sent is delivered first."""
        session = node.session
        self.queue.append(("gone", session, cause))
        if tell:
            node.hear(Disconnected("cut"))
        node.session = ""

    def kill(self, node):
        self.disconnect(node, tell=False)
        self.nodes.remove(node)

    def freeze(self, node):
        node.frozen = True

    def thaw(self, node):
        node.frozen = False
        held, node.held = node.held, []
        node.deliver(held)

    def operate(self, what, node, group):
        if node.session:
            self.queue.append((what, node.session, group))

    def multicast(self, node, send):
        if node.session and not self.lose(node, send):
            self.queue.append(("send", node.session, send))

    def step(self):
        """Deliver the next thing in the total order."""
        what, session, subject = self.queue.popleft()
        if what == "join":
            members = self.groups.setdefault(subject, [])
            if session in self.sessions and session not in members:
                members.append(session)
                self._tell_view(subject, Cause.JOIN, session)
        elif what == "leave":
            if session in self.groups.get(subject, ()):
                self.groups[subject].remove(session)
                self._tell_view(subject, Cause.LEAVE, session)
        elif what == "gone":
            self.sessions.pop(session, None)
            for group in sorted(self.groups):
                if session in self.groups[group]:
                    self.groups[group].remove(session)
                    self._tell_view(group, subject, session)
        else:
            receivers = {}
            for group in subject.groups:
                members = [group] if group.startswith("#") else self.groups.get(group, ())
                receivers.update(dict.fromkeys(members))
            event = Received(session, subject.groups, subject.kind, subject.body)
            for member in receivers:
                if member in self.sessions:
                    self._hear(self.sessions[member], event)

    def _tell_view(self, group, cause, who):
        members = tuple(sorted(self.groups[group]))
        event = ViewChanged(group, members, cause, (who,))
        for member in members:
            if self.sessions[member].membership:
                self._hear(self.sessions[member], event)

    def _hear(self, node, event):
        if self.trace is not None:
            self.trace(node.name, event)
        node.hear(event)

    def settle(self, limit=100_000):
        """Deliver all that is on its way, without time passing."""
        for _ in range(limit):
            if not self.queue:
                return
            self.step()
        raise AssertionError("the world does not come to rest")

    def advance(self, duration):
        """Let time pass, ringing each node when it asked for it."""
        end = self.time + duration
        while True:
            self.settle()
            awake = [n for n in self.nodes if n.alarm_at is not None and not n.frozen]
            first = min(awake, key=lambda n: n.alarm_at, default=None)
            if first is None or first.alarm_at > end:
                break
            self.time = max(self.time, first.alarm_at)
            first.alarm_at = None
            first.ring()
        self.time = max(self.time, end)


def about(name):
    return About(name, "host", 1)

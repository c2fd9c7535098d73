"""A world in which roles meet: one total order of messages, virtual time, no sockets.

Everything is deterministic. Jobs are started by the roles and ended by the test. Frames arrive at once
unless a test says otherwise (`World.fate`); processes are killed, frozen and cut off by the test.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from typing import Any

from spreadq_core import effects as f
from spreadq_core.codec import decode
from spreadq_core.events import (
    AbandonRequested,
    Cause,
    Connected,
    Disconnected,
    JobEnded,
    JobResponded,
    Received,
    StopRequested,
    SubmitRequested,
    ViewChanged,
)
from spreadq_core.host import Host
from spreadq_core.ids import SECOND
from spreadq_core.manager import Manager
from spreadq_core.messages import About, Status
from spreadq_core.policy import DEFAULT
from spreadq_core.sender import Sender
from spreadq_core.terms import Terms
from spreadq_core.worker import Worker

RINGS_LIMIT = 100_000
"""Alarms that ring in one `advance`; more means that a role asks for a Tick again and again."""


def request(number, function="f", payload=b"", codec="raw", *, headers=b"", confirm=False, **terms):
    """A sender's owner asks for a task; `terms` as in `Terms`."""
    defaults = {"priority": 0, "max_attempts": 3, "run_limit": 0, "expiry": 0, "reply": True}
    return SubmitRequested(number, Terms(function, codec, **(defaults | terms)), payload, headers, confirm)


class Node(Host):
    """One role in the world, with what it did."""

    def __init__(self, world, name, role):
        super().__init__(role)
        self.performers |= {
            f.StartJob: self.start_job,
            f.CancelJob: self.cancel_job,
            f.Resolve: self.resolve,
            f.Deliver: self.deliver_response,
            f.Confirmed: self.confirm,
            f.KeepEpoch: self.keep_epoch,
            f.Report: self.report,
        }
        self.world, self.name = world, name
        self.session = ""
        self.connections = 0
        self.alarm_at = None
        self.frozen = False
        self.held = []
        self.side = 0
        self.sees_views = hasattr(role, "primacy")  # as a manager has
        self.sent = []
        self.jobs = {}
        self.started = []
        self.cancelled = []
        self.resolved = {}
        self.confirmed = []
        self.responses = []
        self.reports = []
        self.notes = []
        self.epochs = []
        self.exited = None

    # --- what its role wants ---

    def now(self):
        return self.world.time

    def set_alarm(self, at):
        self.alarm_at = at

    def send(self, sends):
        for send in sends:
            if self.session:
                self.sent.append(send)
                self.world.queue.append(("send", self.session, send))

    def join(self, effect):
        self.world.operate("join", self, effect.group)

    def leave(self, effect):
        self.world.operate("leave", self, effect.group)

    def start_job(self, effect):
        self.started.append(effect)
        self.jobs[effect.sender, effect.counter, effect.number] = effect

    def cancel_job(self, effect):
        self.cancelled.append(effect)

    def confirm(self, effect):
        self.confirmed += effect.requests

    def deliver_response(self, effect):
        self.responses.append(effect)

    def report(self, effect):
        self.reports.append(effect)

    def resolve(self, effect):
        assert effect.request not in self.resolved, "resolved twice"
        self.resolved[effect.request] = effect.outcome

    def keep_epoch(self, effect):
        self.epochs.append(effect.epoch)
        self.world.kept_epoch = effect.epoch

    def exit(self, effect):
        self.exited = effect

    def note(self, effect):
        self.notes.append(effect)

    # --- what happens to it ---

    def hear(self, event):
        """An event of the world; a frozen process gets it when it thaws."""
        if self.frozen:
            self.held.append(event)
        else:
            self.deliver([event])

    def submit(self, function="f", payload=b"", codec="raw", **options):
        """Ask for a task; gives the request's number."""
        number = self.role.state.last + 1
        self.deliver([request(number, function, payload, codec, **options)])
        return number

    def abandon(self, request):
        self.deliver([AbandonRequested(request)])

    def respond(self, payload=b"", key=None):
        """Let a running job, the oldest if none is named, answer its caller."""
        key = next(iter(self.jobs)) if key is None else key
        self.deliver([JobResponded(*key, payload, "raw")])

    def end(self, payload=b"", key=None, status=Status.DONE, codec="raw"):
        """End a running job, the oldest if none is named."""
        key = next(iter(self.jobs)) if key is None else key
        del self.jobs[key]
        if status is Status.DONE:
            self.world.produced.setdefault(key[:2], []).append(payload)
        self.deliver([JobEnded(*key, status, payload, codec)])

    def stop(self):
        self.deliver([StopRequested()])

    # --- what it did ---

    def noted(self, name):
        return [note.fields for note in self.notes if note.name == name]

    def frames(self):
        """All frames that it sent, decoded, each with its groups."""
        queue = self.role.groups.queue
        return [(send.groups, decode(send.kind, send.body, queue)) for send in self.sent]

    def said(self, kind):
        """All messages of one kind that it sent; each as often as it was sent."""
        return [message for _, frame in self.frames() for message in frame.messages if type(message) is kind]


class World:
    """One daemon's worth of group communication in virtual time, and whoever works there.

    Args:
        policy: of all roles.
    """

    def __init__(self, policy=DEFAULT):
        self.policy = policy
        self.time = 1_000 * SECOND
        self.nodes = []
        self.groups = {}
        self.queue = deque()
        self.sessions = {}
        self.later = []  # heap of (time, tie-breaker, session, event)
        self.trace = None
        """Called with each node and event before it is handled, and with what a node sends."""
        self.fate = lambda receiver, event: (0,)
        """After which delays copies of a frame reach a receiver; none: it is lost."""
        self.produced = {}
        """Values of jobs that ended, by task."""
        self.kept_epoch = 0
        self._counts = {kind: count(1) for kind in "mws"}
        self._ties = count()

    # --- who is there ---

    def manager(self, *, connect=True, **options):
        number = next(self._counts["m"])
        options = {"epoch": self.kept_epoch, **options}
        role = Manager("q", number, about(f"m{number}"), self.time, self.policy, **options)
        return self.add(f"m{number}", role, connect=connect)

    def worker(self, functions=("f",), capacity=1, *, connect=True):
        number = next(self._counts["w"])
        role = Worker("q", 100 + number, about(f"w{number}"), functions, capacity, self.policy)
        return self.add(f"w{number}", role, connect=connect)

    def sender(self, *, connect=True):
        number = next(self._counts["s"])
        return self.add(
            f"s{number}", Sender("q", 200 + number, about(f"s{number}"), self.policy), connect=connect
        )

    def add(self, name, role, *, connect=True):
        node = Node(self, name, role)
        self.nodes.append(node)
        if connect:
            self.connect(node)
        return node

    def connect(self, node):
        node.connections += 1
        node.session = f"#{node.name}.{node.connections}#world"
        self.sessions[node.session] = node
        node.hear(Connected(node.session))

    def disconnect(self, node, *, tell=True):
        """The connection is cut: what the node sent is delivered first."""
        if node.session:
            self.queue.append(("gone", node.session, Cause.DISCONNECT))
            node.session = ""
            if tell:
                node.hear(Disconnected("cut"))

    def reconnect(self, node):
        self.disconnect(node)
        self.connect(node)

    def swap(self, node):
        """A new connection, whose hello comes before the old one's end is noticed."""
        old = node.session
        self.connect(node)
        self.settle()
        self.queue.append(("gone", old, Cause.DISCONNECT))
        self.settle()

    def kill(self, node):
        self.disconnect(node, tell=False)
        self.nodes.remove(node)

    def freeze(self, node):
        node.frozen = True

    def thaw(self, node):
        node.frozen = False
        held, node.held = node.held, []
        node.deliver(held)

    def split(self, *nodes):
        """Cut these off from the others: a network partition."""
        self.settle()
        before = {session: node.side for session, node in self.sessions.items()}
        for node in self.nodes:
            node.side = int(node in nodes)
        for group in sorted(self.groups):
            for session in sorted(self.groups[group]):
                together = [s for s in self._view(group, session) if before[s] == before[session]]
                self._tell_view(group, session, Cause.NETWORK, together)

    def merge(self):
        self.split()

    # --- delivery ---

    def operate(self, what, node, group):
        if node.session:
            self.queue.append((what, node.session, group))

    def step(self):
        """Deliver the next thing in the total order."""
        what, session, subject = self.queue.popleft()
        if what == "send":
            self._multicast(session, subject)
        elif what == "join":
            if session in self.sessions and session not in self.groups.setdefault(subject, []):
                self.groups[subject].append(session)
                self._change(subject, session, Cause.JOIN)
        elif what == "leave":
            self._remove(session, subject, Cause.LEAVE)
        else:
            for group in sorted(self.groups):
                self._remove(session, group, subject)
            del self.sessions[session]

    def _multicast(self, session, send):
        sender = self.sessions[session]
        if self.trace is not None:
            self.trace(sender, send)
        receivers = {}
        for group in send.groups:
            members = [group] if group.startswith("#") else self.groups.get(group, ())
            receivers.update(dict.fromkeys(members))
        event = Received(session, send.groups, send.kind, send.body)
        for receiver in receivers:
            node = self.sessions.get(receiver)
            if node is not None and node.side == sender.side:
                for delay in self.fate(node, event):
                    if delay:
                        heappush(self.later, (self.time + delay, next(self._ties), receiver, event))
                    else:
                        self._hear(node, event)

    def _remove(self, session, group, cause):
        if session in self.groups.get(group, ()):
            self.groups[group].remove(session)
            self._change(group, session, cause)

    def _change(self, group, session, cause):
        for member in sorted(self.groups[group]):
            if self.sessions[member].side == self.sessions[session].side:
                self._tell_view(group, member, cause, [session])

    def _view(self, group, session):
        side = self.sessions[session].side
        return [member for member in sorted(self.groups[group]) if self.sessions[member].side == side]

    def _tell_view(self, group, member, cause, together):
        node = self.sessions[member]
        if node.sees_views:
            view = tuple(self._view(group, member))
            self._hear(node, ViewChanged(group, view, cause, tuple(together)))

    def _hear(self, node, event):
        if self.trace is not None:
            self.trace(node, event)
        node.hear(event)

    # --- time ---

    def settle(self, limit=1_000_000):
        """Deliver all that is on its way, without time passing."""
        while self.queue:
            self.step()
            limit -= 1
            assert limit, "the world does not come to rest"

    def advance(self, duration):
        """Let time pass, ringing each node when it asked for it."""
        end = self.time + duration
        for _ in range(RINGS_LIMIT):
            self.settle()
            awake = [node for node in self.nodes if node.alarm_at is not None and not node.frozen]
            first = min(awake, key=lambda node: node.alarm_at, default=None)
            arrival = self.later[0][0] if self.later else end + 1
            if arrival <= (end if first is None else min(first.alarm_at, end)):
                self.time = max(self.time, arrival)
                _, _, session, event = heappop(self.later)
                if session in self.sessions:
                    self._hear(self.sessions[session], event)
            elif first is not None and first.alarm_at <= end:
                self.time = max(self.time, first.alarm_at)
                first.alarm_at = None
                first.ring()
            else:
                self.time = end
                return
        raise AssertionError(f"{first.name} wants Ticks without end")


def about(name):
    return About(name, "host", 1)


def key_of(sender, request, number=1):
    """Of an attempt at a request of a sender's node."""
    return (sender.role.state.uplink.speaker.instance, request, number)


def instance_of(node) -> Any:
    """Whoever plays a role."""
    state = node.role.state
    return state.speaker.instance if isinstance(node.role, Manager) else state.uplink.speaker.instance

"""A role is a pure function of its log: copies agree, and go on from a snapshot as if nothing had happened.

Logs are recorded in worlds where anything happens, and then applied again, to any of the three roles.
"""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spreadq_core.ids import MILLISECOND, SECOND
from spreadq_core.manager import Manager
from spreadq_core.messages import Status
from spreadq_core.policy import Policy
from spreadq_core.sender import Sender
from spreadq_core.timers import TIMEOUT_GRAIN
from spreadq_core.worker import Worker
from tests.core.world import World, about

POLICY = Policy(outcome_bytes_limit=5_000, queue_limit=50)
PAUSES = [0, MILLISECOND, 60 * MILLISECOND, 250 * MILLISECOND, 2 * SECOND, 11 * SECOND, 61 * SECOND]


class Recorder:
    """A role that logs what it is asked and what it answers; a snapshot is taken at each end of a turn."""

    def __init__(self, role):
        self.role = role
        self.log = []

    def __getattr__(self, name):
        return getattr(self.role, name)

    def handle(self, event, now):
        effects = self.role.handle(copied(event), now)
        self.log.append(("handle", now, event, plain(effects)))
        return effects

    def flush(self, now):
        sends = self.role.flush(now)
        self.log.append(("flush", now, None, plain(sends)))
        return sends

    @property
    def deadline(self):
        return self.role.deadline


def copied(event):
    """What a role is given is its own: it may share nothing with a copy of it."""
    return type(event)(*(getattr(event, field) for field in event.__struct_fields__))


def plain(values):
    """As bytes: a list of effects would change with what they refer to."""
    return msgspec.msgpack.encode([(type(value).__name__, value) for value in values])


def record(seed):
    """A world that lives at random for a while; the recorders of its roles."""
    rng = random.Random(seed)
    world = World(POLICY)
    recorders = {}

    def add(name, role):
        recorders[name] = Recorder(role)
        return world.add(name, recorders[name])

    def manager():
        return Manager("q", 1, about("m1"), world.time, POLICY)

    add("m1", manager())
    for number in (1, 2):
        functions = rng.choice([("f",), ("f", "g"), None])
        role = Worker("q", 100 + number, about(f"w{number}"), functions, rng.randint(1, 3), POLICY)
        add(f"w{number}", role)
        add(f"s{number}", Sender("q", 200 + number, about(f"s{number}"), POLICY))
    loss = rng.choice([0, 0, 0.1])
    world.fate = lambda receiver, event: () if rng.random() < loss else (0,)
    world.advance(SECOND)
    for _ in range(rng.randint(10, 40)):
        happen(world, rng)
        if rng.random() < 0.7:
            world.settle()
    return recorders


def happen(world, rng):
    nodes = world.nodes
    what, node = rng.random(), rng.choice(nodes)
    busy = [node for node in nodes if node.jobs and not node.frozen]
    sender = rng.choice([node for node in nodes if isinstance(node.role.role, Sender)])
    if what < 0.3:
        for _ in range(rng.randint(1, 4)):
            sender.submit(
                rng.choice("fg"),
                bytes(rng.randint(0, 50)),
                reply=rng.random() < 0.7,
                confirm=rng.random() < 0.3,
                priority=rng.choice([0, 0, 5]),
                max_attempts=rng.randint(1, 3),
                expiry=rng.choice([0, 0, 3 * SECOND]),
                run_limit=rng.choice([0, 0, 2 * SECOND]),
            )
    elif what < 0.6 and busy:
        worker = rng.choice(busy)
        key = rng.choice(list(worker.jobs))
        if rng.random() < 0.3:
            worker.respond(b"r", key)
        else:
            status = rng.choice([Status.DONE, Status.DONE, Status.FAILED, Status.CANCELLED])
            worker.end(b"v" * rng.randint(0, 300), key=key, status=status)
    elif what < 0.65:
        world.reconnect(node)
    elif what < 0.68 and not node.frozen:
        world.freeze(node)
    elif what < 0.8 and any(node.frozen for node in nodes):
        world.thaw(rng.choice([node for node in nodes if node.frozen]))
    elif what < 0.82 and isinstance(node.role.role, Worker):
        node.stop()
    elif what < 0.84:
        sender.abandon(rng.randint(1, sender.role.state.last + 1))
    else:
        world.advance(rng.choice(PAUSES))


def copy_of(role):
    """A new role like this one when it was made."""
    state = role.state
    if isinstance(role, Manager):
        return Manager("q", 1, state.about, state.started_at, POLICY)
    speaker, who = state.uplink.speaker, state.uplink.about
    if isinstance(role, Worker):
        return Worker("q", speaker.instance, who, state.functions, state.capacity, POLICY)
    return Sender("q", speaker.instance, who, POLICY)


def apply(role, step, moved=0):
    what, now, event, _ = step
    if what == "handle":
        return plain(role.handle(copied(event), now + moved))
    return plain(role.flush(now + moved))


@given(seed=st.integers(0, 2**32), cut=st.integers(0, 1_000))
@settings(max_examples=1_000)
def test_two_that_are_fed_the_same_log_agree_and_so_does_one_restored_on_the_way(seed, cut):
    for recorder in record(seed).values():
        log = recorder.log
        turns = [index + 1 for index, step in enumerate(log) if step[0] == "flush"]
        if not turns:
            continue
        cut_at = turns[cut % len(turns)]
        original = copy_of(recorder.role)
        for step in log[:cut_at]:
            assert apply(original, step) == step[3]
        now = log[cut_at - 1][1]
        image = original.snapshot(now)
        restored = type(original).restore(image, now, POLICY)
        assert restored.snapshot(now) == image
        assert restored.deadline == original.deadline
        for step in log[cut_at:]:
            assert apply(restored, step) == step[3]
        end = log[-1][1]
        assert restored.snapshot(end) == recorder.role.snapshot(end)
        assert restored.deadline == recorder.role.deadline


@given(seed=st.integers(0, 2**32), shift=st.integers(-(10**9), 10**9))
def test_equal_situations_at_different_times_give_equal_snapshots(seed, shift):
    moved = shift * TIMEOUT_GRAIN  # timeouts are known to this grain of absolute time
    for recorder in record(seed).values():
        role = copy_of(recorder.role)
        if isinstance(role, Manager):
            role = Manager("q", 1, role.state.about, role.state.started_at + moved, POLICY)
        for step in recorder.log:
            assert apply(role, step, moved) == step[3]
        end = recorder.log[-1][1]
        assert role.snapshot(end + moved) == recorder.role.snapshot(end)


@pytest.mark.parametrize("kind", [Manager, Worker, Sender])
@pytest.mark.parametrize("image", [b"", b"\xc1", b"\x80", b"\x90"])
def test_what_is_no_snapshot_is_refused(kind, image):
    with pytest.raises(msgspec.MsgspecError):
        kind.restore(image, 0)

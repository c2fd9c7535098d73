"""Whatever a peer sends, in whatever situation: nothing is raised, and the state stays lawful (S14)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spreadq_core.codec import KIND, decode, encode
from spreadq_core.events import Cause, Connected, Disconnected, Received, Tick, Transition, ViewChanged
from spreadq_core.ids import ANYBODY, MILLISECOND
from spreadq_core.manager import Manager
from spreadq_core.messages import Frame
from tests.core import situations
from tests.core.invariants import check
from tests.core.strategies import ANY_MESSAGE, INSTANCES, KINDS, MESSAGE_TYPES, bodies, of
from tests.core.world import instance_of

SETTINGS = settings(suppress_health_check=list(HealthCheck))


def peers_of(world, node):
    """(session, instance) of whoever may speak: those who are there, and strangers."""
    others = [(other.session, instance_of(other)) for other in world.nodes if other is not node]
    own = (node.session, instance_of(node))
    return [*others, own, ("#stranger.1#world", 999), ("#stranger.1#world", 101)]


def header(world, node, session, instance):
    """Of the frame that is next on the link between them, if there is one, or that opens one."""
    if isinstance(node.role, Manager):
        peer = node.role.peers.get(instance)
        link = peer.link if peer is not None else None
        target = instance_of(node) if link is not None else ANYBODY
    else:
        link, target = node.role.state.uplink.link, instance_of(node)
    epoch = node.role.state.speaker.epoch if isinstance(node.role, Manager) else _epoch(node)
    if link is None:
        return {"target": target, "link": 1, "number": 1, "receipt": 0, "epoch": epoch, "window": 9}
    fields = {"link": link.number, "number": link.received + 1, "receipt": link.sent}
    return {**fields, "target": target, "epoch": epoch, "window": 9}


def _epoch(node):
    return node.role.state.uplink.speaker.epoch


def hear(world, node, event):
    """Let the role handle it; what comes of it must be possible."""
    role = node.role
    node.performers = dict.fromkeys(node.performers, lambda effect: None)
    role.handle(event, world.time)
    look(world, role)


def look(world, role):
    """That all is lawful: state, frames, snapshot, and no Tick is wanted again and again."""
    for send in role.flush(world.time):
        frame = decode(send.kind, send.body, role.groups.queue)
        assert encode(frame) == send.body
        assert 1 <= len(send.groups) <= 43
    check(role, honest=False)
    image = role.snapshot(world.time)
    restored = type(role).restore(image, world.time)
    assert restored.snapshot(world.time) == image
    before, now = world.time, world.time
    for _ in range(100):
        deadline = restored.deadline
        if deadline is None:
            return
        now = max(now, deadline)
        restored.handle(Tick(), now)
        restored.flush(now)
    assert now > before + 10 * MILLISECOND, "it wants Ticks without end"


# --- every message in every situation ----------------------------------------------------------


@pytest.mark.parametrize("situation", situations.ALL)
@pytest.mark.parametrize("kind", MESSAGE_TYPES, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(SETTINGS, max_examples=2)
def test_every_message_in_every_situation_from_everybody(situation, kind, data):
    world, node = situations.ALL[situation]()
    for session, instance in peers_of(world, node):
        for stands_alone in (False, True):
            fields = header(world, node, session, instance)
            if stands_alone:
                fields |= {"link": 0, "number": 0}
            frame = Frame("q", instance, **fields, messages=[data.draw(of(kind))])
            hear(world, node, Received(session, ("WQ_q",), KIND, encode(frame)))


# --- sequences of anything -------------------------------------------------------------------------


def frames(world, node):
    """Frames that mostly belong to a link, with any messages."""

    @st.composite
    def draw_frame(draw):
        session, instance = draw(st.sampled_from(peers_of(world, node)))
        fields = header(world, node, session, instance)
        for name in draw(st.sets(st.sampled_from(sorted(fields)), max_size=2)):
            fields[name] = draw(st.integers(0, 3) | st.sampled_from(INSTANCES))
        messages = draw(st.lists(ANY_MESSAGE, max_size=4))
        body = encode(Frame("q", instance, **fields, messages=messages))
        groups = draw(st.sampled_from([(node.session,), ("WQ_q",), ("WQ_q", node.session), ()]))
        return Received(session, groups, KIND, body)

    return draw_frame()


def junk(world, node):
    sessions = st.sampled_from([session for session, _ in peers_of(world, node)])
    return st.builds(Received, sessions, st.just(("WQ_q",)), KINDS, bodies())


def views(world, node):
    groups = st.sampled_from(["MQ_q", "WQ_q", "CQ_q", "PQ_q", "SQ_q", "XQ_q", "else"])
    sessions = sorted({session for session, _ in peers_of(world, node)})
    members = st.lists(st.sampled_from(sessions), unique=True).map(sorted).map(tuple)
    return st.builds(ViewChanged, groups, members, st.sampled_from(Cause), members)


def transport(world, node):
    others = st.sampled_from([Disconnected("x"), Tick(), Transition("PQ_q"), Connected("#new.1#world")])
    return frames(world, node) | frames(world, node) | junk(world, node) | views(world, node) | others


@pytest.mark.parametrize("situation", situations.ALL)
@given(data=st.data())
@settings(SETTINGS, max_examples=15)
def test_any_sequence_of_events_in_every_situation(situation, data):
    world, node = situations.ALL[situation]()
    for _ in range(data.draw(st.integers(1, 6))):
        event = data.draw(transport(world, node))
        world.time += data.draw(st.sampled_from([0, MILLISECOND, 10**9]))
        hear(world, node, event)


@pytest.mark.parametrize("situation", situations.ALL)
@given(kind=KINDS, body=bodies())
def test_what_is_no_frame_of_ours_changes_nothing(situation, kind, body):
    world, node = SITUATIONS.setdefault(situation, situations.ALL[situation]())
    try:
        decode(kind, body, "q")
    except Exception:
        before = node.role.snapshot(world.time)
        effects = node.role.handle(Received("#s.1#world", ("WQ_q",), kind, body), world.time)
        assert [effect.name.value for effect in effects] in (["bad_frame"], [])
        assert node.role.snapshot(world.time) == before


SITUATIONS = {}
"""Made once: nothing changes them."""

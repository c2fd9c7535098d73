"""Who has a link to a manager."""

from __future__ import annotations

import pytest

from spreadq_core.codec import decode
from spreadq_core.events import Cause, ViewChanged
from spreadq_core.ids import QueueGroups
from spreadq_core.link import Speaker
from spreadq_core.messages import About, SenderHello, Welcome, WorkerHello
from spreadq_core.peers import Peers, PeersState, SenderPeer, WorkerPeer
from spreadq_core.policy import DEFAULT, Policy
from tests.core.puppet import frame

ABOUT = About("x", "h", 1)
SENDER, WORKER = SenderHello(ABOUT), WorkerHello(ABOUT, 1, None)
POLICY = Policy(senders_budget=12, workers_budget=6)


@pytest.fixture
def peers():
    return Peers(QueueGroups.of("q"), POLICY, PeersState())


def open_link(peers, instance, hello=SENDER, link=1, session=None):
    return peers.open(session or f"#{instance}", frame(instance, hello, link=link), hello, 0)


def flushed(peers, now=0):
    out = []
    peers.flush(Speaker("q", 1, 0), now, out)
    return [(send.groups, decode(send.kind, send.body, "q")) for send in out]


def view(peers, *members, group="SQ_q", cause=Cause.JOIN):
    return peers.view_changed(ViewChanged(group, members, cause, members))


def test_peers_are_found_by_instance_and_by_session(peers):
    sender, worker = open_link(peers, 7), open_link(peers, 8, WORKER)
    assert isinstance(sender, SenderPeer)
    assert isinstance(worker, WorkerPeer)
    assert (peers.get(7), peers.get(8), peers.get(9)) == (sender, worker, None)
    assert (peers.at("#7"), peers.at("#8"), peers.at("#9")) == (7, 8, None)


def test_a_new_link_replaces_the_old_one_and_its_session(peers):
    open_link(peers, 7)
    open_link(peers, 7, link=2, session="#new")
    assert peers.at("#7") is None
    assert peers.at("#new") == 7
    assert peers.get(7).link.number == 2


def test_who_is_removed_is_not_found_and_rings_no_alarm(peers):
    open_link(peers, 8, WORKER)
    peers.touch(8, peers.get(8))
    flushed(peers)
    assert peers.deadline is not None
    peers.remove(8)
    assert peers.get(8) is None
    assert peers.at("#8") is None
    assert peers.deadline is None
    assert flushed(peers) == []


def test_a_link_is_opened_by_a_hello_in_a_first_frame_to_anybody(peers):
    assert peers.opens_link(frame(7, SENDER), None)
    assert peers.opens_link(frame(8, WORKER, link=5), None)
    assert not peers.opens_link(frame(7, SENDER, number=2), None)
    assert not peers.opens_link(frame(7, SENDER, target=1), None)
    assert not peers.opens_link(frame(7), None)
    assert not peers.opens_link(frame(7, Welcome(10**7)), None)


def test_only_a_newer_link_replaces_one_and_only_of_the_same_kind(peers):
    sender, worker = open_link(peers, 7, link=2), open_link(peers, 8, WORKER, link=2)
    for instance, hello, peer in ((7, SENDER, sender), (8, WORKER, worker)):
        for link in (1, 2, 3):
            assert peers.opens_link(frame(instance, hello, link=link), peer) == (link == 3)
    assert not peers.opens_link(frame(7, WORKER, link=3), sender)
    assert not peers.opens_link(frame(8, SENDER, link=3), worker)


def test_departures_are_inferred_from_views_since_we_connected(peers):
    assert view(peers, "a", "b") == ([], ["a", "b"])
    assert view(peers, "b", "c", cause=Cause.NETWORK) == (["a"], ["c"])
    assert peers.is_present("c", "SQ_q")
    assert not peers.is_present("c", "PQ_q")
    peers.reconnected()
    assert not peers.is_present("c", "SQ_q")
    assert view(peers, "c") == ([], ["c"])


def test_other_groups_are_nobodys_presence(peers):
    assert view(peers, "a", group="XQ_q") == ([], [])
    assert peers.state.views == {}


# --- windows --------------------------------------------------------------------------------------


def test_each_peer_is_told_its_share_of_the_budget_in_its_welcome(peers):
    open_link(peers, 7)
    ((_, welcome),) = flushed(peers)
    assert (welcome.window, welcome.messages) == (12, [Welcome(DEFAULT.lease)])
    open_link(peers, 8, WORKER)
    assert [f.window for _, f in flushed(peers)] == [6]


def test_those_whose_share_gets_smaller_are_told_at_once(peers):
    for instance in (7, 8, 9):
        open_link(peers, instance)
        told = {groups[0]: f.window for groups, f in flushed(peers)}
        assert set(told.values()) == {12 // (instance - 6)}
        assert len(told) == instance - 6


def test_those_whose_share_stays_are_not_told(peers):
    for instance in range(100, 113):
        open_link(peers, instance)
    flushed(peers)
    open_link(peers, 200)
    assert [groups for groups, _ in flushed(peers)] == [("#200",)]


def test_nobody_has_less_than_one(peers):
    for instance in range(100, 130):
        open_link(peers, instance)
    assert {f.window for _, f in flushed(peers)} == {1}

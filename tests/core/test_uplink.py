"""A worker's or sender's way to whoever manages."""

from __future__ import annotations

import pytest

from spreadq_core.codec import KIND, encode
from spreadq_core.effects import Join, Service
from spreadq_core.errors import PeerError
from spreadq_core.events import Connected, Received
from spreadq_core.link import Link, Speaker
from spreadq_core.messages import About, Accepted, SenderHello, TookOver, Welcome
from spreadq_core.notes import NoteName
from spreadq_core.policy import DEFAULT
from spreadq_core.uplink import Uplink
from tests.core.puppet import frame

ABOUT = About("s", "h", 1)
ME, MANAGER = 201, 1


@pytest.fixture
def uplink():
    uplink = Uplink(Speaker("q", ME, 3), ABOUT, ("MQ_q",), "SQ_q", Link(0, ("MQ_q",), Service.AGREED))
    uplink.open(SenderHello(ABOUT), DEFAULT, 0)
    return uplink


def heard(*messages, source=MANAGER, **header):
    return frame(source, *messages, **{"target": ME, "epoch": 3, **header})


def test_a_connection_is_a_presence(uplink):
    assert uplink.flush(0, DEFAULT, 0) == []
    assert uplink.deadline(DEFAULT, 0) is None
    assert uplink.connected(Connected("#me")) == Join("SQ_q")
    assert len(uplink.flush(0, DEFAULT, 0)) == 1
    assert uplink.deadline(DEFAULT, 0) == DEFAULT.resend_after


def test_a_long_silence_is_broken(uplink):
    uplink.connected(Connected("#me"))
    uplink.flush(0, DEFAULT, 0)
    uplink.receive(heard(link=1, number=1, receipt=1), 0)
    uplink.flush(100, DEFAULT, 0)
    assert uplink.deadline(DEFAULT, 1_000) == 1_000
    assert uplink.flush(999, DEFAULT, 1_000) == []
    assert len(uplink.flush(1_000, DEFAULT, 1_000)) == 1
    assert uplink.deadline(DEFAULT, 1_000) == 2_000


def test_links_are_counted(uplink):
    assert uplink.link.number == 1
    assert uplink.open(SenderHello(ABOUT), DEFAULT, 0).number == 2
    assert uplink.link.grant == DEFAULT.manager_window


def test_a_frame_is_read_as_one_of_our_queue(uplink):
    sent = heard(Accepted(1))
    assert uplink.read(Received("#m", (), KIND, encode(sent))) == sent
    with pytest.raises(PeerError):
        uplink.read(Received("#m", (), 0, encode(sent)))


def test_epochs_only_grow(uplink):
    assert not uplink.is_called(heard(epoch=5))
    assert uplink.speaker.epoch == 5
    with pytest.raises(PeerError, match="epoch 4 is over") as error:
        uplink.is_called(heard(epoch=4))
    assert error.value.note is NoteName.STALE_EPOCH


@pytest.mark.parametrize(
    ("header", "message", "called"),
    [
        ({"link": 0}, TookOver(0, ABOUT), True),
        ({"link": 0}, TookOver(1, ABOUT), True),
        ({"link": 0}, Accepted(1), False),
        ({"link": 1}, TookOver(0, ABOUT), False),
    ],
)
def test_a_call_to_open_a_link_stands_alone_and_means_the_current_one_or_any(uplink, header, message, called):
    assert uplink.is_called(heard(message, **header)) == called


def test_a_call_for_a_link_that_is_replaced_is_stale(uplink):
    with pytest.raises(PeerError, match="link 2 is replaced") as error:
        uplink.is_called(heard(TookOver(2, ABOUT), link=0))
    assert error.value.note is NoteName.STALE_LINK


def test_the_first_who_answers_has_the_link(uplink):
    uplink.connected(Connected("#me"))
    uplink.flush(0, DEFAULT, 0)
    receipted, messages = uplink.receive(heard(Welcome(10**9), receipt=1), 5)
    assert [sent.number for sent in receipted] == [1]
    assert messages == [Welcome(10**9)]
    assert uplink.link.peer == MANAGER
    with pytest.raises(PeerError, match="link 1 of manager 0000000000000002") as error:
        uplink.receive(heard(source=2, number=2), 5)
    assert error.value.note is NoteName.STALE_LINK
    assert uplink.link.owed_at == 5, "it will see whose link this is"


@pytest.mark.parametrize("header", [{"link": 2}, {"target": 999}])
def test_a_frame_of_another_link_or_for_another_is_stale(uplink, header):
    with pytest.raises(PeerError) as error:
        uplink.receive(heard(**header), 5)
    assert error.value.note is NoteName.STALE_LINK
    assert uplink.link.peer == 0
    assert uplink.link.owed_at == 5

"""The one loop that runs a role."""

from __future__ import annotations

import pytest

from spreadq_core import effects as f
from spreadq_core.effects import Service
from spreadq_core.events import Connected, Tick
from spreadq_core.host import Host
from spreadq_core.notes import NoteName

SEND = f.Send(("g",), Service.FIFO, 1, b"")


class Scripted:
    """A role that logs what it is asked, and answers as told."""

    def __init__(self, log):
        self.log = log
        self.effects = {}
        self.sends = []
        self.deadline = None

    def handle(self, event, now):
        self.log.append(("handle", type(event).__name__, now))
        return self.effects.pop(type(event), [])

    def flush(self, now):
        self.log.append(("flush", now))
        sends, self.sends = self.sends, []
        return sends


class LoggingHost(Host):
    """Logs what it is to do."""

    def __init__(self):
        self.log = []
        self.time = 7
        super().__init__(Scripted(self.log))

    def now(self):
        return self.time

    def set_alarm(self, at):
        self.log.append(("alarm", at))

    def send(self, sends):
        self.log.append(("send", sends))

    def join(self, effect):
        self.log.append(("join", effect.group))

    def leave(self, effect):
        self.log.append(("leave", effect.group))

    def exit(self, effect):
        self.log.append(("exit", effect.status))

    def note(self, effect):
        self.log.append(("note", effect.name.value))


@pytest.fixture
def host():
    return LoggingHost()


def test_a_turn_handles_performs_flushes_and_sets_the_alarm_in_this_order(host):
    host.role.effects[Connected] = [
        f.Join("a"),
        f.Leave("b"),
        f.Note(NoteName.WELCOMED, {}),
        f.Exit(3, ""),
    ]
    host.role.sends = [SEND]
    host.role.deadline = 9
    host.deliver([Connected("s")])
    assert host.log == [
        ("handle", "Connected", 7),
        ("join", "a"),
        ("leave", "b"),
        ("note", "welcomed"),
        ("exit", 3),
        ("flush", 7),
        ("send", [SEND]),
        ("alarm", 9),
    ]


def test_the_inbox_is_drained_before_the_flush(host):
    host.deliver([Connected("s"), Tick(), Tick()])
    assert [step[0] for step in host.log] == ["handle", "handle", "handle", "flush"]


def test_what_comes_of_an_effect_is_handled_in_the_same_turn(host):
    host.performers[f.Join] = lambda effect: host.deliver([Tick()])
    host.role.effects[Connected] = [f.Join("a"), f.Leave("b")]
    host.deliver([Connected("s")])
    assert [step[:2] for step in host.log] == [
        ("handle", "Connected"),
        ("leave", "b"),
        ("handle", "Tick"),
        ("flush", 7),
    ]


def test_where_nothing_is_said_nothing_is_sent(host):
    host.deliver([Tick()])
    assert "send" not in [step[0] for step in host.log]


def test_the_alarm_is_set_only_when_it_changed(host):
    host.role.deadline = 9
    host.deliver([Tick()])
    host.deliver([Tick()])
    host.role.deadline = None
    host.deliver([Tick()])
    assert [step for step in host.log if step[0] == "alarm"] == [("alarm", 9), ("alarm", None)]


def test_an_alarm_that_rang_is_a_tick_and_is_set_again_even_for_the_same_time(host):
    host.role.deadline = 9
    host.deliver([Connected("s")])
    host.time = 9
    host.ring()
    assert host.log[-3:] == [("handle", "Tick", 9), ("flush", 9), ("alarm", 9)]


def test_after_an_error_the_host_can_go_on(host):
    def refuse(event, now):
        raise ValueError("the owner's fault")

    handle, host.role.handle = host.role.handle, refuse
    with pytest.raises(ValueError, match="the owner's fault"):
        host.deliver([Tick()])
    host.role.handle = handle
    host.deliver([Tick()])
    assert ("handle", "Tick", 7) in host.log

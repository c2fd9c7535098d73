"""Commands can be journaled: they are bytes and back, and complete."""

from __future__ import annotations

import msgspec
import pytest

from spreadq_core import commands as c
from spreadq_core.messages import Confirm, Outcome, Status
from spreadq_core.policy import DEFAULT
from spreadq_core.task_queue import TaskQueue

EXAMPLES = [
    c.Entered(1),
    c.Lost(1, c.Loss.LEASE, [(1, 2, 3)]),
    c.Forgotten(1),
    c.Overran(1, [(1, 2, 3)]),
    c.Expired([(1, 2)]),
    c.Decided(Outcome(1, 2, 3, 4, Status.BURIED)),
    c.Restarted(),
    c.Released([(1, 2)]),
    c.Said(1, [Confirm(), Confirm()], True),
]


def test_there_is_an_example_of_every_command():
    assert {type(example) for example in EXAMPLES} == set(c.Command.__subclasses__())


@pytest.mark.parametrize("command", EXAMPLES)
def test_a_command_is_bytes_and_back(command):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(command), type=c.AnyCommand) == command


def test_a_queue_takes_every_command():
    assert TaskQueue(DEFAULT)._handlers.keys() == set(c.Command.__subclasses__())

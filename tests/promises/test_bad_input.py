"""What users get wrong is refused by name where it is made, and work goes on."""

from __future__ import annotations

import pytest

from spreadq import RemoteError, Sender, UsageError
from spreadq_core import terms
from spreadq_core.codec import KIND, decode, encode
from spreadq_core.effects import Service
from spreadq_core.events import Received
from spreadq_core.ids import QueueGroups
from spreadq_core.messages import About, Frame, Outcome, SenderHello, Status, Submit
from spreadq_core.policy import DEFAULT
from tests.brokers import TIMEOUT, wait_until
from tests.promises.scene import JOBS, Scene
from transports.spread.blocking_client import BlockingSpread


@pytest.mark.parametrize("name", ["grün und blau", "q" * 29])
def test_illegal_queue_names_are_refused_by_all_programs(own_scene: Scene, name: str) -> None:
    """Before they look for a daemon."""
    scene = own_scene
    spread, state = ("--spread", scene.address), ("--state", str(scene.state))
    programs = [
        scene.start("manager", name, *spread, *state),
        scene.start("serve", name, "--port", "0", *state),
        scene.start("worker", JOBS, "--queue", name, *spread),
        scene.start("submit", "echo", "--queue", name, *spread),
        scene.start("call", "echo", "--queue", name, *spread),
        scene.start("status", name, *spread),
    ]
    for program in programs:
        assert program.wait(TIMEOUT) == 2
        assert f"queue name {name!r}" in scene.words(program)
    assert not scene.state.exists()


def test_the_longest_name_works(scene: Scene) -> None:
    scene.queue = f"{scene.queue:~<28}"
    scene.start_manager()
    scene.start_workers(1)
    with Sender(scene.queue, address=scene.address) as sender:
        assert sender.rpc("echo", ["one"]) == "one"


def test_unknown_codecs_are_refused_by_senders(own_scene: Scene) -> None:
    for command in ("call", "submit"):
        program = own_scene.start(command, "echo", "--codec", "pickle", "--queue", "any")
        assert program.wait(TIMEOUT) == 2
        assert "'pickle'" in own_scene.words(program)


def test_a_codec_that_only_its_sender_knows_is_a_failure_of_the_task(scene: Scene) -> None:
    """A sender of another make."""
    scene.start_manager()
    scene.start_workers(1)
    groups = QueueGroups.of(scene.queue)
    common = terms.encode(terms.Terms("echo", "pickle", 0, 1, 0, 0, True))
    messages = [SenderHello(About("stranger", "", 0)), Submit(1, common, b"payload")]
    outcomes: list[Outcome] = []
    stranger = BlockingSpread(scene.address, membership=False)
    stranger.connect()

    def hear() -> None:
        for event in stranger.receive(0.01):
            if isinstance(event, Received):
                frame = decode(event.kind, event.body, scene.queue)
                outcomes.extend(message for message in frame.messages if isinstance(message, Outcome))

    try:
        stranger.join(groups.senders)
        frame = Frame(scene.queue, 5, 0, 1, 1, 0, 0, 100, list(messages))
        stranger.send((groups.submit,), Service.AGREED, KIND, encode(frame))
        stranger.flush()
        wait_until(lambda: hear() or outcomes)
    finally:
        stranger.close()
    assert outcomes[0].status is Status.FAILED
    assert b"pickle" in outcomes[0].payload
    with Sender(scene.queue, address=scene.address) as sender:
        assert sender.rpc("echo", ["later"]) == "later"


def test_payloads_up_to_the_limit_go_there_and_back_and_others_are_refused(scene: Scene) -> None:
    scene.start_manager()
    scene.start_workers(1)
    limit = DEFAULT.payload_limit
    with (
        Sender(scene.queue, address=scene.address, codec="raw") as sender,
        pytest.raises(UsageError) as error,
    ):
        sender.submit("large", bytes(limit + 1))
    assert str(limit) in str(error.value)
    with Sender(scene.queue, address=scene.address) as sender:
        overhead = 100
        assert sender.rpc("large", ["fits", limit - overhead]) == bytes(limit - overhead)
        with pytest.raises(RemoteError, match=f"{limit} at most"):
            sender.rpc("large", ["too-large", limit + 1])
        label = "x" * (limit - overhead)
        assert sender.rpc("length", [label]) == len(label)
        with pytest.raises(UsageError, match=f"{limit} at most"):
            sender.rpc("length", ["x" * limit])
        assert sender.rpc("echo", ["later"]) == "later"

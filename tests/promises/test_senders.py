"""Senders disappear, freeze, fork, and ask for more than they read."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from spreadq import Sender
from tests.brokers import TIMEOUT
from tests.promises.scene import Load, Scene


class TestGone:
    def test_what_it_had_accepted_is_done(self, scene: Scene, tmp_path: Path) -> None:
        """It is killed with one-way tasks and calls in the queue."""
        scene.start_hasty_manager(departed_keep=300)
        scene.start_workers(1, "-c", "2")
        gate = tmp_path / "gate"
        sender = start_sender(scene, "submit-and-hang", str(gate))
        scene.wait_for(lambda status: status["tasks"]["accepted"] == 102)
        scene.kill(sender)
        scene.wait_for(lambda status: not status["senders"])
        gate.touch()
        scene.wait_for_ends([f"one-way-{sender.pid}-{number}" for number in range(50)])
        scene.wait_for(lambda status: not status["tasks"]["open"])

    def test_nothing_is_kept_for_it_for_ever(self, scene: Scene, tmp_path: Path) -> None:
        scene.start_hasty_manager(departed_keep=300)
        scene.start_workers(1, "-c", "2")
        gate = tmp_path / "gate"
        sender = start_sender(scene, "submit-and-hang", str(gate))
        scene.wait_for(lambda status: status["tasks"]["accepted"] == 102)
        scene.kill(sender)
        gate.touch()
        scene.wait_for(lambda status: not status["tasks"]["open"] and not status["outcome_bytes"])
        assert scene.status()["senders"] == 0

    def test_others_under_load_do_not_notice(self, scene: Scene, tmp_path: Path) -> None:
        scene.start_manager()
        scene.start_workers(2, "-c", "4")
        gate = tmp_path / "gate"
        gate.touch()
        with Load(scene, one_way=2) as load:
            for _ in range(3):
                load.wait_for(50)
                sender = start_sender(scene, "submit-and-hang", str(gate))
                scene.wait_for_word("ready", sender)
                scene.kill(sender)
            load.wait_for(50)
        scene.wait_for_ends(load.asked + load.sent)
        scene.wait_for(lambda status: not status["tasks"]["open"])
        assert not scene.repeated()


class TestSilent:
    def test_a_frozen_sender_is_cut_off_and_gets_everything_when_it_thaws(self, scene: Scene) -> None:
        """Its answers come one by one, more than a daemon keeps for anybody."""
        scene.start_manager()
        scene.start_workers(2)
        sender = start_sender(scene, "ask-for-many", "4000")
        scene.wait_for_word("ready", sender)
        sender.send_signal(signal.SIGSTOP)
        scene.wait_for(lambda status: status["tasks"]["accepted"] and not status["tasks"]["open"])
        sender.send_signal(signal.SIGCONT)
        assert sender.wait(TIMEOUT) == 0
        words = scene.words(sender)
        assert "4000 right" in words
        assert words.count("welcomed") == 2
        assert not scene.repeated()

    def test_a_blocking_sender_that_computes_for_long_gets_everything_after(self, scene: Scene) -> None:
        scene.start_manager()
        scene.start_workers(2, "-c", "8")
        with Sender(scene.queue, address=scene.address) as sender:
            handles = [sender.submit("echo", [f"task-{number}"], wait=False) for number in range(500)]
            handles[0].result("10s")
            scene.wait_for_ends([f"task-{number}" for number in range(500)])  # without looking at the sender
            scene.wait_for(lambda status: status["tasks"]["done"] == 500)
            assert [handle.result("10s") for handle in handles] == [f"task-{n}" for n in range(500)]
        assert not scene.repeated()

    def test_what_nobody_waits_for_any_more_is_not_run(self, scene: Scene) -> None:
        """A call's deadline travels with it, and its sender is dead when it passes."""
        scene.start_manager()
        sender = start_sender(scene, "call-with-deadline", "1500ms")
        scene.wait_for(lambda status: status["tasks"]["open"] == 1)
        scene.kill(sender)
        scene.wait_for(lambda status: status["tasks"]["expired"] == 1 and not status["tasks"]["open"])
        scene.start_workers(1)
        with Sender(scene.queue, address=scene.address) as other:
            other.rpc("echo", ["later"])
        assert set(scene.runs()) == {"later"}


class TestForked:
    def test_parent_and_child_go_on_with_a_connection_each(self, scene: Scene) -> None:
        scene.start_manager()
        scene.start_workers(2, "-c", "4")
        program = start_sender(scene, "fork", "20")
        assert program.wait(TIMEOUT) == 0
        said = scene.words(program).split()
        assert said.count("right") == 40
        labels = [f"{who}-{number}" for who in ("parent", "child") for number in range(20)]
        assert set(labels) <= set(scene.runs())
        assert not scene.repeated()


def start_sender(scene: Scene, what: str, *arguments: str) -> subprocess.Popen[bytes]:
    return scene.start_python("-m", "tests.promises.sender", what, scene.queue, scene.address, *arguments)

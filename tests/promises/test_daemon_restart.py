"""The daemon, or the whole broker, dies under load and is started again at the same address."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from spreadq import NoManager, Sender, TimedOut
from spreadq_core.ids import MILLISECOND
from spreadq_core.policy import DEFAULT
from tests.brokers import wait_until
from tests.promises.conftest import MortalDaemon
from tests.promises.scene import Load, Scene


class TestDaemonKilled:
    def test_all_is_answered_and_nothing_runs_twice(self, mortal: tuple[Scene, MortalDaemon]) -> None:
        scene, daemon = mortal
        scene.start_manager()
        scene.start_workers(2, "-c", "4")
        with Load(scene, calls=6, one_way=2) as load:
            for _ in range(2):
                load.wait_for(100)
                daemon.kill()
                daemon.start()
            load.wait_for(100)
        scene.wait_for_ends(load.asked + load.sent)
        assert not scene.repeated()

    def test_running_jobs_go_on_and_their_results_arrive(
        self, mortal: tuple[Scene, MortalDaemon], tmp_path: Path
    ) -> None:
        scene, daemon = mortal
        scene.start_manager()
        workers = scene.start_workers(2, "-c", "2")
        with Sender(scene.queue, address=scene.address) as sender:
            handles = {
                name: sender.submit("hold", [name, str(tmp_path / name)]) for name in ("during", "after")
            }
            for name in handles:
                scene.wait_for_start(name)
            daemon.kill()
            (tmp_path / "during").touch()
            scene.wait_for_ends(["during"])
            daemon.start()
            scene.wait_for(lambda status: len(status["workers"]) == 2 and status["tasks"]["running"] == 1)
            (tmp_path / "after").touch()
            assert {handle.result("20s") for handle in handles.values()} <= {worker.pid for worker in workers}
        assert not scene.repeated()

    def test_a_worker_that_died_meanwhile_is_found_by_its_lease(
        self, mortal: tuple[Scene, MortalDaemon]
    ) -> None:
        scene, daemon = mortal
        scene.start_hasty_manager(lease=1000)
        workers = scene.start_workers(2)
        with Sender(scene.queue, address=scene.address) as sender:
            handle = sender.submit("hang_the_first_time", ["one"])
            victim = scene.wait_for_start("one").pid
            daemon.kill()
            for worker in workers:
                if worker.pid == victim:
                    scene.kill(worker)
            daemon.start()
            assert handle.result("20s") != victim
        assert not scene.overlaps()


class TestNoDaemon:
    """It is gone, and does not come back soon."""

    def test_calls_keep_their_deadlines_and_later_ones_are_answered(
        self, mortal: tuple[Scene, MortalDaemon]
    ) -> None:
        scene, daemon = mortal
        scene.start_manager()
        scene.start_workers(1)
        with Sender(scene.queue, address=scene.address) as sender:
            sender.rpc("echo", ["before"])
            daemon.kill()
            with pytest.raises(TimedOut, match=r"not done in 0\.3"):
                sender.rpc("echo", ["meanwhile"], timeout="300ms")
            daemon.start()
            assert sender.rpc("echo", ["after"], timeout="20s") == "after"
        assert set(scene.runs()) == {"before", "after"}

    def test_senders_are_told_and_can_go_on_when_it_is_back(self, mortal: tuple[Scene, MortalDaemon]) -> None:
        scene, daemon = mortal
        scene.start_manager()
        scene.start_workers(1)
        policy = attrs.evolve(DEFAULT, outage_wait=300 * MILLISECOND)
        with Sender(scene.queue, address=scene.address, policy=policy) as sender:
            sender.rpc("echo", ["before"])
            daemon.kill()
            for submit in (sender.submit, sender.rpc):
                with pytest.raises(NoManager, match="connection to Spread is lost"):
                    submit("echo", ["meanwhile"])
            daemon.start()
            scene.wait_for(lambda status: len(status["workers"]) == 1)
            wait_until(lambda: answers(sender))

    def test_programs_that_are_told_to_stop_do(
        self, mortal: tuple[Scene, MortalDaemon], tmp_path: Path
    ) -> None:
        """A worker lets its job end; nobody has its outcome then, and the task runs again."""
        scene, daemon = mortal
        manager = scene.start_manager()
        (worker,) = scene.start_workers(1)
        gate = tmp_path / "gate"
        with Sender(scene.queue, address=scene.address) as sender:
            handle = sender.submit("hold", ["held", str(gate)])
            scene.wait_for_start("held")
            daemon.kill()
            gate.touch()
            assert scene.terminate(worker) == 0
            assert scene.terminate(manager) == 0
            daemon.start()
            scene.start_hasty_manager(lease=500)
            (other,) = scene.start_workers(1)
            assert handle.result("20s") == other.pid
        assert not scene.overlaps()


def answers(sender: Sender) -> bool:
    """Whether it is connected again."""
    try:
        return sender.rpc("echo", ["after"]) == "after"
    except NoManager:
        return False


class TestServe:
    """Daemon and manager in one process."""

    def test_killed_all_calls_are_answered(self, own_scene: Scene) -> None:
        scene = own_scene
        broker = scene.start_serve()
        scene.start_workers(2, "-c", "4")
        with Load(scene) as load:
            load.wait_for(100)
            scene.kill(broker)
            scene.start_serve()
            load.wait_for(100)
        assert not scene.overlaps()

    def test_stopped_nothing_accepted_is_lost_or_runs_twice(self, own_scene: Scene) -> None:
        scene = own_scene
        broker = scene.start_serve()
        scene.start_workers(2, "-c", "4")
        with Load(scene, calls=4, one_way=8) as load:
            for _ in range(2):
                load.wait_for(200)
                assert scene.terminate(broker) == 0
                broker = scene.start_serve()
            load.wait_for(200)
        scene.wait_for_ends(load.asked + load.sent)
        assert not scene.repeated()
        assert scene.wait_for(lambda status: not status["tasks"]["open"])

    def test_killed_at_every_moment_of_a_few_calls(self, own_scene: Scene) -> None:
        """Many short lives of a broker: each call is answered all the same."""
        scene = own_scene
        broker = scene.start_serve()
        scene.start_workers(1, "-c", "4")
        with Load(scene, senders=3, calls=2, pause=0.005) as load:
            for _ in range(3):
                load.wait_for(1)
                scene.kill(broker)
                broker = scene.start_serve()
            wait_until(lambda: load.answered > 20)
        assert not scene.overlaps()

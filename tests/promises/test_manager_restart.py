"""The manager is killed, stopped, frozen or doubled under load."""

from __future__ import annotations

import signal
from pathlib import Path

import attrs
import pytest

from spreadq import Sender
from spreadq_core.ids import SECOND
from spreadq_core.policy import DEFAULT
from tests.brokers import TIMEOUT, wait_until
from tests.promises.scene import Load, Scene

HASTE = {"claim_grace": 300.0, "who_wait": 300.0}
"""Times of managers that make tests quick, in milliseconds."""


class TestKilled:
    def test_every_call_is_answered(self, scene: Scene) -> None:
        manager = scene.start_hasty_manager(**HASTE)
        scene.start_workers(2, "-c", "4")
        with Load(scene) as load:
            for _ in range(3):
                load.wait_for(100)
                scene.kill(manager)
                manager = scene.start_hasty_manager(**HASTE)
            load.wait_for(100)
        assert set(load.asked) == set(scene.runs())
        assert not scene.overlaps()

    def test_running_jobs_go_on_and_are_not_started_elsewhere(self, scene: Scene, tmp_path: Path) -> None:
        manager = scene.start_hasty_manager(**HASTE)
        workers = scene.start_workers(3)
        gate = tmp_path / "gate"
        with Sender(scene.queue, address=scene.address) as sender:
            handles = [sender.submit("hold", [f"hold-{number}", str(gate)]) for number in range(2)]
            for number in range(2):
                scene.wait_for_start(f"hold-{number}")
            scene.kill(manager)
            scene.start_hasty_manager(**HASTE)
            scene.wait_for(lambda status: status["tasks"]["running"] == 2 and len(status["workers"]) == 3)
            sender.rpc("echo", ["later"])
            gate.touch()
            pids = {handle.result("20s") for handle in handles}
        assert len(pids) == 2
        assert pids <= {worker.pid for worker in workers}
        assert not scene.repeated()

    def test_epochs_grow_even_where_the_state_directory_is_lost(self, scene: Scene) -> None:
        epochs = []
        manager = scene.start_hasty_manager(**HASTE)
        scene.start_workers(1)
        with Load(scene, senders=1, calls=2) as load:
            for state in ("state", "state", "lost"):
                load.wait_for(20)
                epochs.append(scene.wait_for_manager()["manager"]["epoch"])
                scene.kill(manager)
                manager = scene.start_hasty_manager(scene.scratch / state, **HASTE)
            load.wait_for(20)
        assert epochs == [1, 2, 3]
        assert scene.wait_for_manager()["manager"]["epoch"] == 4


class TestStopped:
    def test_nothing_accepted_is_lost_or_runs_twice(self, scene: Scene) -> None:
        manager = scene.start_manager()
        scene.start_workers(2, "-c", "4")
        with Load(scene, calls=4, one_way=8) as load:
            for _ in range(3):
                load.wait_for(200)
                assert scene.terminate(manager) == 0
                manager = scene.start_manager()
            load.wait_for(200)
        scene.wait_for_ends(load.asked + load.sent)
        assert not scene.repeated()
        assert scene.wait_for(lambda status: not status["tasks"]["open"])

    def test_what_waits_is_done_after_a_while_without_any(self, scene: Scene, tmp_path: Path) -> None:
        """One-way tasks of a sender that is gone, a job that ends in between, and a call."""
        manager = scene.start_manager()
        scene.start_workers(1)
        gate = tmp_path / "gate"
        with Sender(scene.queue, address=scene.address) as sender:
            handle = sender.submit("hold", ["held", str(gate)])
            scene.wait_for_start("held")
            with Sender(scene.queue, address=scene.address) as other:
                for number in range(200):
                    other.submit("echo", [f"waits-{number}"], reply=False)
            assert scene.terminate(manager) == 0
            gate.touch()
            scene.wait_for_ends(["held"])
            scene.start_manager()
            handle.result("20s")
            assert sender.rpc("echo", ["called"], timeout="20s") == "called"
        scene.wait_for_ends([f"waits-{number}" for number in range(200)])
        assert not scene.repeated()

    def test_at_a_worker_that_is_gone_what_ran_runs_elsewhere(self, scene: Scene) -> None:
        """Its attempts wait for a claim until the lease, for nobody saw it go."""
        manager = scene.start_hasty_manager(lease=1000)
        first, *_ = scene.start_workers(1)
        with Sender(scene.queue, address=scene.address) as sender:
            handle = sender.submit("hang_the_first_time", ["one"])
            scene.wait_for_start("one")
            assert scene.terminate(manager) == 0
            scene.kill(first)
            scene.start_hasty_manager(lease=1000)
            (second,) = scene.start_workers(1)
            assert handle.result("20s") == second.pid
        assert not scene.overlaps()


class TestFrozen:
    def test_a_stall_of_3_seconds_under_16_senders_cuts_it_off_from_nothing(self, scene: Scene) -> None:
        manager = scene.start_manager()
        scene.start_workers(2, "-c", "8")
        with Load(scene, senders=16, calls=40, one_way=4, pause=0.005) as load:
            load.wait_for(1000)
            manager.send_signal(signal.SIGSTOP)
            with pytest.raises(AssertionError, match="in vain"):  # that is the 3 seconds
                wait_until(lambda: False, timeout=3)
            manager.send_signal(signal.SIGCONT)
            load.wait_for(1000)
        scene.wait_for_ends(load.asked + load.sent)
        assert len(scene.events(manager, "took_over")) == 1
        assert not scene.events(manager, "worker_lost")
        assert not scene.repeated()

    def test_replaced_it_exits_75_when_it_thaws(self, scene: Scene) -> None:
        manager = scene.start_hasty_manager(**HASTE)
        scene.start_workers(2, "-c", "4")
        with Load(scene) as load:
            load.wait_for(100)
            manager.send_signal(signal.SIGSTOP)
            second = scene.start_hasty_manager(**HASTE)
            load.wait_for(100)
            manager.send_signal(signal.SIGCONT)
            assert manager.wait(TIMEOUT) == 75
            load.wait_for(100)
            assert scene.status()["manager"]["pid"] == second.pid
        assert not scene.overlaps()

    def test_replaced_by_one_from_elsewhere_only_one_of_them_stays(self, scene: Scene) -> None:
        """The other one does not know its epoch, so either may have the higher one; and what the one has
        begun, the other does not know, so it may run at the same time."""
        first = scene.start_hasty_manager(**HASTE)
        scene.start_workers(2, "-c", "4")
        with Load(scene) as load:
            load.wait_for(100)
            first.send_signal(signal.SIGSTOP)
            second = scene.start_hasty_manager(scene.scratch / "elsewhere", **HASTE)
            load.wait_for(100)
            first.send_signal(signal.SIGCONT)
            ends = wait_until(lambda: [end for end in (first.poll(), second.poll()) if end is not None])
            load.wait_for(100)
        assert ends == [75]

    def test_one_from_elsewhere_replaces_an_old_hand(self, scene: Scene) -> None:
        """Peers have seen a higher epoch than the newcomer knows of."""
        for _ in range(3):
            first = scene.start_hasty_manager(**HASTE)
            epoch = scene.wait_for_manager()["manager"]["epoch"]
            if epoch < 3:
                scene.kill(first)
        scene.start_workers(2, "-c", "4")
        with Load(scene, policy=attrs.evolve(DEFAULT, outage_wait=4 * SECOND)) as load:
            load.wait_for(100)
            first.send_signal(signal.SIGSTOP)
            scene.start_hasty_manager(scene.scratch / "elsewhere", **HASTE)
            load.wait_for(100)
            first.send_signal(signal.SIGCONT)
            load.wait_for(100)
        assert not scene.overlaps()


class TestSecondOne:
    def test_it_exits_4_and_the_first_is_not_disturbed(self, scene: Scene) -> None:
        first = scene.start_manager()
        scene.start_workers(2, "-c", "4")
        with Load(scene, one_way=2) as load:
            load.wait_for(100)
            second = scene.start_manager()
            assert second.wait(TIMEOUT) == 4
            load.wait_for(100)
        assert str(first.pid) in scene.log(second)[-1]["event"]
        assert scene.status()["manager"]["pid"] == first.pid
        scene.wait_for_ends(load.asked + load.sent)
        assert not scene.repeated()

    def test_of_several_that_start_at_once_one_stays(self, scene: Scene) -> None:
        managers = [scene.start_hasty_manager(**HASTE) for _ in range(4)]
        scene.start_workers(1, "-c", "4")
        with Load(scene) as load:
            load.wait_for(50)
            wait_until(lambda: sum(manager.poll() is not None for manager in managers) == 3)
            load.wait_for(50)
        ends = {manager.pid: manager.poll() for manager in managers}
        assert {end for end in ends.values() if end is not None} <= {4, 75}
        assert ends[scene.status()["manager"]["pid"]] is None

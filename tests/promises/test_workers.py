"""Workers are killed, frozen, hung, drained; their jobs kill them, or leave children behind."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from spreadq import Buried, Sender
from spreadq_core.ids import MILLISECOND
from tests.brokers import TIMEOUT, wait_until
from tests.promises.scene import Load, Scene

SOON = 1000 * MILLISECOND
"""By then what is seen at once has happened, even on a busy machine; far less than any lease."""

LEASE = 500
"""Milliseconds, where a test waits for one."""


@pytest.fixture
def sender(scene: Scene) -> Iterator[Sender]:
    """Of the scene's queue."""
    with Sender(scene.queue, address=scene.address) as sender:
        yield sender


def kill_children(scene: Scene) -> None:
    """What jobs left behind."""
    for child in scene.children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


class TestKilled:
    def test_its_job_starts_elsewhere_within_milliseconds(self, scene: Scene, sender: Sender) -> None:
        scene.start_manager()
        workers = scene.start_workers(2)
        handle = sender.submit("hang_the_first_time", ["one"])
        victim = scene.wait_for_start("one").pid
        killed_at = scene.kill(next(worker for worker in workers if worker.pid == victim))
        assert handle.result("10s") != victim
        assert 0 < scene.wait_for_start("one", 2).start - killed_at < SOON

    def test_under_load_everything_is_done(self, scene: Scene) -> None:
        scene.start_manager()
        workers = scene.start_workers(3, "-c", "4")
        with Load(scene, one_way=2) as load:
            for worker in workers[:2]:
                load.wait_for(100)
                scene.kill(worker)
                workers += scene.start_workers(1, "-c", "4")
            load.wait_for(100)
        scene.wait_for_ends(load.asked + load.sent)
        assert not scene.overlaps()
        victims = {worker.pid for worker in workers[:2]}
        runs = scene.runs()
        assert all(runs[label][0].pid in victims for label in scene.repeated())

    def test_many_deaths_at_once_are_not_held_against_a_task(self, scene: Scene, sender: Sender) -> None:
        """It ran once; the others were dead before they could begin it."""
        manager = scene.start_manager()
        workers = scene.start_workers(6)
        handle = sender.submit("hang_the_first_time", ["one"])
        first = scene.wait_for_start("one").pid
        (survivor,) = scene.start_workers(1)
        workers.sort(key=lambda worker: worker.pid != first)
        manager.send_signal(signal.SIGSTOP)  # so that it hears of them one after the other, and late
        for worker in workers:
            scene.kill(worker)
        manager.send_signal(signal.SIGCONT)
        assert handle.result("10s") == survivor.pid
        assert len(scene.runs()["one"]) == 2

    @pytest.mark.parametrize("inherit", [False, True])
    def test_a_child_of_its_job_that_outlives_it_delays_nothing(
        self, scene: Scene, sender: Sender, inherit: bool
    ) -> None:
        """Also one that inherits all descriptors that can be inherited."""
        scene.start_manager()
        (victim,) = scene.start_workers(1)
        sender.submit("leave_a_child", ["one", inherit], reply=False)
        (child,) = wait_until(scene.children)
        try:
            (other,) = scene.start_workers(1)
            killed_at = scene.kill(victim)
            again = scene.wait_for_start("one", 2)
            os.kill(child, 0)  # it is still there
        finally:
            kill_children(scene)
        assert again.pid == other.pid
        assert again.start - killed_at < SOON

    def test_a_forked_copy_of_it_holds_its_connection_until_the_lease(
        self, scene: Scene, sender: Sender
    ) -> None:
        """So children are to be spawned; the task is not lost all the same."""
        scene.start_hasty_manager(lease=LEASE)
        (victim,) = scene.start_workers(1)
        sender.submit("leave_a_copy", ["one"], reply=False)
        (copy,) = wait_until(scene.children)
        try:
            (other,) = scene.start_workers(1)
            scene.kill(victim)
            assert scene.wait_for_start("one", 2).pid == other.pid
            os.kill(copy, 0)  # it is still there
        finally:
            kill_children(scene)

    def test_a_job_that_does_it_every_time_is_buried_with_the_reason(
        self, scene: Scene, sender: Sender
    ) -> None:
        scene.start_manager()
        workers = scene.start_workers(3)
        with pytest.raises(Buried, match="attempt 2, the last of 2: ") as buried:
            sender.rpc("die", ["deadly"], max_attempts=2, timeout="20s")
        assert "worker" in str(buried.value)
        (survivor,) = scene.wait_for(lambda status: len(status["workers"]) == 1 and status["workers"])
        assert survivor["pid"] in {worker.pid for worker in workers}
        assert sender.rpc("echo", ["later"]) == "later"
        assert len(scene.runs()["deadly"]) == 2
        assert scene.status()["tasks"]["buried"] == 1


class TestFrozen:
    def test_past_its_lease_there_is_one_outcome(self, scene: Scene, sender: Sender, tmp_path: Path) -> None:
        """The job runs elsewhere; when the worker thaws, whoever is first is heard."""
        scene.start_hasty_manager(lease=LEASE)
        workers = scene.start_workers(2)
        gate = tmp_path / "gate"
        handle = sender.submit("hold", ["held", str(gate)])
        first = scene.wait_for_start("held")
        frozen = next(worker for worker in workers if worker.pid == first.pid)
        frozen.send_signal(signal.SIGSTOP)
        second = scene.wait_for_start("held", 2)
        frozen.send_signal(signal.SIGCONT)
        gate.touch()
        assert handle.result("10s") in (first.pid, second.pid)
        tasks = scene.wait_for(lambda status: not status["tasks"]["open"] and status["tasks"])
        assert (tasks["done"], tasks["reassigned"]) == (1, 1)
        scene.wait_for(lambda status: [worker["state"] for worker in status["workers"]] == ["available"] * 2)
        assert sender.rpc("echo", ["later"]) == "later"

    def test_a_late_success_counts_while_there_is_no_other(
        self, scene: Scene, sender: Sender, tmp_path: Path
    ) -> None:
        scene.start_hasty_manager(lease=LEASE)
        (worker,) = scene.start_workers(1)
        gate = tmp_path / "gate"
        handle = sender.submit("hold", ["held", str(gate)])
        scene.wait_for_start("held")
        worker.send_signal(signal.SIGSTOP)
        gate.touch()
        scene.wait_for(lambda status: status["tasks"]["queued"] == 1)
        worker.send_signal(signal.SIGCONT)
        assert handle.result("10s") == worker.pid
        scene.wait_for(lambda status: status["tasks"]["done"] == 1 and not status["tasks"]["open"])
        assert len(scene.runs()["held"]) == 1

    def test_a_new_manager_that_knows_nothing_does_not_change_that(
        self, scene: Scene, sender: Sender, tmp_path: Path
    ) -> None:
        """The call comes again and runs elsewhere; the frozen worker claims it when it thaws."""
        manager = scene.start_hasty_manager(claim_grace=300)
        (frozen,) = scene.start_workers(1)
        gate = tmp_path / "gate"
        handle = sender.submit("hold", ["held", str(gate)])
        scene.wait_for_start("held")
        frozen.send_signal(signal.SIGSTOP)
        scene.kill(manager)
        scene.start_hasty_manager(claim_grace=300)
        (other,) = scene.start_workers(1, "-c", "2")
        sender.rpc("echo", ["later"])
        scene.wait_for_start("held", 2)
        frozen.send_signal(signal.SIGCONT)
        scene.wait_for(lambda status: len(status["workers"]) == 2)
        gate.touch()
        assert handle.result("10s") in (frozen.pid, other.pid)
        scene.wait_for(lambda status: not status["tasks"]["open"])
        scene.wait_for(lambda status: [worker["state"] for worker in status["workers"]] == ["available"] * 2)

    def test_under_load_everything_is_answered_once(self, scene: Scene) -> None:
        scene.start_hasty_manager(lease=LEASE)
        workers = scene.start_workers(3, "-c", "4")
        with Load(scene) as load:
            for worker in workers[:2]:
                load.wait_for(100)
                worker.send_signal(signal.SIGSTOP)
                scene.wait_for(lambda status: len(status["workers"]) == 2)
                load.wait_for(100)
                worker.send_signal(signal.SIGCONT)
                scene.wait_for(lambda status: len(status["workers"]) == 3)
            load.wait_for(100)
        scene.wait_for(lambda status: not status["tasks"]["open"])
        assert set(scene.runs()) == set(load.asked)


class TestHung:
    def test_past_its_run_limit_a_job_on_the_loop_runs_elsewhere(self, scene: Scene, sender: Sender) -> None:
        """Its worker is told to stop it, and goes on."""
        scene.start_manager()
        workers = scene.start_workers(2)
        assert sender.rpc("hang_the_first_time", ["one"], run_limit="200ms") in {w.pid for w in workers}
        first, second = scene.runs()["one"]
        assert first.pid != second.pid
        scene.wait_for(lambda status: [worker["state"] for worker in status["workers"]] == ["available"] * 2)

    @pytest.mark.parametrize("function", ["hang", "hang_in_a_thread"])
    def test_past_its_last_it_is_buried_with_the_reason(
        self, scene: Scene, sender: Sender, function: str
    ) -> None:
        scene.start_manager()
        scene.start_workers(1, "-c", "2")
        with pytest.raises(Buried, match=r"attempt 2, the last of 2: .*limit of 0\.2 s"):
            sender.rpc(function, ["one"], run_limit="200ms", max_attempts=2)

    def test_a_worker_with_nothing_but_hung_threads_exits_1(self, scene: Scene, sender: Sender) -> None:
        scene.start_manager()
        (worker,) = scene.start_workers(1, "-c", "2", target="tests.promises.jobs:soon_hung")
        for number in range(2):
            sender.submit("hang_in_a_thread", [f"hung-{number}"], run_limit="200ms", max_attempts=1)
        assert worker.wait(TIMEOUT) == 1
        assert scene.events(worker, "job_hung")
        scene.wait_for(lambda status: not status["workers"])


class TestDrained:
    def test_workers_come_and_go_under_load_and_nothing_is_lost_or_runs_twice(self, scene: Scene) -> None:
        scene.start_manager()
        workers = scene.start_workers(2, "-c", "4")
        with Load(scene, one_way=4) as load:
            for number in range(2):
                load.wait_for(100)
                workers += scene.start_workers(1, "-c", "4")
                assert scene.terminate(workers[number]) == 0
            load.wait_for(100)
        scene.wait_for_ends(load.asked + load.sent)
        assert not scene.repeated()

    def test_it_ends_when_its_jobs_have(self, scene: Scene, sender: Sender, tmp_path: Path) -> None:
        scene.start_manager()
        (worker,) = scene.start_workers(1, "-c", "2")
        gate = tmp_path / "gate"
        handle = sender.submit("hold", ["held", str(gate)])
        scene.wait_for_start("held")
        worker.send_signal(signal.SIGTERM)
        scene.wait_for(lambda status: [worker["state"] for worker in status["workers"]] == ["draining"])
        sender.submit("echo", ["not-here"], reply=False)
        gate.touch()
        assert handle.result("10s") == worker.pid
        assert worker.wait(TIMEOUT) == 0
        assert "not-here" not in scene.runs()
        (other,) = scene.start_workers(1)
        assert scene.wait_for_start("not-here").pid == other.pid

    def test_told_twice_it_gives_back_what_runs_at_once(self, scene: Scene, sender: Sender) -> None:
        """That is no attempt of the task's: it may still be lost once."""
        scene.start_manager()
        (worker,) = scene.start_workers(1)
        handle = sender.submit("hang_the_first_time", ["one"], max_attempts=1)
        scene.wait_for_start("one")
        (other,) = scene.start_workers(1)
        worker.send_signal(signal.SIGINT)
        scene.wait_for(lambda status: "draining" in [worker["state"] for worker in status["workers"]])
        worker.send_signal(signal.SIGINT)
        assert worker.wait(TIMEOUT) == 1
        assert handle.result("10s") == other.pid

    def test_past_its_drain_timeout_it_gives_back_what_runs(self, scene: Scene, sender: Sender) -> None:
        scene.start_manager()
        (worker,) = scene.start_workers(1, "--drain-timeout", "200ms")
        handle = sender.submit("hang_the_first_time", ["one"], max_attempts=1)
        scene.wait_for_start("one")
        (other,) = scene.start_workers(1)
        scene.terminate(worker)
        assert handle.result("10s") == other.pid

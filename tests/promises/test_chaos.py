"""One fault after the other, in any order, under load."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable

import pytest

from tests.brokers import TIMEOUT
from tests.promises.conftest import MortalDaemon
from tests.promises.scene import Load, Scene

SEEDS = int(os.environ.get("SPREADQ_TEST_CHAOS_SEEDS", "1"))
"""How many orders are tried."""

TIMES = {"lease": 2000.0, "claim_grace": 300.0, "who_wait": 300.0}
"""Of the managers, in milliseconds."""


class Chaos:
    """A daemon, a manager and three workers, and what can happen to them.

    `gentle` faults lose nothing that was accepted; with others, only calls are answered.
    """

    def __init__(self, scene: Scene, daemon: MortalDaemon, seed: int) -> None:
        self._scene = scene
        self._daemon = daemon
        self._chance = random.Random(seed)
        self.victims: set[int] = set()
        """Workers that were killed."""
        self._start_manager()
        self._workers = scene.start_workers(3, "-c", "4")
        self.gentle = [
            self.kill_daemon,
            self.stop_manager,
            self.freeze_manager,
            self.kill_worker,
            self.stop_worker,
            self.kill_daemon_and_worker,
            self.kill_daemon_and_stop_manager,
            self.start_second_manager,
        ]
        self.rough = [
            self.kill_daemon,
            self.freeze_manager,
            self.kill_worker,
            self.kill_manager,
            self.kill_daemon_and_manager,
            self.kill_manager_and_worker,
        ]

    def in_any_order(self, faults: list[Callable[[], None]]) -> list[Callable[[], None]]:
        return self._chance.sample(faults, len(faults))

    # --- faults ---------------------------------------------------------------------------------

    def kill_daemon(self) -> None:
        self._daemon.kill()
        self._daemon.start()

    def stop_manager(self) -> None:
        assert self._scene.terminate(self._manager) == 0
        self._start_manager()

    def kill_manager(self) -> None:
        self._scene.kill(self._manager)
        self._start_manager()

    def freeze_manager(self) -> None:
        self._manager.send_signal(signal.SIGSTOP)
        self._scene.start("--version").wait()  # some tenths of a second
        self._manager.send_signal(signal.SIGCONT)

    def kill_worker(self) -> None:
        self._lose_worker()
        self._start_worker()

    def stop_worker(self) -> None:
        worker = self._a_worker()
        self._start_worker()
        assert self._scene.terminate(worker) == 0

    def kill_daemon_and_worker(self) -> None:
        self._daemon.kill()
        self._lose_worker()
        self._daemon.start()
        self._start_worker()

    def kill_daemon_and_stop_manager(self) -> None:
        self._daemon.kill()
        assert self._scene.terminate(self._manager) == 0
        self._daemon.start()
        self._start_manager()

    def kill_daemon_and_manager(self) -> None:
        self._daemon.kill()
        self._scene.kill(self._manager)
        self._daemon.start()
        self._start_manager()

    def kill_manager_and_worker(self) -> None:
        self._scene.kill(self._manager)
        self._lose_worker()
        self._start_manager()
        self._start_worker()

    def start_second_manager(self) -> None:
        second = self._scene.start_hasty_manager(**TIMES)
        assert second.wait(TIMEOUT) == 4

    # --- who is there ---------------------------------------------------------------------------

    def _start_manager(self) -> None:
        self._manager = self._scene.start_hasty_manager(**TIMES)
        self._scene.wait_for(lambda status: status["manager"]["pid"] == self._manager.pid)

    def _start_worker(self) -> None:
        self._workers += self._scene.start_workers(1, "-c", "4")

    def _a_worker(self) -> subprocess.Popen[bytes]:
        return self._workers.pop(self._chance.randrange(len(self._workers)))

    def _lose_worker(self) -> None:
        worker = self._a_worker()
        self.victims.add(worker.pid)
        self._scene.kill(worker)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_accepted_is_lost(mortal: tuple[Scene, MortalDaemon], seed: int) -> None:
    """While managers stop in an orderly way; and only what a killed worker had begun runs again."""
    scene, daemon = mortal
    chaos = Chaos(scene, daemon, seed)
    with Load(scene, calls=4, one_way=4) as load:
        for fault in chaos.in_any_order(chaos.gentle):
            load.wait_for(60)
            fault()
        load.wait_for(60)
    scene.wait_for_ends(load.asked + load.sent)
    scene.wait_for(lambda status: not status["tasks"]["open"])
    assert not scene.overlaps()
    runs = scene.runs()
    assert {run.pid for label in scene.repeated() for run in runs[label][:-1]} <= chaos.victims


@pytest.mark.parametrize("seed", range(SEEDS))
def test_calls_are_answered_whoever_dies(mortal: tuple[Scene, MortalDaemon], seed: int) -> None:
    scene, daemon = mortal
    chaos = Chaos(scene, daemon, seed)
    with Load(scene) as load:
        for fault in chaos.in_any_order(chaos.rough):
            load.wait_for(60)
            fault()
        load.wait_for(60)
    scene.wait_for(lambda status: not status["tasks"]["open"])
    assert not scene.overlaps()

"""Very many workers, and many senders, at one manager."""

from __future__ import annotations

from typing import Any

from tests.promises.scene import Load, Scene

PROCESSES, WORKERS_OF_EACH = 10, 50
WORKERS = PROCESSES * WORKERS_OF_EACH


def test_500_workers(scene: Scene) -> None:
    """All of them work; when a tenth of them dies at once, nothing is lost and nobody else is."""
    manager = scene.start_manager()
    crowds = [
        scene.start_python("-m", "tests.promises.crowd", scene.queue, scene.address, str(WORKERS_OF_EACH))
        for _ in range(PROCESSES)
    ]

    def present(count: int) -> None:
        def ready(status: dict[str, Any]) -> bool:
            states = [worker["state"] for worker in status["workers"]]
            return len(states) == count and "greeted" not in states

        scene.wait_for(ready)

    present(WORKERS)
    with Load(scene, calls=60, one_way=4, max_attempts=WORKERS_OF_EACH + 1) as load:
        load.wait_for(WORKERS)
        scene.wait_for(lambda status: all(worker["done"] for worker in status["workers"]))
        scene.kill(crowds[0])
        load.wait_for(WORKERS)
    present(WORKERS - WORKERS_OF_EACH)
    scene.wait_for_ends(load.asked + load.sent)
    assert not scene.overlaps()
    assert len(scene.events(manager, "took_over")) == 1
    assert len(scene.events(manager, "worker_lost")) == WORKERS_OF_EACH


def test_50_senders_come_and_go(scene: Scene) -> None:
    """Others are not disturbed, and nothing is kept for them for ever."""
    scene.start_hasty_manager(departed_keep=300)
    scene.start_workers(2, "-c", "8")
    with Load(scene, senders=2) as steady:
        for _ in range(3):
            with Load(scene, senders=50, calls=2, pause=0.0) as load:
                load.wait_for(300)
            steady.wait_for(20)
    scene.wait_for(lambda status: status["senders"] == 0 and not status["tasks"]["open"])
    assert scene.status()["outcome_bytes"] == 0
    assert not scene.repeated()

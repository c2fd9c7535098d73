"""A manager in a program: what it accepts outlives it, and no two manage one queue."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from spreadq import App, AsyncSender, NoManager, Policy, UsageError
from spreadq.manager import QueueManager
from spreadq.state_dir import StateDirectory
from spreadq.status import ask_status
from spreadq_core.ids import MILLISECOND
from tests.brokers import Broker, until
from transports.daemon.server import Daemon

POLICY = Policy(manager_wait=200 * MILLISECOND, outage_wait=5000 * MILLISECOND)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon()
    await daemon.start(port=None, unix_path=str(tmp_path / "socket"))
    yield daemon
    await daemon.stop()


def managers(daemon: Daemon, state: Path, **options: Any) -> dict[str, QueueManager]:
    """One that lives inside of the daemon's process, and one that is connected by a socket."""
    return {
        "inside": QueueManager("q", daemon, state=state, **options),
        "connected": QueueManager("q", daemon.address, state=state, **options),
    }


async def ask(daemon: Daemon) -> dict[str, Any]:
    return await asyncio.to_thread(ask_status, "q", daemon.address)


async def stop(manager: QueueManager) -> int:
    manager.stop()
    return (await manager.wait()).status


@pytest.fixture(params=["inside", "connected"])
def where(request: pytest.FixtureRequest) -> str:
    return request.param


class TestKeeping:
    async def test_what_is_accepted_is_there_after_a_restart(
        self, daemon: Daemon, tmp_path: Path, where: str
    ) -> None:
        first = await managers(daemon, tmp_path)[where].start()
        async with AsyncSender("q", address=daemon.address, policy=POLICY) as sender:
            await sender.send("note", ["one-way", 1])
            handle = await sender.submit("note", ["with reply", 2], priority=5)
            assert await stop(first) == 0
            second = await managers(daemon, tmp_path)[where].start()
            await until(lambda: (tmp_path / "q" / "snapshot").exists() is False)
            status = await ask(daemon)
            assert (status["tasks"]["queued"], status["manager"]["epoch"]) == (2, 2)
            seen = []
            app = App("q", address=daemon.address)

            @app.task
            async def note(what: str, number: int) -> int:
                seen.append(what)
                return number

            async with app.worker():
                assert await handle.result(timeout=5) == 2
                await until(lambda: seen == ["with reply", "one-way"])
        assert await stop(second) == 0

    async def test_a_snapshot_is_read_once(self, daemon: Daemon, tmp_path: Path) -> None:
        first = await QueueManager("q", daemon, state=tmp_path).start()
        await until((tmp_path / "q" / "epoch").exists)
        assert await stop(first) == 0
        assert (tmp_path / "q" / "snapshot").exists()
        second = await QueueManager("q", daemon, state=tmp_path).start()
        await until(lambda: (tmp_path / "q" / "epoch").read_text() == "2\n")
        assert not (tmp_path / "q" / "snapshot").exists()
        await stop(second)

    @pytest.mark.parametrize("image", [b"", b"\xc0", b"\x90", b"nonsense", bytes(100)])
    async def test_an_image_that_is_none_is_set_aside(
        self, daemon: Daemon, tmp_path: Path, image: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        StateDirectory(tmp_path, "q").save(image)
        manager = await QueueManager("q", daemon, state=tmp_path).start()
        assert (tmp_path / "q" / "snapshot.refused-1").exists()
        assert "its image is none" in caplog.text
        assert (await ask(daemon))["tasks"]["accepted"] == 0
        await stop(manager)

    async def test_one_that_never_managed_leaves_the_snapshot_alone(
        self, daemon: Daemon, tmp_path: Path
    ) -> None:
        first = await QueueManager("q", daemon, state=tmp_path).start()
        async with AsyncSender("q", address=daemon.address) as sender:
            await sender.send("f")
        await stop(first)
        other = await QueueManager("q", daemon, state=tmp_path / "elsewhere").start()
        second = await QueueManager("q", daemon, state=tmp_path).start()
        assert (await second.wait()).status == 4
        assert (tmp_path / "q" / "snapshot").exists()
        await stop(other)
        third = await QueueManager("q", daemon, state=tmp_path).start()
        await until(lambda: not (tmp_path / "q" / "snapshot").exists())
        assert (await ask(daemon))["tasks"]["queued"] == 1
        await stop(third)

    async def test_the_epoch_grows_with_each_of_them(self, daemon: Daemon, tmp_path: Path) -> None:
        for epoch in (1, 2, 3):
            manager = await QueueManager("q", daemon, state=tmp_path).start()
            assert (await ask(daemon))["manager"]["epoch"] == epoch
            assert (tmp_path / "q" / "epoch").read_text() == f"{epoch}\n"
            await stop(manager)


class TestTwoOfThem:
    async def test_the_second_one_ends_and_says_who_is_there(
        self, daemon: Daemon, tmp_path: Path, where: str
    ) -> None:
        first = await QueueManager("q", daemon, state=tmp_path / "1", name="the first").start()
        second = await managers(daemon, tmp_path / "2")[where].start()
        end = await second.wait()
        assert end.status == 4
        assert end.reason.startswith(f"queue q is managed by the first (process {os.getpid()} on ")
        assert end.reason.endswith("already; stop that one first")
        assert (await ask(daemon))["manager"]["name"] == "the first"
        await stop(first)

    async def test_queues_do_not_disturb_each_other(self, daemon: Daemon, tmp_path: Path) -> None:
        running = [await QueueManager(queue, daemon, state=tmp_path).start() for queue in ("q", "Q", "q2")]
        async with AsyncSender("Q", address=daemon.address) as sender:
            await sender.send("f")
        assert (await ask(daemon))["tasks"]["accepted"] == 0
        assert [await stop(manager) for manager in running] == [0, 0, 0]


class TestLife:
    async def test_it_can_be_stopped_before_it_manages(self, daemon: Daemon, tmp_path: Path) -> None:
        manager = QueueManager("q", daemon, state=tmp_path)
        manager.stop()
        await manager.start()
        assert await stop(manager) == 0

    async def test_stopping_it_twice_is_stopping_it(self, daemon: Daemon, tmp_path: Path) -> None:
        manager = await QueueManager("q", daemon, state=tmp_path).start()
        manager.stop()
        assert await stop(manager) == 0

    async def test_when_it_is_gone_nobody_manages(self, daemon: Daemon, tmp_path: Path) -> None:
        manager = await QueueManager("q", daemon, state=tmp_path).start()
        await ask(daemon)
        await stop(manager)
        with pytest.raises(NoManager, match="start `sqm q` or `spreadq serve q`"):
            await ask(daemon)

    @pytest.mark.parametrize("queue", ["", "q" * 29, "a b", "ä", "q/\n"])
    def test_illegal_names_are_refused_before_anything_is_made(
        self, broker: Broker, tmp_path: Path, queue: str
    ) -> None:
        async def start() -> None:
            await QueueManager(queue, broker.daemon, state=tmp_path).start()

        with pytest.raises(UsageError, match="queue"):
            broker.run(start())
        assert not list(tmp_path.iterdir())


async def test_it_says_what_happens_in_the_log(
    daemon: Daemon, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="spreadq")
    manager = await QueueManager("q", daemon, state=tmp_path).start()
    await ask(daemon)
    app = App("q", address=daemon.address)
    app.task(name="f")(print)
    async with app.worker(name="w"):
        await until(lambda: "worker_entered" in caplog.text)
    await stop(manager)
    text = caplog.text
    assert (
        text.index("took_over queue=q epoch=1") < text.index("worker_entered") < text.index("0 tasks kept in")
    )

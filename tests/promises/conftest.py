"""Scenes at a daemon that all tests share, and at one of their own that may be killed."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import unmanaged_queue
from tests.promises.scene import Scene

__all__ = ["unmanaged_queue"]

REAL_DAEMON = os.environ.get("SPREADQ_TEST_DAEMON", "")
"""Address of a real Spread daemon, such as `4803@127.0.0.1`; empty: there is none."""

REAL_DAEMON_COMMAND = shlex.split(os.environ.get("SPREADQ_TEST_DAEMON_COMMAND", ""))
"""What starts a real Spread daemon in the foreground, with a port as its argument; empty: there is none."""


@pytest.fixture(scope="session")
def embedded_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded daemon in a process of its own."""
    with Scene("nobody", tmp_path_factory.mktemp("daemon")) as scene:
        scene.start_daemon()
        yield scene.address


@pytest.fixture(params=["embedded", *(["real"] if REAL_DAEMON else [])])
def daemon_address(request: pytest.FixtureRequest) -> str:
    """Address of a daemon that is not to be disturbed."""
    return REAL_DAEMON if request.param == "real" else request.getfixturevalue("embedded_daemon")


@pytest.fixture
def scene(daemon_address: str, unmanaged_queue: str, tmp_path: Path) -> Iterator[Scene]:
    """No programs yet, at a daemon that all share. At the end none of them has complained of a defect."""
    with Scene(unmanaged_queue, tmp_path, daemon_address) as scene:
        yield scene
    assert not scene.defects


@pytest.fixture
def own_scene(unmanaged_queue: str, tmp_path: Path) -> Iterator[Scene]:
    """No programs yet, not even a daemon."""
    with Scene(unmanaged_queue, tmp_path) as scene:
        yield scene
    assert not scene.defects


class MortalDaemon:
    """A daemon that is killed and started again at the same address."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def start(self) -> None:
        """Start it, and wait until clients can connect."""
        self._program = self._scene.start_daemon()

    def kill(self) -> None:
        """`kill -9`."""
        self._program.kill()
        self._program.wait()


class RealMortalDaemon(MortalDaemon):
    def __init__(self, scene: Scene, port: int) -> None:
        super().__init__(scene)
        self._port = port

    def start(self) -> None:
        # A session of its own: the command may be a script with the daemon as its child.
        self._program = subprocess.Popen(
            [*REAL_DAEMON_COMMAND, str(self._port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._scene.wait_for_daemon()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._program.pid, signal.SIGKILL)
        self._program.wait()


@pytest.fixture(params=["embedded", *(["real"] if REAL_DAEMON_COMMAND else [])])
def mortal(
    request: pytest.FixtureRequest, unmanaged_queue: str, tmp_path: Path
) -> Iterator[tuple[Scene, MortalDaemon]]:
    """A scene at a daemon of its own, which runs, and may be killed."""
    if request.param == "real":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        scene = Scene(unmanaged_queue, tmp_path, f"{port}@127.0.0.1")
        daemon: MortalDaemon = RealMortalDaemon(scene, port)
    else:
        scene = Scene(unmanaged_queue, tmp_path)
        daemon = MortalDaemon(scene)
    with scene:
        try:
            daemon.start()
            yield scene, daemon
        finally:
            daemon.kill()
    assert not scene.defects

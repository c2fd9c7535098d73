"""Daemon, manager and workers as processes: what the demo, the benchmarks and tests stand on."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from spreadq import Sender
from spreadq.programs import cluster as cluster_module
from spreadq.programs.cluster import Cluster
from spreadq.status import ask_status
from spreadq_core.errors import SpreadqError
from tests.brokers import TIMEOUT, Broker
from tests.programs.conftest import TASKS, environment


def is_over(program: subprocess.Popen[bytes]) -> bool:
    return program.poll() is not None


@pytest.mark.parametrize("serve", [True, False])
def test_its_programs_serve_a_queue_and_end_with_it(tmp_path: Path, serve: bool) -> None:
    with Cluster("cluster", tmp_path, environment=environment()) as cluster:
        programs = [cluster.start_serve()] if serve else [cluster.start_daemon(), cluster.start_manager()]
        programs += [cluster.start_worker(TASKS, f"bee-{number}", "-c", "2") for number in range(2)]
        cluster.wait_for_workers(2)
        workers = ask_status("cluster", cluster.address)["workers"]
        assert {(worker["name"], worker["capacity"]) for worker in workers} == {("bee-0", 2), ("bee-1", 2)}
        with Sender("cluster", address=cluster.address) as sender:
            assert sender.rpc("add", [1, 2], timeout=TIMEOUT) == 3
        assert not any(map(is_over, programs))
    assert [program.returncode for program in programs] == [0] * len(programs)
    assert (tmp_path / "state" / "cluster" / "snapshot").exists()


def test_at_a_daemon_that_is_there(tmp_path: Path, broker: Broker, unmanaged_queue: str) -> None:
    with Cluster(unmanaged_queue, tmp_path, spread=broker.address) as cluster:
        assert not cluster.embedded
        manager = cluster.start_manager()
        cluster.wait_for_workers(0)
        assert broker.status(unmanaged_queue)["manager"]["pid"] == manager.pid


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_programs_that_are_frozen_or_dead_end_too(tmp_path: Path, number: signal.Signals) -> None:
    with Cluster("cluster", tmp_path) as cluster:
        program = cluster.start_daemon()
        program.send_signal(number)
    assert program.returncode == (0 if number is signal.SIGSTOP else -signal.SIGKILL)


def test_one_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "STOP_TIMEOUT", 0.1)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    with Cluster("cluster", tmp_path) as cluster:
        program = cluster.start_python("-c", deaf)
        while "deaf" not in cluster.last_words():
            assert not is_over(program)
    assert program.returncode == -signal.SIGKILL


def test_what_does_not_get_ready_in_time_is_an_error_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "START_TIMEOUT", 0.1)
    with Cluster("cluster", tmp_path) as cluster:
        assert cluster.last_words() == "(they say nothing)"
        cluster.start_python("-c", "print('one'); print('sorry')").wait()
        with pytest.raises(SpreadqError, match=r"not ready after 0\.1 s; last words: sorry"):
            cluster.wait_for_daemon()
        with pytest.raises(SpreadqError, match="not ready"):
            cluster.wait_for_workers(1, timeout=0.1)

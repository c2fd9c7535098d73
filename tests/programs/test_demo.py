"""`spreadq demo`: real work, one worker killed in a job, nothing lost; recounted here."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spreadq.programs.cluster import Cluster
from spreadq.programs.demo import Outcome, demo, standard_library, text_files
from tests.brokers import Broker, wait_until
from tests.programs.conftest import NOWHERE, Ended, Spreadq, Start, assert_unreachable

FILES = 40

KEYS = {
    "tasks",
    "seconds",
    "tasks_per_s",
    "latency_ms",
    "killed",
    "reassign_ms",
    "lost",
    "duplicate_runs",
    "matches_reference",
}
"""Which programs rely on."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Some text files, of which one has an odd name."""
    directory = tmp_path / "texts"
    directory.mkdir()
    for number in range(FILES - 1):
        (directory / f"file {number:02}").write_text(f"common word{number}\n" * number)
    Path(os.fsdecode(os.fsencode(directory) + b"/odd \xff")).write_text("common\n")
    return directory


def recount(executions: Path) -> tuple[list[tuple[bytes, ...]], list[tuple[bytes, ...]]]:
    """Starts and ends, each with task, process and path."""
    starts, ends = [], []
    for line in executions.read_bytes().splitlines():
        what, task, pid, at, path = line.split(b" ", 4)
        assert float(at) > 1e9
        {b"start": starts, b"end": ends}[what].append((task, pid, path))
    return starts, ends


def assert_killed_once(starts: list[tuple[bytes, ...]], ends: list[tuple[bytes, ...]], files: int) -> None:
    """Each file was counted once, and one of them was begun by a worker that did not come to its end."""
    assert Counter(task for task, _, _ in ends) == Counter({task: 1 for task, _, _ in starts})
    assert len({path for _, _, path in ends}) == len(ends) == files
    (interrupted,) = set(starts) - set(ends)
    assert Counter(task for task, _, _ in starts)[interrupted[0]] == 2
    assert not any(pid == interrupted[1] for _, pid, _ in starts[starts.index(interrupted) + 1 :])


@pytest.mark.parametrize("real", [False, True], ids=["embedded", "spread"])
def test_it_counts_and_anybody_can_recount(
    start: Start, broker: Broker, directory: Path, tmp_path: Path, real: bool
) -> None:
    spread = ["--spread", broker.address] if real else []
    executions = tmp_path / "executions"
    ended = start("demo", str(directory), "--json", "--executions", str(executions), *spread).end()
    assert (ended.status, ended.errors) == (0, "")
    document = json.loads(ended.output)
    assert document.keys() >= KEYS
    assert (document["tasks"], document["killed"], document["lost"]) == (FILES, 1, 0)
    assert (document["duplicate_runs"], document["matches_reference"]) == (0, True)
    assert document["lines"] == sum(range(FILES - 1)) + 1
    assert document["words"] == 2 * sum(range(FILES - 1)) + 1
    assert document["commonest"][0] == "common"
    assert document["tasks_per_s"] == pytest.approx(FILES / document["seconds"], rel=0.05)
    assert 0 < document["latency_ms"]["p50"] <= document["latency_ms"]["p99"]
    assert 0 < document["reassign_ms"]["p50"] == document["reassign_ms"]["max"] < 5000
    assert_killed_once(*recount(executions), FILES)


def test_one_file_and_two_workers_are_enough(start: Start, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "two\nlines").write_text("one\n")
    executions = tmp_path / "executions"
    executions.write_text("what somebody else wrote\n\nstart a b c d\n")
    ended = start("demo", str(tmp_path / "texts"), "--workers", "2", "--executions", str(executions)).end()
    assert (ended.status, ended.errors) == (0, "")
    assert executions.read_text().count("end ") == 1
    said = ended.output.replace("\n", " ")
    assert "1 files counted: 1 lines, 1 words; commonest identifiers: one" in said
    assert "1 worker killed in a job: its job ran elsewhere after " in said
    assert "lost = 0; tasks that finished twice = 0" in said
    assert "the results are those of a plain loop over the same files" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_leaves_no_process_behind(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    program = start("demo", "--executions", str(tmp_path / "executions"), TMPDIR=str(tmp_path))
    wait_until(lambda: (tmp_path / "executions").exists() and (tmp_path / "executions").read_bytes())
    ended = program.stop(number)
    assert ended == (128 + signal.SIGINT, "", "")
    workers = {int(pid) for _, pid, _ in recount(tmp_path / "executions")[0]}
    assert workers
    assert not any(map(is_running, workers))
    assert not list(tmp_path.glob("spreadq-demo-*"))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["missing"], "missing is no directory"),
            (["empty"], "there are no text files in empty"),
            (["file"], "file is no directory"),
            ([".", "--workers", "1"], "at least 2 workers"),
            ([".", "--workers", "some"], "some"),
            ([".", "--executions", "missing/file"], "missing/file cannot be written: No such file"),
            ([".", "--executions", "empty"], "empty cannot be written: Is a directory"),
            ([".", "--spread", "nowhere"], "write 4803@host"),
            ([".", "."], "."),
        ],
    )
    def test_what_is_not_possible(
        self,
        spreadq: Spreadq,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: list[str],
        message: str,
    ) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_text("text")
        monkeypatch.chdir(tmp_path)
        ended: Ended = spreadq("demo", *arguments)
        assert (ended.status, ended.output) == (2, "")
        assert message in ended.errors

    def test_no_daemon(self, spreadq: Spreadq, directory: Path) -> None:
        assert_unreachable(spreadq("demo", str(directory), "--json", "--spread", NOWHERE))


class TestFiles:
    def test_text_files_are_found_in_order(self, tmp_path: Path) -> None:
        for name in ("b/x.txt", "a.py", "b/a", "empty", "__pycache__/a.py", ".git/config", "c/__pycache__/d"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "binary").write_bytes(b"\x7fELF\0")
        (tmp_path / "link").symlink_to("a.py")
        (tmp_path / "broken").symlink_to("nothing")
        (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
        os.mkfifo(tmp_path / "pipe")
        found = [str(Path(path).relative_to(tmp_path)) for path in text_files(tmp_path)]
        assert found == ["a.py", "empty", "b/a", "b/x.txt"]

    def test_by_default_they_are_the_standard_librarys_own(self) -> None:
        files = standard_library()
        assert os.__file__ in files
        assert len(files) > 500
        assert not any("site-packages" in path for path in files)


class TestOutcome:
    def outcome(self, **changed: Any) -> Outcome:
        values: dict[str, Any] = {
            "tasks": 4,
            "seconds": 2.0,
            "latencies_ms": [4.0, 1.0, 3.0, 2.0],
            "killed": 1,
            "reassign_ms": [1.5],
            "lost": 0,
            "duplicate_runs": 0,
            "matches_reference": True,
            "lines": 10,
            "words": 20,
            "commonest": [("a", 2)],
        }
        return Outcome(**{**values, **changed})

    def test_its_document(self) -> None:
        document = self.outcome().document()
        assert document["tasks_per_s"] == 2.0
        assert document["latency_ms"] == {"p50": 3.0, "p99": 4.0}
        assert document["reassign_ms"] == {"p50": 1.5, "max": 1.5}
        assert document["commonest"] == ["a"]

    def test_what_was_not_measured_is_null(self) -> None:
        document = json.loads(json.dumps(self.outcome(latencies_ms=[], reassign_ms=[], killed=0).document()))
        assert document["latency_ms"] == {"p50": None, "p99": None}
        assert document["reassign_ms"] == {"p50": None, "max": None}

    @pytest.mark.parametrize(
        ("changed", "status", "said"),
        [
            ({}, 0, "the results are those of a plain loop"),
            ({"matches_reference": False}, 1, "the results differ from those of a plain loop"),
            ({"lost": 1}, 1, "lost = 1"),
            ({"duplicate_runs": 2}, 0, "tasks that finished twice = 2"),
            ({"reassign_ms": []}, 0, "its job was not started again"),
        ],
    )
    def test_results_that_differ_or_are_lost_fail(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        directory: Path,
        changed: dict[str, Any],
        status: int,
        said: str,
    ) -> None:
        monkeypatch.setattr("spreadq.programs.demo.run", lambda coroutine: coroutine.close())
        monkeypatch.setattr("spreadq.programs.demo._evaluate", lambda *_: self.outcome(**changed))
        for name in ("start_daemon", "start_manager", "start_worker", "wait_for_workers"):
            monkeypatch.setattr(Cluster, name, lambda *_: None)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        assert demo(directory) == status
        assert said in capsys.readouterr().out

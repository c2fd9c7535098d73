"""What the demo's workers do: read a file, and count."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from spreadq.programs.demo_tasks import COMMONEST, EXECUTIONS_VARIABLE, FileCounts, count_file, count_text
from tests.brokers import wait_until


@pytest.mark.parametrize(
    ("content", "lines", "words", "identifiers"),
    [
        (b"", 0, 0, []),
        (b"one", 0, 1, [("one", 1)]),
        (b"b a b\n\nc = 1a2 _d\n", 3, 7, [("b", 2), ("_d", 1), ("a", 1), ("a2", 1), ("c", 1)]),
        ("größe \ud7ff\n".encode() + b"\xff\n", 2, 3, [("größe", 1)]),
    ],
)
def test_lines_words_and_identifiers_are_counted(
    tmp_path: Path, content: bytes, lines: int, words: int, identifiers: list[tuple[str, int]]
) -> None:
    (tmp_path / "file").write_bytes(content)
    assert count_text(tmp_path / "file") == FileCounts(lines, words, identifiers)


def test_only_the_commonest_identifiers_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(" ".join(f"rare{number}" for number in range(COMMONEST)) + " often often")
    identifiers = count_text(tmp_path / "file").identifiers
    assert len(identifiers) == COMMONEST
    assert identifiers[0] == ("often", 2)


class TestCountFile:
    @pytest.fixture(autouse=True)
    def executions(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
        monkeypatch.setenv(EXECUTIONS_VARIABLE, str(tmp_path / "executions"))
        return tmp_path / "executions"

    def test_it_leaves_a_line_at_its_start_and_one_at_its_end(self, executions: Path, tmp_path: Path) -> None:
        path = os.fsencode(tmp_path) + b"/a b \xff"
        Path(os.fsdecode(path)).write_text("one two")
        assert count_file(path).words == 2
        start, end = executions.read_bytes().splitlines()
        for line, what in ((start, b"start"), (end, b"end")):
            fields = line.split(b" ", 4)
            assert [fields[0], fields[1], fields[2], fields[4]] == [what, b"None", b"%d" % os.getpid(), path]
        assert float(start.split()[3]) <= float(end.split()[3])

    def test_it_waits_at_its_gate(self, executions: Path, tmp_path: Path) -> None:
        gate = tmp_path / "gate"
        job = threading.Thread(target=count_file, args=[os.fsencode(__file__), str(gate)])
        job.start()
        wait_until(lambda: executions.exists() and executions.read_text())
        assert "end" not in executions.read_text().split()
        gate.touch()
        job.join()
        assert "end" in executions.read_text().split()

    def test_a_file_that_is_gone_is_an_error(self, executions: Path, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            count_file(os.fsencode(tmp_path / "gone"))
        assert executions.read_text().count("\n") == 1

    def test_nobody_need_ask_for_traces(self, monkeypatch: pytest.MonkeyPatch, executions: Path) -> None:
        monkeypatch.delenv(EXECUTIONS_VARIABLE)
        count_file(os.fsencode(__file__))
        assert not executions.exists()

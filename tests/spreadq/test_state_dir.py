"""What managers keep on disk: whole and theirs, or set aside by name."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from spreadq import UsageError
from spreadq.state_dir import StateDirectory, default_directory
from spreadq_core.policy import EPOCH_LIMIT

IMAGE = b"image\nof\0the queue"


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path, "q")


@pytest.mark.parametrize(
    "address", ["4803", "4803@127.0.0.1", "spread://localhost:4803", "unix:/tmp/4803", "4803@localhost"]
)
def test_a_daemon_of_this_machine_has_one_directory_however_it_is_written(address: str) -> None:
    assert default_directory(address).name == "4803@localhost"


@pytest.mark.parametrize(("queue", "name"), [(".", "%2e"), ("..", "%2e."), (".q", "%2eq"), ("a.b", "a.b")])
def test_no_queue_leaves_its_directory(tmp_path: Path, queue: str, name: str) -> None:
    assert StateDirectory(tmp_path, queue).path == tmp_path / name


class TestSnapshot:
    def test_it_comes_back_as_it_was(self, state: StateDirectory, tmp_path: Path) -> None:
        assert state.load() is None
        path = state.save(IMAGE)
        assert path == tmp_path / "q" / "snapshot"
        assert StateDirectory(tmp_path, "q").load() == IMAGE
        state.save(b"")
        assert state.load() == b""

    def test_it_is_dropped_when_it_is_not_so_any_more(self, state: StateDirectory) -> None:
        state.save(IMAGE)
        state.drop()
        state.drop()
        assert state.load() is None

    def test_its_first_line_tells_people_what_it_is(self, state: StateDirectory) -> None:
        header = json.loads(state.save(IMAGE).read_bytes().split(b"\n")[0])
        assert (header["spreadq_snapshot"], header["queue"], header["bytes"]) == (1, "q", len(IMAGE))

    def test_only_its_user_can_read_it(self, state: StateDirectory) -> None:
        assert stat.S_IMODE(state.save(IMAGE).stat().st_mode) == 0o600
        assert stat.S_IMODE(state.path.stat().st_mode) == 0o700

    def test_nothing_is_left_beside_it(self, state: StateDirectory) -> None:
        (state.path / "snapshot.new").write_bytes(b"of a manager that was killed while it wrote")
        state.save(IMAGE)
        assert os.listdir(state.path) == ["snapshot"]

    def test_every_torn_one_is_refused_and_set_aside(
        self, state: StateDirectory, caplog: pytest.LogCaptureFixture
    ) -> None:
        content = state.save(IMAGE).read_bytes()
        for size in range(len(content)):
            (state.path / "snapshot").write_bytes(content[:size])
            assert state.load() is None
        assert not (state.path / "snapshot").exists()
        kept = sorted(state.path.iterdir(), key=lambda path: len(path.read_bytes()))
        assert [len(path.read_bytes()) for path in kept] == [*range(len(content))]
        assert all(path.name.startswith("snapshot.refused-") for path in kept)
        records = caplog.records
        assert all(record.levelno == logging.ERROR for record in records)
        assert f"{state.path}/snapshot is refused: it is torn or damaged" in records[-1].getMessage()
        assert f"snapshot.refused-{len(content)}; nothing of it was read" in records[-1].getMessage()

    @pytest.mark.parametrize("position", [1, 20, 60, 100, -1])
    def test_a_damaged_one_is_refused(self, state: StateDirectory, position: int) -> None:
        path = state.save(IMAGE)
        content = bytearray(path.read_bytes())
        content[position] ^= 0x01
        path.write_bytes(content)
        assert state.load() is None
        assert (state.path / "snapshot.refused-1").read_bytes() == content

    def test_one_of_another_queue_is_refused(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        other = StateDirectory(tmp_path, "other").save(IMAGE)
        mine = StateDirectory(tmp_path, "mine")
        other.rename(mine.path / "snapshot")
        assert mine.load() is None
        assert "it is of queue 'other'" in caplog.text

    def test_one_of_another_format_is_refused(
        self, state: StateDirectory, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = state.save(IMAGE)
        path.write_bytes(path.read_bytes().replace(b'"spreadq_snapshot":1', b'"spreadq_snapshot":2'))
        assert state.load() is None
        assert "its format is 2, not 1" in caplog.text

    @pytest.mark.parametrize(
        "content", [b"", b"\n", b"hello", b"{}\n", b"[1]\n", b"x" * 10_000, b"\xff" * 50]
    )
    def test_anything_else_is_refused(
        self, state: StateDirectory, content: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        (state.path / "snapshot").write_bytes(content)
        assert state.load() is None
        assert "it does not begin as a snapshot does" in caplog.text


class TestEpoch:
    def test_it_comes_back(self, state: StateDirectory, tmp_path: Path) -> None:
        assert state.epoch() == 0
        for epoch in (1, 2, EPOCH_LIMIT):
            state.keep_epoch(epoch)
            assert StateDirectory(tmp_path, "q").epoch() == epoch

    @pytest.mark.parametrize("content", [b"", b"x", b"-1", b"1.5", b"9" * 30, b"1" * 40, b"\xff\xfe"])
    def test_what_is_none_is_set_aside(
        self, state: StateDirectory, content: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        (state.path / "epoch").write_bytes(content)
        assert state.epoch() == 0
        assert "it holds no epoch" in caplog.text
        assert (state.path / "epoch.refused-1").read_bytes() == content
        state.keep_epoch(3)
        assert state.epoch() == 3


class TestDirectory:
    def test_each_queue_has_its_own_whatever_its_name(self, tmp_path: Path) -> None:
        names = ["q", "Q", "a/b", "a%2fb", "..", "a*", "-rf", "~", "$HOME", "a.b", "q" * 28]
        states = [StateDirectory(tmp_path, name) for name in names]
        for state in states:
            state.save(state.queue.encode())
        assert [state.load() for state in states] == [name.encode() for name in names]
        assert {state.path.parent for state in states} == {tmp_path}

    def test_it_is_made_with_all_its_parents(self, tmp_path: Path) -> None:
        assert StateDirectory(tmp_path / "a" / "b", "q").path.is_dir()

    def test_one_that_cannot_be_made_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match=r"the state directory .*/file/q cannot be made"):
            StateDirectory(tmp_path / "file", "q")

    def test_one_that_cannot_be_written_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)  # for root, everything can be written
        with pytest.raises(UsageError, match="cannot be written; name another by --state"):
            StateDirectory(tmp_path, "q")

    def test_without_one_it_is_the_users_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/state")
        assert default_directory("4803@localhost") == Path("/state/spreadq/4803@localhost")
        assert default_directory("unix:/run/a b/socket") == Path("/state/spreadq/unix_run_a_b_socket")
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setenv("HOME", "/home/somebody")
        assert default_directory("4803") == Path("/home/somebody/.local/state/spreadq/4803@localhost")

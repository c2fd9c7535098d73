"""What a manager keeps on disk between its lives: the epoch, and at an orderly end a snapshot.

A snapshot is one line of JSON (format, queue, size and digest of what follows) and an image of the
task queue. It is written beside, made durable, and renamed; whatever is not whole, or another
queue's, is set aside under another name and never read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
from pathlib import Path

import msgspec

from spreadq_core.errors import UsageError
from spreadq_core.policy import EPOCH_LIMIT
from transports.spread.address import SOCKET_DIRECTORY, TcpAddress, UnixAddress, parse_address

logger = logging.getLogger("spreadq")

FORMAT = 1

HEADER_LIMIT = 4096
"""Bytes of the first line."""


class _Header(msgspec.Struct):
    spreadq_snapshot: int
    queue: str
    bytes: int
    digest: str


def default_directory(address: str) -> Path:
    """Where managers at this daemon keep their state, in the user's own state directory.

    However the address of a daemon on this machine is written, it is the same place.

    Raises:
        IllegalAddressError: the address has none of the known forms.
    """
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    daemon = parse_address(address)
    if isinstance(daemon, UnixAddress):
        directory, port = os.path.split(daemon.path)
        if directory == SOCKET_DIRECTORY and port.isdecimal():
            daemon = TcpAddress("localhost", int(port))
    if isinstance(daemon, TcpAddress) and daemon.host in ("127.0.0.1", socket.gethostname()):
        daemon = TcpAddress("localhost", daemon.port)
    return Path(base) / "spreadq" / re.sub(r"[^A-Za-z0-9.@-]+", "_", str(daemon))


class StateDirectory:
    """The state of one queue.

    Args:
        parent: holds a directory for each queue; made if it is missing, for this user only.
        queue: the queue's name.

    Raises:
        UsageError: it cannot be made or written.
    """

    def __init__(self, parent: Path, queue: str) -> None:
        self.queue = queue
        # A dot in front is no letter: `.` and `..` are names of queues, too.
        self.path = parent / re.sub(r"^\.|[^A-Za-z0-9_.-]", lambda match: f"%{ord(match[0]):02x}", queue)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the state directory {self.path} cannot be made: {error}") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise UsageError(f"the state directory {self.path} cannot be written; name another by --state")
        self._snapshot = self.path / "snapshot"
        self._epoch = self.path / "epoch"

    def epoch(self) -> int:
        """The epoch that was kept last, 0 for none."""
        try:
            epoch = int(self._epoch.read_bytes()[:32])
        except FileNotFoundError:
            return 0
        except ValueError:
            epoch = -1
        if not 0 <= epoch <= EPOCH_LIMIT:
            self._set_aside(self._epoch, "it holds no epoch")
            return 0
        return epoch

    def keep_epoch(self, epoch: int) -> None:
        """Make an epoch durable."""
        self._write(self._epoch, b"%d\n" % epoch)

    def load(self) -> bytes | None:
        """The image in the snapshot, if there is a good one."""
        try:
            content = self._snapshot.read_bytes()
        except FileNotFoundError:
            return None
        line, _, image = content.partition(b"\n")
        try:
            header = msgspec.json.decode(line[:HEADER_LIMIT], type=_Header)
        except msgspec.MsgspecError:
            fault = "it does not begin as a snapshot does"
        else:
            fault = self._fault(header, image)
        if fault:
            self.refuse(fault)
            return None
        return image

    def _fault(self, header: _Header, image: bytes) -> str:
        if header.spreadq_snapshot != FORMAT:
            return f"its format is {header.spreadq_snapshot}, not {FORMAT}"
        if header.queue != self.queue:
            return f"it is of queue {header.queue!r}"
        if header.bytes != len(image) or header.digest != _digest(image):
            return f"it is torn or damaged: {len(image)} of {header.bytes} bytes"
        return ""

    def save(self, image: bytes, name: str = "snapshot") -> Path:
        """Write a snapshot."""
        header = _Header(FORMAT, self.queue, len(image), _digest(image))
        path = self.path / name
        self._write(path, msgspec.json.encode(header) + b"\n" + image)
        return path

    def drop(self) -> None:
        """What the snapshot says is not so any more."""
        self._snapshot.unlink(missing_ok=True)

    def refuse(self, reason: str) -> None:
        """Set the snapshot aside."""
        self._set_aside(self._snapshot, reason)

    def _set_aside(self, path: Path, reason: str) -> None:
        number = 1
        while (aside := path.with_name(f"{path.name}.refused-{number}")).exists():
            number += 1
        path.rename(aside)
        logger.error("%s is refused: %s. It is now %s; nothing of it was read", path, reason, aside.name)

    def _write(self, path: Path, content: bytes) -> None:
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        directory = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _digest(image: bytes) -> str:
    return hashlib.blake2b(image, digest_size=16).hexdigest()

"""Somebody at the same daemon says what nobody should, to every group and mailbox of a queue under load."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import msgspec
import pytest

from spreadq import Sender
from spreadq_core.codec import FAMILY, KIND, VERSION, decode, encode
from spreadq_core.effects import Service
from spreadq_core.events import Received, ViewChanged
from spreadq_core.ids import QueueGroups
from spreadq_core.messages import (
    About,
    Assign,
    Cancel,
    Claim,
    Closed,
    Frame,
    HandBack,
    JobOver,
    Outcome,
    Ready,
    Response,
    SenderHello,
    Status,
    StatusRequest,
    Submit,
    TookOver,
    Welcome,
    WorkerHello,
)
from spreadq_core.policy import EPOCH_LIMIT
from tests.brokers import TIMEOUT, wait_until
from tests.promises.scene import Load, Scene
from transports.base import GROUP_COST, MESSAGE_LIMIT
from transports.spread.blocking_client import BlockingSpread

BATCH = 20
"""Messages that are sent before looking at what came in: a daemon cuts off who does not read."""

HEARD = 2000
"""Messages of others that are remembered."""

Body = tuple[int, bytes]
"""What is sent: `mess_type` and body."""


class Intruder(contextlib.AbstractContextManager["Intruder"]):
    """Hears everything that is said in a queue, knows every mailbox, and says anything.

    Args:
        scene: whose queue.
        seen: also a member of the groups of presence, as if it were a worker, a sender and a manager.
    """

    def __init__(self, scene: Scene, *, seen: bool) -> None:
        groups = QueueGroups.of(scene.queue)
        self.presence = (groups.workers, groups.senders, groups.managers)
        self.groups = (groups.submit, groups.work, groups.control, *self.presence)
        self.mailboxes: dict[str, tuple[str, ...]] = {}
        """By group of presence."""
        self.heard: list[Received] = []
        self.said = 0
        self._seen = seen
        self._client = BlockingSpread(scene.address, membership=True)
        self._client.connect()

    def look_around(self) -> None:
        """Join, until there is something to hear, and at least one of each role."""
        for group in self.groups:
            self._client.join(group)
        self._client.flush()
        wait_until(
            lambda: self.listen() or (len(self.heard) > 200 and len(self.mailboxes) == len(self.groups))
        )
        if not self._seen:
            for group in self.presence:
                self._client.leave(group)

    def listen(self) -> None:
        """Take in what came."""
        while events := self._client.receive(0):
            for event in events:
                if isinstance(event, Received):
                    if event.sender != self._client.session and len(self.heard) < HEARD:
                        self.heard.append(event)
                elif isinstance(event, ViewChanged) and event.members:
                    others = tuple(member for member in event.members if member != self._client.session)
                    self.mailboxes[event.group] = others

    @property
    def targets(self) -> list[str]:
        """All groups and mailboxes."""
        return [*self.groups, *(mailbox for members in self.mailboxes.values() for mailbox in members)]

    def say(self, bodies: list[Body], targets: list[str] | None = None) -> None:
        """Say all of this to each of them."""
        for target in targets or self.targets:
            for kind, body in bodies:
                self._client.send((target,), Service.AGREED, kind, body)
                self.said += 1
                if self.said % BATCH == 0:
                    self._client.flush()
                    self.listen()
        self._client.flush()
        self.listen()

    def frame(
        self, target: int = 0, link: int = 0, number: int = 0, epoch: int = 0, *messages: object
    ) -> Body:
        """A frame that is well-formed."""
        queue = self.groups[0].removeprefix("MQ_")
        body = encode(Frame(queue, 0xBAD, target, link, number, 0, epoch, 0, list(messages)))  # type: ignore[arg-type]
        return KIND, body

    def __exit__(self, *_: object) -> None:
        self._client.close()


def not_frames(intruder: Intruder, chance: random.Random) -> list[Body]:
    """Bytes of all kinds that are no frame."""
    deep = b"\x91" * 5000 + b"\xc0"
    huge = b"\xdd\xff\xff\xff\xff"
    return [
        (KIND, b""),
        (KIND, b"\x00"),
        (KIND, deep),
        (KIND, huge),
        (KIND, b"\x99" + huge * 9),
        (0, b"not Perl either"),
        (-1, b"\xff" * 100),
        *((KIND, chance.randbytes(chance.randrange(1, 300))) for _ in range(30)),
        *((chance.randrange(-0x8000, 0x8000), chance.randbytes(40)) for _ in range(10)),
    ]


def torn_frames(intruder: Intruder, chance: random.Random) -> list[Body]:
    """Pieces of what others said, and such with something behind them."""
    bodies = [heard.body for heard in chance.sample(intruder.heard, 10)]
    pieces = [body[: chance.randrange(len(body))] for body in bodies for _ in range(3)]
    return [(KIND, piece) for piece in pieces] + [(KIND, body + b"\x00") for body in bodies]


def frames_of_another_version(intruder: Intruder, chance: random.Random) -> list[Body]:
    """What others said, in words of another version or queue."""
    bodies = [heard.body for heard in chance.sample(intruder.heard, 10)]
    other = msgspec.msgpack.encode(["other", *msgspec.msgpack.decode(bodies[0])[1:]])
    return [
        *((FAMILY | version, body) for body in bodies for version in (0, VERSION + 1, 255)),
        *((kind, body) for body in bodies for kind in (0, 1, -KIND)),
        (KIND, other),
    ]


def large_frames(intruder: Intruder, chance: random.Random) -> list[Body]:
    """As large as can be sent: longer ones end at the daemon."""
    size = MESSAGE_LIMIT - GROUP_COST
    kind, frame = intruder.frame(0, 0, 0, 0, Submit(1, b"", bytes(size - 200)))
    return [(KIND, bytes(size)), (KIND, chance.randbytes(size)), (kind, frame), (kind, frame[: size // 2])]


def repeated_frames(intruder: Intruder, chance: random.Random) -> list[Body]:
    """What others said, word for word: the daemon vouches for the session, which is not theirs."""
    return [(heard.kind, heard.body) for heard in chance.sample(intruder.heard, 40)]


def frames_of_strangers(intruder: Intruder, chance: random.Random) -> list[Body]:
    """Messages of all types, outside of any link and in links that do not exist, for tasks that are none."""
    about, task = About("intruder", "nowhere", 1), Submit(7, b"\xff", b"")
    messages = [
        SenderHello(about),
        task,
        Closed(((1, 2**62),)),
        WorkerHello(about, 0, None),
        Claim(1, 2, 3, task),
        Ready(),
        JobOver(1, 2, 3),
        HandBack(1, 2, 3),
        Outcome(1, 2, 3, 4, Status.DONE),
        Response(1, 2, 3, 4, 5, b"", "raw"),
        Assign(1, 2, 3, 4, "#nobody#nowhere", task),
        Cancel(1, 2, 3),
        StatusRequest(),
        Welcome(2**62),
    ]
    return [
        intruder.frame(0, link, number, 0, message)
        for message in messages
        for link, number in ((0, 0), (1, 2), (2**62, 2**62))
    ]


Attack = Callable[[Intruder, random.Random], list[Body]]


@pytest.mark.parametrize(
    "attack",
    [
        not_frames,
        torn_frames,
        frames_of_another_version,
        large_frames,
        repeated_frames,
        frames_of_strangers,
    ],
    ids=lambda attack: attack.__name__,
)
def test_nobody_stops_work(scene: Scene, attack: Attack) -> None:
    manager = scene.start_manager()
    workers = scene.start_workers(2, "-c", "4")
    chance = random.Random(attack.__name__)
    with Load(scene, one_way=1) as load, Sender(scene.queue, address=scene.address) as sender:
        for number in range(4):
            with Intruder(scene, seen=number % 2 == 1) as intruder:
                intruder.look_around()
                intruder.say(attack(intruder, chance))
                assert sender.rpc("echo", [f"blocking-{number}"]) == f"blocking-{number}"
                load.wait_for(20)
    scene.wait_for_ends(load.asked + load.sent)
    assert not scene.repeated()
    assert [program.poll() for program in (manager, *workers)] == [None] * 3
    assert len(scene.events(manager, "took_over")) == 1
    assert not scene.events(manager, "worker_lost")


def test_nothing_crashes_where_single_bits_are_wrong(scene: Scene) -> None:
    """What others said with errors in it, much of it well-formed; but not in a manager's announcements."""
    manager = scene.start_manager()
    workers = scene.start_workers(2, "-c", "4")
    chance = random.Random(4)
    with Intruder(scene, seen=False) as intruder:
        with Load(scene, one_way=1, senders=4) as load:
            intruder.look_around()
            load.wait_for(100)
        with Sender(scene.queue, address=scene.address) as sender:
            sender.submit("echo", ["first"]).result("10s")
            intruder.listen()
            said = [heard for heard in intruder.heard if decode(heard.kind, heard.body, scene.queue).link]
            for _ in range(3):
                for heard in chance.sample(said, 60):
                    body = bytearray(heard.body)
                    body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
                    intruder.say([(KIND, bytes(body))])
    with Sender(scene.queue, address=scene.address) as sender:
        assert sender.rpc("echo", ["last"]) == "last"
    assert [program.poll() for program in (manager, *workers)] == [None] * 3


def test_a_forged_epoch_heals(scene: Scene) -> None:
    """Peers that believe it obey nobody until the manager hears it from them and takes one more."""
    manager = scene.start_manager()
    scene.start_workers(2, "-c", "4")
    with Load(scene, one_way=1) as load, Intruder(scene, seen=False) as intruder:
        intruder.look_around()
        for epoch in (1000, 2**40, EPOCH_LIMIT):
            intruder.say([intruder.frame(0, 0, 0, epoch, Welcome(10**9))])
            load.wait_for(100)
    scene.wait_for_ends(load.asked + load.sent)
    assert scene.status()["manager"]["epoch"] == EPOCH_LIMIT
    assert not scene.overlaps()
    assert manager.poll() is None


def test_nobody_takes_over_who_does_not_meet_the_managers(scene: Scene) -> None:
    """An announcement counts where its sender is a member of the managers' group."""
    manager = scene.start_manager()
    scene.start_workers(1)
    with Intruder(scene, seen=False) as intruder, Sender(scene.queue, address=scene.address) as sender:
        sender.rpc("echo", ["before"])
        took_over = TookOver(0, About("intruder", "nowhere", 1))
        intruder.say([intruder.frame(0, 0, 0, 1000, took_over)], [*intruder.groups])
        assert sender.rpc("echo", ["after"], timeout="4s") == "after"
    assert manager.poll() is None


def test_a_flood_of_hellos_is_not_kept(scene: Scene) -> None:
    """Workers and senders that greet and are never seen."""
    scene.start_hasty_manager(lease=500, departed_keep=500)
    scene.start_workers(1)
    about = About("intruder", "nowhere", 1)
    with Intruder(scene, seen=False) as intruder:
        for instance in range(1, 301):
            for group, hello in (
                (intruder.groups[1], WorkerHello(about, 10, None)),
                (intruder.groups[0], SenderHello(about)),
            ):
                frame = Frame(scene.queue, instance, 0, 1, 1, 0, 0, 0, [hello])
                intruder.say([(KIND, encode(frame))], [group])
        with Sender(scene.queue, address=scene.address) as sender:
            assert sender.rpc("echo", ["one"], timeout=TIMEOUT) == "one"
            scene.wait_for(lambda status: len(status["workers"]) == 1 and status["senders"] == 1)
            assert sender.rpc("echo", ["two"]) == "two"

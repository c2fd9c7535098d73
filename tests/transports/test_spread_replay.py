"""Both clients against a daemon that says, byte for byte, what a real one said.

The captures were made with raw sockets and, in `c_library`, with the original C library. Whatever a
client of ours can express is asked of it, and must come out as it was captured.
"""

from __future__ import annotations

import attrs
import pytest

from spreadq_core.effects import Service
from spreadq_core.events import (
    Cause,
    Disconnected,
    Received,
    Transition,
    TransportEvent,
    ViewChanged,
)
from tests.transports.fake_daemon import Client, FakeDaemon
from tests.transports.spread_members import AsyncioMember, BlockingMember, SpreadMember
from tests.transports.vectors import VECTORS, Step
from transports.base import TransportError, check_group, check_message
from transports.spread.handshake import RejectedError, parse_connect_request
from transports.spread.messages import AGREED, FIFO, Data, Join, Kill, Leave, Membership, TransitionSignal
from transports.spread.reader import Reader
from transports.spread.wire import HEADER_SIZE, decode_from_client, encode, locate

SERVICES = {FIFO: Service.FIFO, AGREED: Service.AGREED}


@attrs.frozen
class Conversation:
    """One connection of a capture, as far as a client of ours can hold it.

    Args:
        steps: without data of services and with bits that the core does not use.
        name: private name that the client asks for.
        session: private group name that it gets, empty where the daemon refuses it.
        membership: whether it wants membership messages.
        requests: what it has to be asked for, by the number of the step.
    """

    steps: tuple[Step, ...]
    name: str
    session: str
    membership: bool
    requests: dict[int, list]


def requests_of(data: bytes) -> list:
    """Decode what a client said in one step; empty if no client of ours would ever say that.

    Raises:
        ValueError, ProtocolError: nobody should say it.
    """
    requests = []
    at = 0
    while at < len(data):
        header, body_at, end = locate(data, at)
        if end > len(data) or header.order == "big":
            raise ValueError("half a message, or a machine of the other kind")
        request = decode_from_client(data, header, at + HEADER_SIZE, body_at, end)
        match request:
            case Data() if request.type_bits not in SERVICES:
                return []
            case Data():
                check_message(request.groups, request.mess_type, len(request.body))
            case Join() | Leave():
                check_group(request.group)
            case Kill() if request.group != request.sender:
                raise ValueError("a KILL with another group")
        if end - at != len(encode(request)):
            raise ValueError("a request with too many groups")
        requests.append(request)
        at = end
    return requests


def conversation(name: str, connection: str) -> Conversation:
    """Prepare a replay.

    Raises:
        ValueError, TransportError: no client of ours would hold this conversation.
    """
    steps = VECTORS[name].of(connection)
    directions = [step.direction for step in steps if step.data]
    if directions[:2] != ["c2s", "s2c"] or VECTORS[name].excerpt:
        raise ValueError("no ordinary handshake")
    request, used = parse_connect_request(steps[0].data) or (None, 0)
    if request is None or used != len(steps[0].data):
        raise ValueError("not a connect request in one piece")
    if (request.version, request.priority) != ((4, 4, 0), 0):
        raise ValueError("another version, or a priority")
    answers = [step.data for step in steps if step.direction == "s2c" and step.data]
    if answers[0][-1] >= 0x80:
        return Conversation(steps, request.name, "", request.membership, {})
    if answers[0] != b"\5NULL " or len(answers) < 2 or steps[2].data != b"NULL" + bytes(86):
        raise ValueError("another method, or no choice at all")
    if answers[1][-1] >= 0x80:
        return Conversation(steps, request.name, "", request.membership, {})
    session = answers[1][5:].decode()
    kept = list(steps[:4])
    requests: dict[int, list] = {}
    for step in steps[4:]:
        if step.direction == "c2s" and step.data:
            said = requests_of(step.data)
            if not said:
                continue
            if any(request.sender != session for request in said):
                raise ValueError("in somebody else's name")
            requests[len(kept)] = said
        kept.append(step)
    return Conversation(tuple(kept), request.name, session, request.membership, requests)


def conversations() -> dict[tuple[str, str], Conversation]:
    found = {}
    for name, vector in VECTORS.items():
        for connection in vector.connections:
            try:
                found[name, connection] = conversation(name, connection)
            except (ValueError, TransportError):
                continue
    return found


CONVERSATIONS = conversations()


def test_most_captures_are_replayed() -> None:
    assert {
        "c_library",
        "connect_membership",
        "connect_no_membership",
        "connect_max_name",
        "connect_longest_names",
        "join_three",
        "leave",
        "disconnect_kill",
        "multigroup",
        "private_unicast",
        "mess_type",
        "body_max_stock",
        "body_max_two_groups_stock",
        "groups_43",
        "daemon_terminated",
        "slow_consumer",
        "two_daemons_partition_merge",
        "three_daemons_partition_heal",
        "reject_not_unique",
        "auth_empty_list",
    } <= {name for name, _ in CONVERSATIONS}
    assert len(CONVERSATIONS) > 80


def play(talk: Conversation, heard: list[bytes], client: Client) -> None:
    """The daemon's part: take what the client must say, and say what the daemon said."""
    for number, step in enumerate(talk.steps):
        if step.event in {"eof", "reset"}:
            return
        if step.direction == "s2c":
            client.say(step.data)
        elif step.data:
            expected = b"".join(encode(request) for request in talk.requests.get(number, ())) or step.data
            heard.append(client.take(len(expected)))
            assert heard[-1] == expected
    client.session = talk.session
    client.take_rest()


def events_of(data: bytes, session: str) -> list[TransportEvent]:
    events: list[TransportEvent] = []
    for message in Reader().feed(data):
        match message:
            case Data():
                events.append(Received(message.sender, message.groups, message.mess_type, message.body))
            case Membership():
                together = message.sets[message.own_set]
                events.append(ViewChanged(message.group, message.members, message.cause, together))
            case TransitionSignal():
                events.append(Transition(message.group))
            case _:
                events.append(ViewChanged(message.group, (), Cause.LEAVE, (session,)))
    return events


def ask(member: SpreadMember, requests: list) -> None:
    for request in requests:
        match request:
            case Join():
                member.transport.join(request.group)
            case Leave():
                member.transport.leave(request.group)
            case Data():
                service = SERVICES[request.type_bits]
                member.transport.send(request.groups, service, request.mess_type, request.body)
            case Kill():
                member.transport.close()
    member.transport.flush()


class ReplayTests:
    member: type[SpreadMember]

    @pytest.mark.parametrize(("name", "connection"), CONVERSATIONS)
    async def test_the_client_says_and_reports_what_was_captured(self, name: str, connection: str) -> None:
        talk = CONVERSATIONS[name, connection]
        heard: list[bytes] = []
        with FakeDaemon(lambda client: play(talk, heard, client)) as daemon:
            member = self.member(daemon.address, membership=talk.membership, names=lambda: talk.name)
            if not talk.session:
                with pytest.raises(RejectedError):
                    await member.start()
                return
            await member.start()
            await member.connected()
            await self.follow(member, talk)
            await member.end()
            assert len(heard) == len([step for step in talk.steps if step.direction == "c2s" and step.data])

    async def follow(self, member: SpreadMember, talk: Conversation) -> None:
        said = [number for number, step in enumerate(talk.steps) if step.direction == "s2c"][2:]
        for number, step in enumerate(talk.steps):
            if number in talk.requests:
                ask(member, talk.requests[number])
            elif number in said and step.data:
                for expected in events_of(step.data, member.session):
                    assert await member.next(TransportEvent) == expected
            elif step.event in {"eof", "reset"} and member.transport.session:
                await member.next(Disconnected)


class TestAsyncioSpread(ReplayTests):
    also_on_uvloop = True
    member = AsyncioMember


class TestBlockingSpread(ReplayTests):
    member = BlockingMember

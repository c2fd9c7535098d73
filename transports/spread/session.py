"""One connection to a Spread daemon, without the connection: bytes in, events out (PROTOCOL 12).

Both clients are thin shells around this: they move bytes between it and a socket, and make a new one
for every attempt to connect.
"""

from __future__ import annotations

from spreadq_core.effects import Service
from spreadq_core.events import Cause, Connected, Received, Transition, TransportEvent, ViewChanged
from transports.base import check_group, check_message
from transports.spread.handshake import (
    NULL_METHOD,
    AuthenticationError,
    ConnectRequest,
    encode_auth_choice,
    encode_connect_request,
    parse_accept,
    parse_auth_list,
)
from transports.spread.messages import (
    AGREED,
    FIFO,
    DaemonMessage,
    Data,
    Join,
    Kill,
    Leave,
    Membership,
    SelfLeave,
    TransitionSignal,
)
from transports.spread.reader import Reader
from transports.spread.wire import encode, encode_data_header


class Session:
    """Life of one private name, from the connect request to the end of the connection.

    What is asked of it before it is connected, or when it has ended, is checked and dropped.

    Args:
        name: private name to ask for, 1..10 characters from `$` to `~`.
        membership: whether views are wanted.

    Raises:
        IllegalNameError: there can be no such private name.
    """

    def __init__(self, name: str, membership: bool) -> None:
        self.name = ""
        """Private group name (`#name#daemon`) while connected, else empty."""
        self._output = [encode_connect_request(ConnectRequest(name, membership))]
        self._handshake = b""
        self._authenticated = False
        self._reader = Reader()

    def receive(self, data: bytes) -> list[TransportEvent]:
        """Take what the daemon sent, cut anywhere; there may be output afterwards.

        Raises:
            RejectedError: the daemon does not want us; its subclasses say why.
            ProtocolError: this is no Spread daemon, or the stream is damaged.
        """
        if self.name:
            return self._events(self._reader.feed(data))
        return self._shake_hands(data)

    def take_output(self) -> bytes:
        """Give what is to be written now, in one write; empty if there is nothing."""
        if not self._output:
            return b""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def join(self, group: str) -> None:
        """See `Transport.join`."""
        check_group(group)
        if self.name:
            self._output.append(encode(Join(self.name, group)))

    def leave(self, group: str) -> None:
        """See `Transport.leave`."""
        check_group(group)
        if self.name:
            self._output.append(encode(Leave(self.name, group)))

    def send(self, groups: tuple[str, ...], service: Service, kind: int, body: bytes) -> None:
        """See `Transport.send`."""
        check_message(groups, kind, len(body))
        if self.name:
            type_bits = AGREED if service is Service.AGREED else FIFO
            self._output.append(encode_data_header(self.name, groups, kind, len(body), type_bits))
            self._output.append(body)

    def kill(self) -> None:
        """Ask for an orderly disconnect; the daemon answers with the end of the stream."""
        if self.name:
            self._output.append(encode(Kill(self.name, self.name)))

    def end(self) -> None:
        """The connection is gone."""
        self.name = ""
        self._output.clear()

    def _shake_hands(self, data: bytes) -> list[TransportEvent]:
        self._handshake += data
        if not self._authenticated:
            auth_list = parse_auth_list(self._handshake)
            if auth_list is None:
                return []
            methods, used = auth_list
            if NULL_METHOD not in methods:
                raise AuthenticationError
            self._output.append(encode_auth_choice((NULL_METHOD,)))
            self._authenticated = True
            self._handshake = self._handshake[used:]
        answer = parse_accept(self._handshake)
        if answer is None:
            return []
        accept, used = answer
        messages = self._reader.feed(self._handshake[used:])
        self._handshake = b""
        self.name = accept.private_group
        return [Connected(self.name), *self._events(messages)]

    def _events(self, messages: list[DaemonMessage]) -> list[TransportEvent]:
        events: list[TransportEvent] = []
        for message in messages:
            if type(message) is Data:  # nearly always
                events.append(Received(message.sender, message.groups, message.mess_type, message.body))
                continue
            match message:
                case Membership(group=group, members=members, cause=cause):
                    events.append(ViewChanged(group, members, cause, message.sets[message.own_set]))
                case TransitionSignal():
                    events.append(Transition(message.group))
                case SelfLeave():
                    events.append(ViewChanged(message.group, (), Cause.LEAVE, (self.name,)))
                # A `Reject` is no event: who sends learns nothing of what becomes of it, ever.
        return events


def unconnected() -> Session:
    """Make a session that never begins, for the time before and between connections."""
    return Session("never", membership=False)

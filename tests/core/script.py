"""Whole conversations as text: what is put in, and all that comes out of it.

A script is a list of inputs, each on a line that begins with `> `, with comments (`# `) and empty lines
between them. After each input stands what happened, which `pytest --rewrite-scripts` writes.

Inputs (names are m1, m2, ..., w1, ..., s1, ... in the order of their coming; a job is `s1-2#3`: attempt 3
at the second task of s1):

    policy SETTING=VALUE ...            of all roles; before any of them
    manager [image=m1] [epoch=0]        start one; with what m1 knew when it stopped; that kept no epoch
    worker FUNCTIONS|* [capacity=2]     start one; functions are separated by commas
    sender                              start one
    submit s1 FUNCTION PAYLOAD [OPTION=VALUE ...]     options of `world.request`
    abandon s1 2                        nobody waits for this task any more
    end w1 s1-2#1 [VALUE]               the job returns; fail: it raises; stopped: it was cancelled
    respond w1 s1-2#1 VALUE             the job answers while it runs
    stop w1                             it is told to stop
    kill w1, freeze w1, thaw w1         what happens to processes
    cut w1, connect w1, reconnect w1    what happens to connections
    lose w1 s1                          from now on frames from w1 to s1 are lost; lose nothing
    pass 1.5                            seconds; before, and after every other input, all that was sent
                                        arrives without time passing

Output: the time since the beginning, who, and a frame that is sent, an effect that is performed, or a note.
A frame shows its link, number and receipt, and its messages; `-`: it belongs to no link.
"""

from __future__ import annotations

import shlex

import msgspec

from spreadq_core import effects as f
from spreadq_core.codec import decode
from spreadq_core.ids import SECOND
from spreadq_core.messages import About, Status
from spreadq_core.policy import Policy
from spreadq_core.terms import Terms
from tests.core.world import World

YES = {"yes": True, "no": False}
STATUSES = {"end": Status.DONE, "fail": Status.FAILED, "stopped": Status.CANCELLED}
USUAL = Terms("", "raw", 0, 3, 0, 0, True)


def run(text):
    """The script with what happens now."""
    play = Play()
    lines = []
    for line in text.splitlines():
        if line.startswith("> "):
            lines.append(line)
            lines += play.do(line[2:])
        elif not line or line.startswith("#"):
            lines.append(line)
    return "\n".join(lines) + "\n"


class Play:
    """A world that is told what to do in words, and tells what happens."""

    def __init__(self):
        self.world = World()
        self.world.trace = self.trace
        self.start = self.world.time
        self.lines = []
        self.lost = set()
        self.images = {}
        self.world.fate = lambda receiver, event: () if self.is_lost(receiver, event) else (0,)

    def is_lost(self, receiver, event):
        return (self.world.sessions[event.sender].name, receiver.name) in self.lost

    def do(self, line):
        what, *words = shlex.split(line)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        words = [word for word in words if "=" not in word]
        getattr(self, f"do_{what}", self.do_to)(what, words, options)
        self.world.settle()
        lines, self.lines = self.lines, []
        return lines

    def node(self, name):
        return next(node for node in self.world.nodes if node.name == name)

    # --- inputs ---

    def do_policy(self, _, words, options):
        self.world.policy = Policy(**{key: int(value) for key, value in options.items()})

    def do_manager(self, _, words, options):
        given = {}
        if "image" in options:
            given["image"] = self.images[options["image"]]
        if "epoch" in options:
            given["epoch"] = int(options["epoch"])
        self.join(self.world.manager(connect=False, **given))

    def do_worker(self, _, words, options):
        functions = None if words[0] == "*" else tuple(words[0].split(","))
        self.join(self.world.worker(functions, int(options.get("capacity", 1)), connect=False))

    def do_sender(self, _, words, options):
        self.join(self.world.sender(connect=False))

    def join(self, node):
        performers = node.performers
        node.performers = {kind: self.telling(node, perform) for kind, perform in performers.items()}
        self.world.connect(node)

    def telling(self, node, perform):
        def tell(effect):
            self.tell(node, self.effect(effect))
            perform(effect)

        return tell

    def do_submit(self, _, words, options):
        name, function, payload = words
        given = {key: YES[value] if value in YES else int(value) for key, value in options.items()}
        for duration in {"expiry", "run_limit"} & given.keys():
            given[duration] *= SECOND
        self.node(name).submit(function, payload.encode(), **given)

    def do_abandon(self, _, words, options):
        self.node(words[0]).abandon(int(words[1]))

    def do_end(self, what, words, options):
        name, job, *payload = words
        self.node(name).end("".join(payload).encode(), key=self.key(job), status=STATUSES[what])

    do_fail = do_stopped = do_end

    def do_respond(self, _, words, options):
        name, job, payload = words
        self.node(name).respond(payload.encode(), self.key(job))

    def do_stop(self, _, words, options):
        node = self.node(words[0])
        node.stop()
        if hasattr(node.role, "image"):
            self.images[node.name] = node.role.image()

    def do_cut(self, _, words, options):
        self.world.disconnect(self.node(words[0]))

    def do_lose(self, _, words, options):
        self.lost = set() if words == ["nothing"] else self.lost | {tuple(words)}

    def do_pass(self, _, words, options):
        self.world.advance(int(float(words[0]) * SECOND))

    def do_to(self, what, words, options):
        getattr(self.world, what)(self.node(words[0]))

    # --- outputs ---

    def trace(self, node, what):
        if isinstance(what, f.Send):
            frame = decode(what.kind, what.body, "q")
            groups = ", ".join(map(self.session, what.groups))
            head = f"{frame.link}.{frame.number}" if frame.link else "-"
            said = ", ".join(map(self.message, frame.messages)) or "(nothing)"
            self.tell(node, f"-> {groups}  [{head} receipt {frame.receipt} epoch {frame.epoch}] {said}")

    def tell(self, node, text):
        self.lines.append(f"{(self.world.time - self.start) / SECOND:9.3f} {node.name:3} {text}")

    def effect(self, effect):
        if isinstance(effect, f.Note):
            fields = "".join(f" {key}={self.value(key, value)}" for key, value in effect.fields.items())
            return f"note {effect.name.value}{fields}"
        return self.message(effect)

    def message(self, message):
        """A message or effect as its name and those of its fields that are not usual."""
        fields = {name: getattr(message, name) for name in message.__struct_fields__}
        if "counter" in fields and "sender" in fields:
            task = f"{self.instance(fields.pop('sender'))}-{fields.pop('counter')}"
            number = f"#{fields.pop('number')}" if "number" in fields else ""
            shown = [task + number]
        else:
            shown = []
        for name, value in fields.items():
            if value not in ("", b"", 0, False, None):
                shown.append(f"{name}={self.value(name, value)}")
        return f"{type(message).__name__}({', '.join(shown)})"

    def value(self, name, value):
        if name == "terms":
            return self.terms(value)
        if name in ("worker", "sender", "source", "peer") and isinstance(value, int):
            return self.instance(value)
        if isinstance(value, bytes):
            return repr(value.decode())
        if isinstance(value, Status):
            return value.name
        if isinstance(value, About):
            return value.name
        if name in ("expires_in", "lease", "expiry", "run_limit", "by"):
            return f"{value / SECOND:g}s"
        if isinstance(value, msgspec.Struct):
            return self.message(value)
        return self.session(value) if isinstance(value, str) else value

    def terms(self, encoded):
        terms = msgspec.msgpack.decode(encoded, type=Terms)
        unusual = [
            f"{name}={self.value(name, getattr(terms, name))}"
            for name in terms.__struct_fields__[1:]
            if getattr(terms, name) != getattr(USUAL, name)
        ]
        return " ".join([terms.function, *unusual])

    def session(self, name):
        return name.removeprefix("#").removesuffix("#world") if name.endswith("#world") else name

    def instance(self, number):
        return {0: "nobody"}.get(number) or f"{'mws'[number // 100]}{number % 100}"

    def key(self, job):
        task, number = job.split("#")
        sender, counter = task.split("-")
        return (200 + int(sender[1:]), int(counter), int(number))

"""The modern shape: typed functions that run here when called, and at a worker through the queue."""

from __future__ import annotations

import asyncio
import enum
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import msgspec
import pytest

import spreadq
from spreadq import (
    App,
    BadPayload,
    NoManager,
    Policy,
    RemoteError,
    Sender,
    TaskId,
    TimedOut,
    UnknownCodec,
    UnknownFunction,
    UsageError,
)
from tests.brokers import Broker
from tests.spreadq.conftest import Serve


@pytest.fixture
def app(app: App) -> Iterator[App]:
    """Whose sender of this thread is closed in the end."""
    yield app
    app.close_sync()


class TestTheFunctionItself:
    def test_it_runs_here_when_it_is_called(self, app: App) -> None:
        @app.task
        def add(a: int, b: int = 1) -> int:
            """Add."""
            return a + b

        assert add(1) == 2
        assert add.name == add.__name__ == "add"
        assert add.__doc__ == "Add."

    async def test_an_async_one_is_awaited_here(self, app: App) -> None:
        @app.task(run_limit="30s")
        async def add(a: int, b: int = 1) -> int:
            return a + b

        assert await add(1, b=2) == 3

    def test_two_tasks_cannot_have_one_name(self, app: App) -> None:
        @app.task
        def one() -> None: ...

        with pytest.raises(UsageError, match="there is a task named 'one' already"):

            @app.task(name="one")
            def two() -> None: ...

    def test_an_unknown_codec_is_refused_at_once(self) -> None:
        with pytest.raises(UnknownCodec, match="'pickle' is unknown; known are msgpack, json, raw and yaml"):
            App("q", codec="pickle")

    def test_an_app_without_tasks_is_not_served(self, app: App) -> None:
        with pytest.raises(UsageError, match="needs a function"):
            app.worker()


class TestPlainCode:
    def test_call_submit_and_send(self, app: App, serve: Serve) -> None:
        seen: list[str] = []

        @app.task(run_limit="30s", max_attempts=3)
        def resize(path: str, width: int) -> str:
            seen.append(path)
            return f"{path} is {width} wide now"

        serve(app)
        assert resize.call_sync("a.png", width=100) == "a.png is 100 wide now"
        handle = resize.submit_sync("b.png", 200)
        assert handle.result(timeout="5s") == "b.png is 200 wide now"
        assert handle.result() == "b.png is 200 wide now"  # again
        assert TaskId.parse(str(handle.id)) == handle.id
        sent = resize.send_sync("c.png", 300)
        assert isinstance(sent, TaskId)
        assert resize.call_sync("d.png", 1) == "d.png is 1 wide now"
        assert seen == ["a.png", "b.png", "c.png", "d.png"]

    def test_async_tasks_can_be_called_from_plain_code_too(self, app: App, serve: Serve) -> None:
        @app.task
        async def double(x: int) -> int:
            await asyncio.sleep(0)
            return 2 * x

        serve(app)
        assert double.call_sync(21) == 42

    def test_each_thread_has_a_sender_of_its_own(self, app: App, serve: Serve) -> None:
        @app.task
        def double(x: int) -> int:
            return 2 * x

        serve(app, concurrency=4)
        senders: dict[int, Sender] = {}
        results: dict[int, list[int]] = {}

        def work(number: int) -> None:
            results[number] = [double.call_sync(number * 1000 + i) for i in range(50)]
            assert app.sender() is app.sender()
            senders[number] = app.sender()
            app.close_sync()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {n: [2 * (n * 1000 + i) for i in range(50)] for n in range(4)}
        assert len({id(sender) for sender in senders.values()}) == 4

    def test_a_closed_sender_is_replaced_when_it_is_needed(self, app: App, serve: Serve) -> None:
        @app.task
        def one() -> int:
            return 1

        serve(app)
        assert one.call_sync() == 1
        app.close_sync()
        app.close_sync()
        assert one.call_sync() == 1


class TestAsyncio:
    async def test_call_submit_and_send(self, app: App, serve: Serve) -> None:
        seen: list[str] = []

        @app.task
        def resize(path: str, width: int) -> str:
            seen.append(path)
            return f"{path} is {width} wide now"

        serve(app)
        async with app:
            assert await resize.call("a.png", width=100) == "a.png is 100 wide now"
            handle = await resize.submit("b.png", 200)
            assert await handle.result(timeout="5s") == "b.png is 200 wide now"
            assert await handle.result() == "b.png is 200 wide now"
            assert handle.id != await resize.send("c.png", 300)
            assert await resize.call("d.png", 1) == "d.png is 1 wide now"
        assert seen == ["a.png", "b.png", "c.png", "d.png"]

    async def test_first_calls_at_the_same_time_share_one_connection(
        self, app: App, broker: Broker, serve: Serve
    ) -> None:
        @app.task
        async def double(x: int) -> int:
            return 2 * x

        serve(app, concurrency=8)
        async with app:
            async with asyncio.timeout(10):
                results = await asyncio.gather(*(double.call(x) for x in range(20)))
            assert results == [2 * x for x in range(20)]
            assert broker.status(app.queue)["senders"] == 1

    def test_each_event_loop_has_a_sender_of_its_own(self, app: App, serve: Serve) -> None:
        @app.task
        async def double(x: int) -> int:
            return 2 * x

        serve(app)

        async def main() -> int:
            async with app:
                return await double.call(21)

        assert [asyncio.run(main()) for _ in range(2)] == [42, 42]

    async def test_results_find_their_callers_in_any_order(self, app: App, serve: Serve) -> None:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()

        @app.task
        async def wait_if(first: bool) -> bool:
            if first:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(release.wait(), loop))
            return first

        serve(app, concurrency=2)
        async with app:
            first = await wait_if.submit(True)
            assert await wait_if.call(False) is False
            release.set()
            assert await first.result(timeout="5s") is True


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: int
    y: float = 0.5


@attrs.define
class Box:
    corner: Point
    name: str = "box"


class Picture(msgspec.Struct):
    boxes: list[Box]
    made: datetime


VALUES: list[tuple[Any, Any]] = [
    (int, 2**63),
    (int, -5),
    (float, 1.5),
    (float, 2.0),
    (str, "é\N{SNOWMAN}\0"),
    (bool, True),
    (bytes, b"\0\xff\n"),
    (None, None),
    (int | None, None),
    (int | str, "x"),
    (Point, Point(1, 2.5)),
    (Box, Box(Point(1))),
    (Picture, Picture([Box(Point(1), "b")], datetime(2024, 5, 6, 7, 8, 9, 123456, UTC))),
    (datetime, datetime(2024, 5, 6, 7, 8, 9)),
    (datetime, datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
    (date, date(2024, 5, 6)),
    (timedelta, timedelta(days=1, microseconds=5)),
    (Color, Color.BLUE),
    (uuid.UUID, uuid.UUID(int=5)),
    (Decimal, Decimal("1.10")),
    (list[Point], [Point(1), Point(2)]),
    (dict[str, Point], {"a": Point(1)}),
    (dict[int, str], {1: "a"}),
    (set[int], {1, 2}),
    (tuple[int, str], (1, "a")),
    (Any, {"a": [1, None, "x"]}),
]


@pytest.fixture(params=["msgpack", "json", "yaml"])
def codec(request: pytest.FixtureRequest) -> str:
    return request.param


class TestTypes:
    @pytest.fixture
    def app(self, broker: Broker, queue: str, codec: str) -> Iterator[App]:
        app = App(queue, address=broker.address, codec=codec)
        yield app
        app.close_sync()

    def test_arguments_and_results_keep_their_types(self, app: App, serve: Serve) -> None:
        arrived: dict[str, Any] = {}

        for number, (kind, _) in enumerate(VALUES):

            def echo(value: Any, number: int = number) -> Any:
                arrived[f"echo{number}"] = value
                return value

            echo.__annotations__ = {"value": kind, "number": int, "return": kind}
            app.task(name=f"echo{number}")(echo)
        serve(app)
        wrong = []
        for number, (kind, value) in enumerate(VALUES):
            task = app.tasks[f"echo{number}"]
            try:
                got = task.call_sync(value)
            except spreadq.SpreadqError as error:
                wrong.append((kind, value, str(error)))
                continue
            for what in (got, arrived[task.name]):
                if (what, type(what)) != (value, type(value)):
                    wrong.append((kind, value, what))
        assert not wrong

    def test_a_result_without_annotation_is_made_of_builtins(self, app: App, serve: Serve) -> None:
        @app.task
        def box(name):  # type: ignore[no-untyped-def]
            return Box(Point(1), name)

        serve(app)
        assert box.call_sync("b") == {"corner": {"x": 1, "y": 0.5}, "name": "b"}


class TestArguments:
    def test_all_kinds_of_parameters_arrive(self, app: App, serve: Serve) -> None:
        @app.task
        def plain(a: int, b: Point, c: int = 3) -> list[Any]:
            return [a, b.x, c]

        @app.task
        def positional(a: int, /, b: int = 2) -> list[int]:
            return [a, b]

        @app.task
        def named(a: int, *, width: int, unit: str = "px") -> list[Any]:
            return [a, width, unit]

        @app.task
        def many(first: str, *rest: Point) -> list[Any]:
            return [first, *(point.x for point in rest)]

        @app.task
        def extra(a: int, **more: Point) -> dict[str, int]:
            return {"a": a} | {name: point.x for name, point in more.items()}

        serve(app)
        assert plain.call_sync(1, Point(2)) == [1, 2, 3]
        assert plain.call_sync(b=Point(2), a=1) == [1, 2, 3]
        assert plain.call_sync(1, b=Point(2), c=4) == [1, 2, 4]
        assert positional.call_sync(1) == [1, 2]
        assert positional.call_sync(1, 3) == [1, 3]
        assert named.call_sync(1, width=2) == [1, 2, "px"]
        assert named.call_sync(a=1, width=2, unit="cm") == [1, 2, "cm"]
        assert many.call_sync("a") == ["a"]
        assert many.call_sync("a", Point(1), Point(2)) == ["a", 1, 2]
        assert extra.call_sync(1) == {"a": 1}
        assert extra.call_sync(1, x=Point(5)) == {"a": 1, "x": 5}

    def test_defaults_are_those_of_the_worker(
        self, app: App, queue: str, broker: Broker, serve: Serve
    ) -> None:
        theirs = App(queue, address=broker.address)

        @theirs.task(name="scale")
        def scale_at_the_worker(x: int, by: int = 10) -> int:
            return x * by

        @app.task
        def scale(x: int, by: int = 2) -> int:
            return x * by

        serve(theirs)
        assert scale.call_sync(3) == 30
        assert scale(3) == 6

    def test_a_call_that_python_would_refuse_is_refused_here(self, app: App) -> None:
        @app.task
        def add(a: int, b: int) -> int:
            return a + b

        for wrong in (
            lambda: add.call_sync(1),
            lambda: add.send_sync(1, 2, 3),
            lambda: add.submit_sync(1, c=2),
        ):
            with pytest.raises(TypeError):
                wrong()

    def test_positional_only_beside_keyword_only_arguments_cannot_travel(self, app: App) -> None:
        @app.task
        def odd(*rest: int, width: int) -> int:
            return width

        with pytest.raises(UsageError, match=r"rest.*cannot travel together with keyword arguments"):
            odd.call_sync(1, width=2)

    def test_a_value_that_no_codec_takes_is_refused_here(self, app: App) -> None:
        @app.task
        def take(what: Any) -> None: ...

        with pytest.raises(BadPayload, match="cannot be encoded as msgpack"):
            take.call_sync(object())
        with pytest.raises(BadPayload, match="cannot be encoded as msgpack"):
            take.call_sync(2**70)

    def test_a_wrong_type_is_told_to_the_caller(self, app: App, serve: Serve) -> None:
        ran = []

        @app.task
        def resize(path: str, width: int) -> None:
            ran.append(path)

        @app.task
        def draw(box: Box) -> None:
            ran.append(box.name)

        serve(app)
        with pytest.raises(RemoteError) as caught:
            resize.call_sync("a.png", "wide")  # type: ignore[arg-type]
        assert caught.value.type == "spreadq.errors.BadPayload"
        assert "argument 'width' of" in caught.value.message
        assert caught.value.message.endswith("resize: Expected `int`, got `str`")
        with pytest.raises(RemoteError, match=r"argument 'box' of .*draw: .*Expected `int`, got `str` - at"):
            app.sender().rpc("draw", [{"corner": {"x": "?"}}])
        assert not ran

    def test_too_few_or_many_arguments_from_elsewhere_are_told_to_the_caller(
        self, app: App, serve: Serve
    ) -> None:
        @app.task
        def add(a: int, b: int) -> int:
            return a + b

        serve(app)
        sender = app.sender()
        assert sender.rpc("add", [1, 2]) == sender.rpc("add", {"a": 1, "b": 2}) == 3
        for wrong in ([1], [1, 2, 3], {"a": 1}, {"a": 1, "b": 2, "c": 3}, 1, None):
            with pytest.raises(RemoteError) as caught:
                sender.rpc("add", wrong)
            assert caught.value.type in ("TypeError", "spreadq.errors.BadPayload")

    def test_a_result_of_another_type_is_told_to_the_caller(self, app: App, serve: Serve) -> None:
        @app.task
        def count() -> int:
            return "many"  # type: ignore[return-value]

        serve(app)
        with pytest.raises(BadPayload, match=r"the result of .*count: Expected `int`, got `str`"):
            count.call_sync()

    def test_a_result_that_no_codec_takes_is_told_to_the_caller(self, app: App, serve: Serve) -> None:
        @app.task
        def make() -> Any:
            return object()

        serve(app)
        with pytest.raises(RemoteError, match="cannot be encoded as msgpack"):
            make.call_sync()

    def test_a_result_that_is_too_large_is_told_to_the_caller(self, app: App, serve: Serve) -> None:
        @app.task
        def make(size: int) -> bytes:
            return bytes(size)

        serve(app)
        assert len(make.call_sync(139_000)) == 139_000
        with pytest.raises(RemoteError, match="the result has 140005 bytes, 140000 at most"):
            make.call_sync(140_000)

    def test_an_annotation_that_does_not_exist_at_run_time_is_told(self, app: App, serve: Serve) -> None:
        @app.task
        def take(what: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

        serve(app)
        with pytest.raises(RemoteError, match=r"annotation of .*take cannot be resolved.*Missing"):
            take.call_sync(1)

    def test_raw_bytes_travel_as_they_are(self, broker: Broker, queue: str, serve: Serve) -> None:
        raw = spreadq.Worker(queue, address=broker.address)

        @raw.function
        def turn(worker: spreadq.Worker, originator: spreadq.Originator, value: bytes) -> None:
            worker.respond(originator, value[::-1])

        serve(raw)
        with Sender(queue, address=broker.address, codec="raw") as sender:
            assert sender.rpc("turn", b"\0abc\xff") == b"\xffcba\0"
            with pytest.raises(BadPayload, match="the codec raw takes bytes, not str"):
                sender.rpc("turn", "abc")


class TestErrors:
    def test_an_exception_of_the_task_comes_with_its_traceback(self, app: App, serve: Serve) -> None:
        class OddError(Exception):
            """One of the user's own."""

        @app.task
        def explode(how: str) -> None:
            if how == "own":
                raise OddError("it went", "wrong")
            int(how)

        serve(app)
        with pytest.raises(RemoteError) as caught:
            explode.call_sync("x")
        error = caught.value
        assert (error.type, error.message) == (
            "ValueError",
            "invalid literal for int() with base 10: 'x'",
        )
        assert str(error) == f"ValueError: {error.message}"
        assert "int(how)" in error.traceback
        assert error.traceback in "\n".join(error.__notes__) + "\n"
        assert error.id is not None
        with pytest.raises(RemoteError, match="it went") as caught:
            explode.call_sync("own")
        assert caught.value.type.endswith(".OddError")
        assert caught.value.type.startswith("tests.spreadq.test_app.")

    async def test_so_does_that_of_an_async_task(self, app: App, serve: Serve) -> None:
        @app.task
        async def explode() -> None:
            raise KeyError("k")

        serve(app)
        async with app:
            with pytest.raises(RemoteError, match="KeyError: 'k'") as caught:
                await explode.call()
            assert 'raise KeyError("k")' in caught.value.traceback
            handle = await explode.submit()
            with pytest.raises(RemoteError, match="KeyError: 'k'"):
                await handle.result(timeout="5s")

    @pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt", "StopIteration", "CancelledError"])
    def test_an_exception_that_means_something_to_python_is_one_like_others(
        self, app: App, serve: Serve, error: str
    ) -> None:
        kinds: dict[str, type[BaseException]] = {
            "SystemExit": SystemExit,
            "KeyboardInterrupt": KeyboardInterrupt,
            "StopIteration": StopIteration,
            "CancelledError": asyncio.CancelledError,
        }

        @app.task
        def explode() -> None:
            raise kinds[error]("on purpose")

        @app.task
        async def explode_on_the_loop() -> None:
            raise kinds[error]("on purpose")

        @app.task
        async def alive() -> bool:
            return True

        serve(app)
        with pytest.raises(RemoteError) as caught:
            explode.call_sync()
        assert caught.value.type.endswith(error)
        if error != "KeyboardInterrupt":  # which ends an asyncio program
            with pytest.raises(RemoteError):
                explode_on_the_loop.call_sync()
        assert alive.call_sync()

    def test_very_long_messages_are_cut_at_their_beginning(self, app: App, serve: Serve) -> None:
        @app.task
        def explode() -> None:
            raise ValueError("x" * 200_000 + "the end")

        serve(app)
        with pytest.raises(RemoteError) as caught:
            explode.call_sync()
        assert len(caught.value.message) == 32 * 1024
        assert caught.value.message.endswith("xthe end")

    @pytest.mark.parametrize("character", ["\N{GRINNING FACE}", "\udcff"])
    def test_so_are_those_that_are_long_in_bytes(self, app: App, serve: Serve, character: str) -> None:
        @app.task
        def explode() -> None:
            raise type("E" * 50_000, (Exception,), {})(character * 100_000 + "the end")

        serve(app)
        for _ in range(2):
            with pytest.raises(RemoteError, match="the end"):
                explode.call_sync()

    def test_an_exception_whose_text_fails_is_told_nevertheless(self, app: App, serve: Serve) -> None:
        class SilentError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        @app.task
        def explode() -> None:
            raise SilentError

        serve(app)
        with pytest.raises(RemoteError, match=r"\(RuntimeError in its __str__\)"):
            explode.call_sync()

    def test_texts_that_are_no_utf8_travel_too(self, app: App, serve: Serve) -> None:
        @app.task
        def explode() -> None:
            raise ValueError("a file named \udcff")

        @app.task
        async def explode_on_the_loop() -> None:
            explode()

        serve(app)
        for task in (explode, explode_on_the_loop):
            with pytest.raises(RemoteError, match=r"ValueError: a file named \\udcff"):
                task.call_sync()  # type: ignore[operator]

    def test_a_function_that_nobody_serves(self, app: App, serve: Serve) -> None:
        @app.task
        def served() -> None: ...

        @app.task(timeout="300ms")
        def elsewhere() -> None: ...

        other = App(app.queue, address=app._address)
        other.task(served)
        serve(other)
        with pytest.raises(UnknownFunction, match="no worker served its function"):
            elsewhere.call_sync()

    def test_a_call_that_takes_too_long(self, app: App, serve: Serve) -> None:
        release = threading.Event()

        @app.task(timeout="200ms")
        def wait() -> None:
            release.wait(10)

        serve(app)
        with pytest.raises(TimedOut, match=r"not done in 0\.2\d* s"):
            wait.call_sync()
        with pytest.raises(TimeoutError):
            wait.options(timeout="10ms").call_sync()
        release.set()

    def test_no_manager(self, broker: Broker, unmanaged_queue: str) -> None:
        app = App(unmanaged_queue, address=broker.address, policy=Policy(manager_wait=100_000_000))

        @app.task
        def lost() -> None: ...

        with pytest.raises(NoManager, match=f"start `sqm {unmanaged_queue}` or `spreadq serve"):
            lost.call_sync()
        app.close_sync()


class TestOptions:
    def test_they_are_given_by_task_and_can_be_replaced(self, app: App, broker: Broker, serve: Serve) -> None:
        order: list[str] = []

        @app.task(priority=2)
        def note(what: str) -> None:
            order.append(what)

        for what, priority in (("low", None), ("high", 9), ("lowest", 0)):
            task = note if priority is None else note.options(priority=priority)
            task.send_sync(what)
        serve(app)
        note.options(priority=0, timeout="5s").call_sync("last")
        assert order == ["high", "low", "lowest", "last"]

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("priority", 10),
            ("priority", -1),
            ("max_attempts", -1),
            ("run_limit", "30"),
            ("run_limit", "-1s"),
            ("expiry", 0),
            ("headers", bytes(140_001)),
            ("prority", 1),
        ],
    )
    def test_impossible_ones_are_refused(self, app: App, option: str, value: Any) -> None:
        @app.task(**{option: value})
        def task() -> None: ...

        with pytest.raises(UsageError):
            task.send_sync()


class TestInsideOfAJob:
    def test_it_knows_its_task(self, app: App, serve: Serve) -> None:
        @app.task
        def which() -> str:
            return str(spreadq.current_task())

        @app.task
        async def which_on_the_loop() -> str:
            await asyncio.sleep(0)
            return str(spreadq.current_task())

        serve(app)
        for task in (which, which_on_the_loop):
            handle = task.submit_sync()
            assert handle.result(timeout="5s") == str(handle.id)
        assert spreadq.current_task() is None

    def test_a_job_can_submit_tasks_itself(self, app: App, serve: Serve) -> None:
        @app.task
        def inner(x: int) -> int:
            return x + 1

        @app.task
        async def outer(x: int) -> int:
            return await inner.call(x) * 10

        @app.task
        def plain_outer(x: int) -> int:
            try:
                return inner.call_sync(x) * 10
            finally:
                app.close_sync()

        @app.task
        async def close() -> None:
            await app.close()

        serve(app, concurrency=2)
        assert outer.call_sync(1) == 20
        assert plain_outer.call_sync(2) == 30
        close.call_sync()

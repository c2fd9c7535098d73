"""Arguments of a task as a payload and back: an array of positional ones, or a map of keywords."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from functools import cached_property
from typing import Any

from spreadq.codecs import convert
from spreadq.errors import BadPayload
from spreadq_core.errors import UsageError

_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)


class Signature:
    """How a function is called, and with what types.

    Args:
        function: whose annotations are resolved when they are first needed.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        self._simple = all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
        self._most = len(parameters)
        self._least = sum(parameter.default is parameter.empty for parameter in parameters)

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any] | dict[str, Any]:
        """The arguments of a call as one value.

        Raises:
            TypeError: the function cannot be called like this, as if it had been.
            UsageError: `*args` or positional-only arguments beside keyword-only ones.
        """
        if not kwargs and self._simple and self._least <= len(args) <= self._most:
            return list(args)
        bound = self._signature.bind(*args, **kwargs)
        if not bound.kwargs:
            return list(bound.args)
        named: dict[str, Any] = {}
        for parameter in self._signature.parameters.values():
            if parameter.name not in bound.arguments:
                continue
            value = bound.arguments[parameter.name]
            if parameter.kind is parameter.VAR_KEYWORD:
                named |= value
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL) and value:
                raise UsageError(f"{parameter}: cannot travel together with keyword arguments")
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                named[parameter.name] = value
        return named

    def unpack(self, value: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments that `pack` made a value of; anything but an array or a map is the only one.

        None is no argument at all where none is needed.

        Raises:
            BadPayload: an argument is not of its type.
        """
        if isinstance(value, dict):
            return [], {str(name): self._typed(str(name), item) for name, item in value.items()}
        if value is None and not self._least:
            return [], {}
        items = value if isinstance(value, list) else [value]
        return [self._typed(self._name_at(index), item) for index, item in enumerate(items)], {}

    def result(self, value: Any) -> Any:
        """A result as its annotation says.

        Raises:
            BadPayload: it is not of that type.
        """
        try:
            return convert(value, self._types.get("return", Any))
        except BadPayload as error:
            raise BadPayload(f"the result of {self._function.__qualname__}: {error}") from None

    def _typed(self, name: str, value: Any) -> Any:
        kind = self._types.get(name, self._types.get(self._rest, Any))
        if kind is Any or kind is type(value):
            return value
        try:
            return convert(value, kind)
        except BadPayload as error:
            raise BadPayload(f"argument {name!r} of {self._function.__qualname__}: {error}") from None

    def _name_at(self, index: int) -> str:
        return self._names[index] if index < len(self._names) else self._rest

    @cached_property
    def _names(self) -> list[str]:
        return [
            name
            for name, p in self._signature.parameters.items()
            if p.kind not in (*_BY_NAME, p.VAR_POSITIONAL)
        ]

    @cached_property
    def _rest(self) -> str:
        """Name of `*args` or `**kwargs`, whose type all further arguments have."""
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return next((name for name, p in self._signature.parameters.items() if p.kind in variable), "")

    @cached_property
    def _types(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._function, include_extras=True)
        except NameError as error:
            raise UsageError(
                f"an annotation of {self._function.__qualname__} cannot be resolved when it runs: {error}; "
                "import the name outside of `if TYPE_CHECKING`"
            ) from error

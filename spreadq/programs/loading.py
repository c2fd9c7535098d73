"""Finding what `spreadq worker MODULE:NAME` is to serve."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from spreadq.app import App
from spreadq.async_worker import AsyncWorker
from spreadq.worker import Worker
from spreadq_core.errors import UsageError
from spreadq_core.policy import Policy


def load_worker(
    target: str, queue: str | None, address: str | None, concurrency: int, name: str | None, policy: Policy
) -> AsyncWorker:
    """The worker for an App or a Worker in a module, which is looked for in this directory, too.

    Raises:
        UsageError: there is no such module or name, or it is neither.
    """
    module_name, _, attribute = target.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"module {module_name!r} cannot be imported: {error}") from error
    found = getattr(module, attribute, None) if attribute else _only_one(module_name, vars(module))
    if not isinstance(found, App | Worker):
        raise UsageError(f"{target!r} is no App or Worker; write MODULE:NAME with the name of one")
    return found.worker(queue=queue, address=address, concurrency=concurrency, name=name, policy=policy)


def _only_one(module_name: str, names: dict[str, Any]) -> App | Worker:
    found = {id(value): value for value in names.values() if isinstance(value, App | Worker)}
    if len(found) != 1:
        raise UsageError(f"{module_name} has {len(found)} Apps and Workers; write {module_name}:NAME")
    return next(iter(found.values()))

"""`spreadq worker`: serves the functions of an App, or of a Worker."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from spreadq.app import App
from spreadq.async_worker import AsyncWorker
from spreadq.config import nanoseconds
from spreadq.programs.options import Log, Queue, Spread, Verbose
from spreadq.programs.runtime import log_end, run, set_up_logging, stopping
from spreadq.worker import Worker
from spreadq_core.errors import UsageError


def worker(
    target: str,
    *,
    queue: Queue = None,
    concurrency: Annotated[int, Parameter(name=["--concurrency", "-c"])] = 1,
    drain_timeout: str | None = None,
    name: str | None = None,
    spread: Spread = None,
    verbose: Verbose = False,
    log_format: Log = "auto",
) -> int:
    """Serve the functions of an App or a Worker.

    Args:
        target: MODULE or MODULE:NAME of the App or Worker; the module is looked for in this directory, too.
        concurrency: how many jobs run at a time.
        drain_timeout: how long running jobs may take to end once it is told to stop; else as the policy of
            the App or Worker says, which is 25s where it says nothing.
        name: of the worker, for people.
    """
    set_up_logging(log_format, verbose=verbose)
    loaded = load(target)
    policy = loaded.policy
    if drain_timeout is not None:
        policy = attrs.evolve(policy, drain_timeout=nanoseconds(drain_timeout))
    serving = loaded.worker(queue=queue, address=spread, concurrency=concurrency, name=name, policy=policy)
    return run(_work(serving))


async def _work(loaded: AsyncWorker) -> int:
    await loaded.start()  # until then signals do what they do to any program
    with stopping(loaded.stop):
        return log_end(await loaded.wait())


def load(target: str) -> App | Worker:
    """The App or Worker that MODULE or MODULE:NAME names.

    Raises:
        UsageError: there is no such module or name, or it is neither.
    """
    module_name, _, attribute = target.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        names = vars(importlib.import_module(module_name))
    except ImportError as error:
        raise UsageError(f"module {module_name!r} cannot be imported: {error}") from error
    except Exception as error:
        raise UsageError(f"module {module_name!r} cannot be imported:\n{traceback.format_exc()}") from error
    found = names.get(attribute) if attribute else _the_only_one(module_name, names)
    if not isinstance(found, App | Worker):
        raise UsageError(f"{target!r} is no App or Worker; write MODULE:NAME with the name of one")
    return found


def _the_only_one(module_name: str, names: dict[str, Any]) -> App | Worker:
    found = {id(value): value for value in names.values() if isinstance(value, App | Worker)}
    if len(found) != 1:
        raise UsageError(f"{module_name} has {len(found)} Apps and Workers; write {module_name}:NAME")
    return next(iter(found.values()))

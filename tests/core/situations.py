"""Every situation that a role can be in, as a world and the node that is in it."""

from __future__ import annotations

from spreadq_core.ids import SECOND
from spreadq_core.messages import Status
from tests.core.world import World, key_of


def _cluster():
    world = World()
    manager, worker, sender = world.manager(), world.worker(capacity=2), world.sender()
    world.advance(3 * SECOND)
    return world, manager, worker, sender


def _with_call(**options):
    world, manager, worker, sender = _cluster()
    sender.submit(**options)
    world.settle()
    return world, manager, worker, sender


# --- managers -------------------------------------------------------------------------------------


def manager_offline():
    world = World()
    return world, world.manager(connect=False)


def manager_meeting():
    world = World()
    return world, world.manager()


def manager_asking():
    world = World()
    first = world.manager()
    world.settle()
    world.freeze(first)
    node = world.manager()
    world.settle()
    return world, node


def manager_entering():
    world = World()
    node = world.manager()
    while node.role.primacy.stage.value != "entering":
        world.step()
    return world, node


def manager_alone():
    world = World()
    node = world.manager()
    world.settle()
    return world, node


def manager_holding():
    """Tasks come again to a manager that has no memory."""
    world, manager, worker, _ = _with_call()
    world.kill(manager)
    world.freeze(worker)
    world.advance(SECOND)
    node = world.manager()
    world.settle()
    return world, node


def manager_idle():
    world, node, _, _ = _cluster()
    return world, node


def manager_busy():
    world, node, _, _ = _with_call(expiry=5 * SECOND, run_limit=2 * SECOND)
    return world, node


def manager_with_a_greeted_worker():
    world, node, worker, _ = _with_call()
    worker.frozen = True
    world.connect(worker)
    worker.frozen = False
    hello = worker.held.pop()
    worker.role.handle(hello, world.time)
    worker.role.state.uplink.link.mail.pop()  # no Ready yet
    worker.deliver([])
    world.settle()
    return world, node


def manager_with_a_draining_worker():
    world, node, worker, _ = _with_call()
    worker.stop()
    world.settle()
    return world, node


def manager_passing_a_verdict():
    world, node, worker, _ = _with_call()
    world.fate = lambda receiver, event: () if event.sender == node.session else (0,)
    worker.end(b"E", status=Status.FAILED)
    world.settle()
    return world, node


def manager_keeping_an_outcome():
    world, node, worker, sender = _with_call()
    world.freeze(sender)
    worker.respond(b"r")
    worker.end(b"v")
    world.settle()
    return world, node


def manager_full_of_returned_tasks():
    world, node, worker, sender = _cluster()
    for priority in (0, 1, 9):
        sender.submit(priority=priority)
    world.settle()
    world.kill(worker)
    world.settle()
    return world, node


def manager_stopped():
    world, node, _, _ = _with_call()
    node.stop()
    return world, node


# --- workers --------------------------------------------------------------------------------------


def worker_offline():
    world = World()
    return world, world.worker(connect=False)


def worker_unknown():
    world = World()
    return world, world.worker()


def worker_idle():
    world, _, node, _ = _cluster()
    return world, node


def worker_busy():
    world, _, node, _ = _with_call()
    return world, node


def worker_responding():
    world, _, node, _ = _with_call()
    node.respond(b"r")
    world.settle()
    return world, node


def worker_told_to_cancel():
    world, _, node, sender = _with_call()
    sender.abandon(1)
    world.advance(SECOND)
    return world, node


def worker_not_receipted():
    world, manager, node, _ = _with_call()
    world.freeze(manager)
    node.end(b"v")
    world.settle()
    return world, node


def worker_draining():
    world, _, node, _ = _with_call()
    node.stop()
    world.settle()
    return world, node


def worker_gone():
    world, _, node, _ = _cluster()
    node.stop()
    node.stop()
    world.advance(SECOND)
    return world, node


# --- senders --------------------------------------------------------------------------------------


def sender_offline():
    world = World()
    node = world.sender(connect=False)
    node.submit()
    return world, node


def sender_without_manager():
    world = World()
    node = world.sender()
    node.submit()
    world.settle()
    return world, node


def sender_idle():
    world, _, _, node = _cluster()
    return world, node


def sender_waiting_for_acceptance():
    world, manager, _, node = _cluster()
    world.freeze(manager)
    node.submit(expiry=9 * SECOND)
    node.submit(reply=False, confirm=True)
    world.settle()
    return world, node


def sender_waiting_for_an_outcome():
    world, _, _, node = _with_call(function="g")
    world.advance(SECOND)
    return world, node


def sender_waiting_for_responses():
    world, _, worker, node = _with_call()
    world.fate = lambda receiver, event: () if receiver is node else (0,)
    worker.respond(b"a")
    world.settle()
    world.fate = lambda receiver, event: (0,)
    worker.respond(b"b")
    worker.end(b"v", key=key_of(node, 1))
    world.settle()
    assert node.role.state.open[1].outcome is not None
    return world, node


def sender_stopping():
    world, manager, _, node = _cluster()
    world.freeze(manager)
    node.submit()
    node.stop()
    return world, node


def sender_gone():
    world, _, _, node = _cluster()
    node.stop()
    return world, node


ALL = {name: make for name, make in globals().items() if name.startswith(("manager_", "worker_", "sender_"))}

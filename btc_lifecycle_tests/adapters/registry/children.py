"""Processes that conclude and roll back, and are killed at a given write.

A nursery imports everything once and forks a child for each order. It must not use what it imports:
MLflow's threads and connections start at their first use, and a process that has some is not to be
forked.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from btc_lifecycle.adapters.registry import PROMOTED, Registry
from btc_lifecycle_tests.adapters.registry.file_journal import FileJournal

WRITES = (
    "create_model_version",
    "delete_model_version_tag",
    "set_model_version_tag",
    "set_registered_model_alias",
)
"""What the registry calls of MLflow's client to write to the model registry."""

_IMPORTED_LATE = ("mlflow", "mlflow.lightgbm", "mlflow.store.tracking.sqlalchemy_store")


def before_writes(registry: Registry, call: Callable[[int], None]) -> None:
    """Call with its number, from 1 on, before each of a registry's writes to journal and MLflow."""
    numbers = itertools.count(1)

    def told(write: Callable[..., object]) -> Callable[..., object]:
        def tell_and_write(*args: object, **kwargs: object) -> object:
            call(next(numbers))
            return write(*args, **kwargs)

        return tell_and_write

    writers = [(registry._journal, "append"), *((registry._store.client, name) for name in WRITES)]
    for owner, name in writers:
        setattr(owner, name, told(getattr(owner, name)))


def at_write(registry: Registry, nth: int, stop: Callable[[], None]) -> None:
    """Call ``stop`` instead of a registry's nth write, from 1 on."""
    before_writes(registry, lambda number: stop() if number == nth else None)


def open_registry(folder: Path) -> Registry:
    """Return a registry of the store in a folder, with the journal beside it."""
    uri = f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
    return Registry(uri, uri, journal=FileJournal(folder / "journal"))


def carry_out(registry: Registry, order: str) -> None:
    """Do as ordered: ``create``, ``roll back``, ``register <run>`` or ``promote <version>``."""
    work, _, subject = order.partition(" ")
    if work == "promote":
        registry.conclude(subject, PROMOTED, reason="it is better", actor="a child")
    elif work == "create":
        registry.ensure_experiment()
    elif work == "register":
        registry.register(subject, actor="a child")
    else:
        registry.rollback(actor="a child")


@contextmanager
def nursery() -> Iterator[Callable[..., list[int]]]:
    """Yield what lets children carry out orders at once in a folder; it returns their statuses."""
    command = [sys.executable, "-m", "btc_lifecycle_tests.adapters.registry.children"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(folder: Path, *orders: str, kill_at: int = 0) -> list[int]:
            process.stdin.write(json.dumps([str(folder), kill_at, orders]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


def _serve() -> None:
    for name in _IMPORTED_LATE:
        import_module(name)
    for line in sys.stdin:
        folder, kill_at, orders = json.loads(line)
        children = []
        for order in orders:
            child = os.fork()
            if child == 0:
                registry = open_registry(Path(folder))
                if kill_at:
                    at_write(registry, kill_at, lambda: os.kill(os.getpid(), signal.SIGKILL))
                carry_out(registry, order)
                os._exit(0)
            children.append(child)
        sys.stdout.write(json.dumps([os.waitpid(child, 0)[1] for child in children]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()

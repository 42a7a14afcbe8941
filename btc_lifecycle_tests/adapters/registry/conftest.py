"""A store with a history, made once: three versions, two of them promoted, and one more candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from btc_lifecycle.adapters.registry import Registry
from btc_lifecycle_tests.adapters.registry.children import nursery
from btc_lifecycle_tests.adapters.registry.file_journal import FileJournal
from btc_lifecycle_tests.model_builders import ACTOR, copy_store, log_candidate, promote_new


@dataclass(frozen=True, kw_only=True)
class History:
    """Version 2 serves, 1 is previous, 3 is the candidate; the run's model is not registered."""

    store: Path
    run_id: str

    def copy_to(self, folder: Path) -> Registry:
        """Return a registry of a copy of the store, with a journal beside it."""
        folder.mkdir(exist_ok=True)
        uri = copy_store(self.store, folder)
        return Registry(uri, uri, journal=FileJournal(folder / "journal"))


@pytest.fixture(scope="session")
def history(empty_mlflow_store, tmp_path_factory) -> History:
    folder = tmp_path_factory.mktemp("history")
    uri = copy_store(empty_mlflow_store, folder)
    registry = Registry(uri, uri)
    promote_new(registry, seed=0)
    promote_new(registry, seed=1)
    registry.register(log_candidate(registry, seed=2), actor=ACTOR)
    return History(store=folder / "mlflow" / "mlflow.db", run_id=log_candidate(registry, seed=3))


@pytest.fixture(scope="session")
def children() -> Iterator[Callable[..., list[int]]]:
    """What lets processes carry out orders, at once or until they are killed."""
    with nursery() as run:
        yield run

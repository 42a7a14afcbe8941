"""Changes of aliases that are cut short at each write: afterwards all of it happened, or nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest

from btc_lifecycle.adapters.registry import DEFERRED, PROMOTED, REFUSED, AliasMove, Registry
from btc_lifecycle.domain.errors import NeighbourUnavailableError
from btc_lifecycle_tests.adapters.registry.children import (
    at_write,
    before_writes,
    carry_out,
    open_registry,
)
from btc_lifecycle_tests.model_builders import ACTOR

ALIASES = ("production", "previous", "candidate")

State = dict[str, object]


class Killed(BaseException):
    """Ends an operation as no except clause for errors would stop it."""


def kill() -> None:
    raise Killed


def number_of(registry: Registry, alias: str) -> str | None:
    found = registry._store.find_version("bitcoin-model", alias)
    return found and str(found.version)


def state(registry: Registry) -> State:
    """Return where aliases are and what was concluded, without the times."""
    found: State = {alias: number_of(registry, alias) for alias in ALIASES}
    number = 1
    while (version := registry._store.find_version("bitcoin-model", str(number))) is not None:
        told = {k: v for k, v in version.tags.items() if "verdict" in k and k != "verdict_at"}
        found[f"verdict on {number}"] = told
        number += 1
    return found


def journalled(registry: Registry) -> list[AliasMove]:
    """Return the journal's rows, after checking that each move has its two."""
    rows = registry._journal.rows()
    assert Counter(row.move_id for row in rows) == dict.fromkeys({it.move_id for it in rows}, 2)
    for move_id in {row.move_id for row in rows}:
        first, last = (row for row in rows if row.move_id == move_id)
        assert first.state == "intended"
        assert last.state in {"done", "abandoned"}
        assert replace(last, state="intended", moved_at=first.moved_at) == first
        assert first.moved_at <= last.moved_at
    return rows


def told(registry: Registry, alias: str) -> str | None:
    """Return where an alias is by its journal alone."""
    done = [row for row in journalled(registry) if (row.alias, row.state) == (alias, "done")]
    for earlier, later in pairwise(done):
        assert earlier.to_version == later.from_version
    return done[-1].to_version if done else None


@dataclass(frozen=True, kw_only=True)
class Disk:
    """What a process that is killed leaves behind."""

    store: bytes
    journal: bytes

    @classmethod
    def of(cls, folder: Path) -> Self:
        with closing(sqlite3.connect(folder / "mlflow" / "mlflow.db")) as database:
            return cls(store=database.serialize(), journal=(folder / "journal").read_bytes())

    def put_back(self, folder: Path) -> Registry:
        """Let a store have been left so; a new file would cost what MLflow does at the first use."""
        (folder / "journal").write_bytes(self.journal)
        with (
            closing(sqlite3.connect(":memory:")) as left,
            closing(sqlite3.connect(folder / "mlflow" / "mlflow.db")) as database,
        ):
            left.deserialize(self.store)
            left.backup(database)
        return open_registry(folder)


@pytest.mark.parametrize(("work", "n_moves"), [("promote 3", 2), ("roll back", 2), ("register", 1)])
def test_a_change_that_was_cut_short_is_settled_to_before_or_after(
    history, tmp_path, work, n_moves
):
    """And whether it was settled or not, doing it again ends it."""
    order = f"register {history.run_id}" if work == "register" else work
    folder = tmp_path / "served"
    registry = history.copy_to(folder)
    registry._journal.path.touch()
    before, disks = state(registry), []
    before_writes(registry, lambda _: disks.append(Disk.of(folder)))
    carry_out(registry, order)
    after, ends = state(registry), []
    for disk in disks:
        again = disk.put_back(folder)
        carry_out(again, order)
        assert state(again) == after
        assert all(told(again, alias) in (None, after[alias]) for alias in ALIASES)

        settled = disk.put_back(folder)
        rows, now = settled.settle(), state(settled)
        if now["candidate"] != after["candidate"]:
            # The version may be there: before the alias moved it is nobody's candidate.
            now.pop("verdict on 4", None)
        assert now == after or (now == before and after not in ends)
        assert len(rows) <= n_moves
        assert {row.state for row in rows} <= {"done" if now == after else "abandoned"}
        assert all(told(settled, alias) in (None, now[alias]) for alias in ALIASES)
        assert settled.settle() == []
        ends.append(now)
    assert ends.count(before) > n_moves
    assert ends.count(after) >= n_moves


@pytest.mark.parametrize(
    ("order", "kill_at"), [("promote 3", 2), ("promote 3", 5), ("roll back", 5)]
)
def test_a_killed_process_leaves_no_lock_and_no_half_a_change(
    history, tmp_path, children, order, kill_at
):
    folder = tmp_path / "killed"
    before = state(history.copy_to(folder))
    assert children(folder, order, kill_at=kill_at) == [9]
    registry = open_registry(folder)
    assert registry._journal.unfinished()
    registry.settle()
    champion = registry.champion().version
    assert (state(registry) == before) == (champion == "2")
    carry_out(registry, "promote 3")
    assert told(registry, "production") == registry.champion().version == "3"


def test_of_two_processes_that_promote_at_once_one_comes_after_the_other(
    history, tmp_path, children
):
    folder = tmp_path / "both"
    registry = history.copy_to(folder)
    registry.register(history.run_id, actor=ACTOR)
    assert children(folder, "promote 3", "promote 4") == [0, 0]
    first, second = [
        row.to_version
        for row in journalled(registry)
        if (row.alias, row.state) == ("production", "done")
    ]
    assert {first, second} == {"3", "4"}
    assert registry.champion().version == told(registry, "production") == second
    assert registry.version("previous").version == told(registry, "previous") == first
    assert [registry.version(it).verdict for it in ("3", "4")] == [PROMOTED, PROMOTED]


def test_a_journal_that_cannot_be_written_moves_nothing(history, tmp_path):
    registry = history.copy_to(tmp_path / "served")
    before = state(registry)

    def fail() -> None:
        raise NeighbourUnavailableError("the disk is full", hint="make room")

    for nth, order in [(1, "promote 3"), (2, "promote 3"), (1, "roll back"), (2, "roll back")]:
        again = open_registry(tmp_path / "served")
        at_write(again, nth, fail)
        with pytest.raises(NeighbourUnavailableError, match="the disk is full"):
            carry_out(again, order)
        registry.settle()
        assert state(registry) == before


def test_a_rollback_asked_for_after_a_promotion_was_cut_short_undoes_that_promotion(
    history, tmp_path
):
    registry = history.copy_to(tmp_path / "served")
    at_write(registry, 6, kill)
    with pytest.raises(Killed):
        carry_out(registry, "promote 3")
    again = open_registry(tmp_path / "served")
    assert again.champion().version == "3"
    assert again.rollback(actor=ACTOR).version == "2"
    assert again.version("3").verdict == "rolled back"


def test_a_no_settles_first_what_was_cut_short(history, tmp_path):
    registry = history.copy_to(tmp_path / "served")
    at_write(registry, 4, kill)
    with pytest.raises(Killed):
        carry_out(registry, "promote 3")
    again = open_registry(tmp_path / "served")
    again.conclude("3", REFUSED, reason="worse", actor=ACTOR)
    assert told(again, "production") is None
    assert again.champion().version == "2"
    assert "pending_verdict" not in again.version("3").tags


def test_an_alias_that_somebody_else_moved_since_is_left_where_it_is(history, tmp_path):
    registry = history.copy_to(tmp_path / "served")
    at_write(registry, 5, kill)
    with pytest.raises(Killed):
        carry_out(registry, "promote 3")
    registry._store.client.set_registered_model_alias("bitcoin-model", "production", "1")
    again = open_registry(tmp_path / "served")
    assert {row.state for row in again.settle()} == {"abandoned"}
    assert again.champion().version == "1"
    assert again.version("3").verdict is None


def test_moves_of_another_model_are_left_to_it(history, tmp_path):
    registry = history.copy_to(tmp_path / "served")
    at_write(registry, 5, kill)
    with pytest.raises(Killed):
        carry_out(registry, "promote 3")
    uri, journal = registry.tracking_uri, registry._journal
    assert Registry(uri, uri, model_name="bitcoin-volatility", journal=journal).settle() == []
    assert len(journal.unfinished()) == 2


def test_a_verdict_that_waits_for_a_change_nobody_knows_of_is_not_taken_up(history, tmp_path):
    """A registry without a journal was cut short, and its version is in a later change."""
    registry = history.copy_to(tmp_path / "served")
    unrecorded = Registry(registry.tracking_uri, registry.tracking_uri)
    unrecorded._store.client.set_model_version_tag(
        "bitcoin-model", "1", "pending_verdict", '{"move_id": "x", "tags": {"verdict": "refused"}}'
    )
    at_write(registry, 5, kill)
    with pytest.raises(Killed):
        carry_out(registry, "roll back")
    again = open_registry(tmp_path / "served")
    assert {row.state for row in again.settle()} == {"done"}
    assert again.version("1").verdict == PROMOTED


def test_a_store_that_is_gone_is_not_made_anew_to_settle(tmp_path):
    registry = open_registry(tmp_path)
    now = datetime(2024, 5, 1, tzinfo=UTC)
    registry._journal.append(
        AliasMove(
            move_id="m",
            moved_at=now,
            model_name="bitcoin-model",
            alias="production",
            from_version=None,
            to_version="1",
            actor=ACTOR,
            reason="it is better",
            state="intended",
        )
    )
    assert [row.state for row in registry.settle()] == ["abandoned"]
    assert not (tmp_path / "mlflow" / "mlflow.db").exists()
    shutil.rmtree(tmp_path / "mlflow")
    assert registry.settle() == []
    assert not (tmp_path / "mlflow").exists()


def test_without_a_journal_changes_are_made_all_the_same(history, tmp_path):
    journalled_ = history.copy_to(tmp_path / "served")
    registry = Registry(journalled_.tracking_uri, journalled_.tracking_uri)
    registry.conclude("3", DEFERRED, reason="too few rows", actor=ACTOR)
    registry.conclude("3", PROMOTED, reason="it is better", actor=ACTOR)
    assert registry.settle() == []
    assert registry.rollback(actor=ACTOR).version == "2"
    assert journalled_._journal.rows() == []

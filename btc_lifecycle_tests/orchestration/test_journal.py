"""The journal of alias moves on a real database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from btc_lifecycle.adapters.registry import AliasMove
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.errors import NeighbourUnavailableError
from btc_lifecycle.domain.tables import ALIAS_MOVES
from btc_lifecycle.orchestration.journal import WarehouseJournal

MOVE = AliasMove(
    move_id="a",
    moved_at=datetime(2024, 1, 1, 12, 0, 0, 123456, tzinfo=UTC),
    model_name="bitcoin-model",
    alias="production",
    from_version=None,
    to_version="1",
    actor="training_job 5f0c",
    reason="beats the prior",
    state="intended",
)


@pytest.fixture
def journal(tmp_path: Path) -> WarehouseJournal:
    return WarehouseJournal(Warehouse(tmp_path / "store" / "bitcoin.duckdb"))


def test_an_empty_folder_has_no_moves_and_stays_empty(
    journal: WarehouseJournal, tmp_path: Path
) -> None:
    assert journal.unfinished() == []
    assert list(tmp_path.iterdir()) == []


def test_a_move_that_nobody_ended_comes_back_as_it_was_told(journal: WarehouseJournal) -> None:
    journal.append(MOVE)
    assert journal.unfinished() == [MOVE]


@pytest.mark.parametrize("state", ["done", "abandoned"])
def test_an_ended_move_is_unfinished_no_more(journal: WarehouseJournal, state: str) -> None:
    later = MOVE.moved_at + timedelta(seconds=1)
    other = replace(MOVE, move_id="b", from_version="1", to_version="2", moved_at=later)
    for line in (MOVE, other, replace(MOVE, state=state)):
        journal.append(line)
    assert journal.unfinished() == [other]


def test_the_oldest_move_comes_first(journal: WarehouseJournal) -> None:
    earlier = replace(MOVE, move_id="b", moved_at=MOVE.moved_at - timedelta(seconds=1))
    for line in (MOVE, earlier):
        journal.append(line)
    assert journal.unfinished() == [earlier, MOVE]


def test_every_line_stays(journal: WarehouseJournal, tmp_path: Path) -> None:
    for line in (MOVE, replace(MOVE, state="done")):
        journal.append(line)
    rows = Warehouse(tmp_path / "store" / "bitcoin.duckdb").read(ALIAS_MOVES)
    assert rows["state"].to_list() == ["done", "intended"]
    assert rows["from_version"].to_list() == [None, None]


def test_a_move_is_not_made_where_it_cannot_be_told(tmp_path: Path) -> None:
    (tmp_path / "bitcoin.duckdb").mkdir()
    with pytest.raises(NeighbourUnavailableError):
        WarehouseJournal(Warehouse(tmp_path / "bitcoin.duckdb")).append(MOVE)

"""The journal of alias moves: rows of the warehouse that are only ever added."""

from dataclasses import asdict

import polars as pl

from btc_lifecycle.adapters.registry import MODEL_NAME, AliasMove, Registry
from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.tables import ALIAS_MOVES
from btc_lifecycle.settings import Settings


class WarehouseJournal:
    """Keeps what the registry tells it before and after each move of an alias."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def append(self, move: AliasMove) -> None:
        """Store one line of a move, in a transaction of its own."""
        self._warehouse.upsert(ALIAS_MOVES, pl.DataFrame([asdict(move)], schema=ALIAS_MOVES.schema))

    def unfinished(self) -> list[AliasMove]:
        """Return the moves of which nobody said how they ended, the oldest first."""
        if not self._warehouse.path.exists():
            return []
        lines = self._warehouse.read(ALIAS_MOVES)
        ended = lines.filter(pl.col("state") != "intended")
        intended = lines.filter(state="intended").join(ended, on="move_id", how="anti")
        return [AliasMove(**line) for line in intended.sort("moved_at").iter_rows(named=True)]


def open_registry(settings: Settings, *, model_name: str = MODEL_NAME) -> Registry:
    """Return the registry of a model, whose moves are kept; nothing is opened yet."""
    return Registry(
        settings.mlflow_tracking_uri,
        settings.mlflow_registry_uri,
        model_name=model_name,
        journal=WarehouseJournal(Warehouse(settings.feature_db_path)),
    )

"""What Dagster shows of the tables: each asset's columns, and which columns they are made of."""

from collections.abc import Mapping

import dagster as dg

from btc_lifecycle.domain.tables import CANDLES, CATALOGUE, LABELS, Table

_KEY = ("symbol", "open_time")
_OUTCOME = ("open_time", "high", "low", "close")


def schema_of(table: Table) -> dict[str, dg.TableSchema]:
    """Return the metadata that shows a table's columns."""
    columns = [
        dg.TableColumn(
            name=column.name,
            type=column.type,
            description=f"{column.meaning} [{column.unit}]" if column.unit else column.meaning,
            constraints=dg.TableColumnConstraints(nullable=column.is_nullable),
        )
        for column in table.columns
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns)}


def lineage_of_features() -> dict[str, dg.TableColumnLineage]:
    """Return the metadata that shows the candles' columns behind each feature."""
    return _lineage({entry.name: entry.inputs for entry in CATALOGUE})


def lineage_of_labels() -> dict[str, dg.TableColumnLineage]:
    """Return the metadata that shows the candles' columns behind each outcome."""
    outcomes = [name for name in LABELS.schema.names() if name not in _KEY]
    return _lineage(dict.fromkeys(outcomes, _OUTCOME))


def _lineage(inputs: Mapping[str, tuple[str, ...]]) -> dict[str, dg.TableColumnLineage]:
    of_key = {name: (name,) for name in _KEY}
    deps = {
        name: [dg.TableColumnDep(asset_key=CANDLES.name, column_name=column) for column in columns]
        for name, columns in {**of_key, **inputs}.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)}

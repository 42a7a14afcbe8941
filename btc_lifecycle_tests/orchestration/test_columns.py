"""What Dagster's UI is told of tables and of where their columns come from."""

from __future__ import annotations

import pytest

from btc_lifecycle.domain.tables import CANDLES, FEATURES, LABELS, TABLES, Table
from btc_lifecycle.orchestration.columns import lineage_of_features, lineage_of_labels, schema_of


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_is_shown_with_type_unit_and_whether_it_may_be_missing(table: Table) -> None:
    shown = schema_of(table)["dagster/column_schema"].columns
    assert [(column.name, column.type) for column in shown] == [
        (column.name, column.type) for column in table.columns
    ]
    for column, seen in zip(table.columns, shown, strict=True):
        assert column.unit in str(seen.description)
        assert seen.constraints.nullable == column.is_nullable


@pytest.mark.parametrize(
    ("table", "lineage"), [(FEATURES, lineage_of_features()), (LABELS, lineage_of_labels())]
)
def test_every_column_comes_from_columns_of_the_candles(table: Table, lineage: dict) -> None:
    deps = lineage["dagster/column_lineage"].deps_by_column
    assert set(deps) == set(table.schema.names())
    for columns in deps.values():
        assert columns
        assert {dep.asset_key.to_user_string() for dep in columns} == {"candles"}
        assert {dep.column_name for dep in columns} <= set(CANDLES.schema.names())


def test_a_feature_of_taker_volumes_says_so() -> None:
    deps = lineage_of_features()["dagster/column_lineage"].deps_by_column
    assert "taker_buy_base" in {dep.column_name for dep in deps["taker_imbalance_5m"]}
    assert "taker_buy_base" not in {dep.column_name for dep in deps["log_return_5m"]}

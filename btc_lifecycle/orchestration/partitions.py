"""The one partitioning of the market's history."""

import dagster as dg

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2017-08-01", end_offset=1)
"""UTC months since BTC/USDT began to trade on Binance, the present one included."""

RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
"""Tags by which Dagster knows one run for the partitions from a first to a last one."""

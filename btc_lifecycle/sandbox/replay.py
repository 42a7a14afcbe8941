"""Recorded one-minute candles from Parquet files, served as the exchange would.

Missing minutes stay missing and open times off the minute grid stay off it. Binance never sends
null, so an absent quote volume, trade count or taker volume is served as zero: a client cannot tell
that from a minute without trades and should know it from the label "replay".
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from btc_lifecycle.domain.errors import ConfigurationError, DataError
from btc_lifecycle.sandbox.market import (
    BlockCache,
    KlineBlock,
    MarketLabel,
    as_ms,
    split_symbol,
)

REQUIRED_COLUMNS = ("open_time", "open", "high", "low", "close", "volume")
OPTIONAL_COLUMNS = ("quote_volume", "trades", "taker_buy_base", "taker_buy_quote")

_MONTH_NAME = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")
_BLOCKS_KEPT = 12


class ReplayMarket:
    """Candles of a folder that holds ``SYMBOL/YYYY-MM.parquet``, or of one such symbol's folder.

    A month is read when first asked for; the last twelve stay in memory.

    Args:
        folder: Its files have the columns of REQUIRED_COLUMNS, ``open_time`` zoned to UTC, and any
            of OPTIONAL_COLUMNS.

    Raises:
        ConfigurationError: When there is no such file, or one lacks a column.
    """

    label: MarketLabel = "replay"

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._files = _find_files(self.folder)
        self.symbols = tuple(self._files)
        self._lock = threading.Lock()
        self._blocks = BlockCache(capacity=_BLOCKS_KEPT)

    def block_starts(self, symbol: str, *, until_ms: int) -> Sequence[int]:
        """Return the starts of the recorded months up to ``until_ms``."""
        starts = list(self._files[symbol])
        return starts[: bisect_right(starts, until_ms)]

    def block(self, symbol: str, *, start_ms: int) -> KlineBlock:
        """Return the recorded month that starts at ``start_ms``.

        Raises:
            DataError: When the file misses prices or volumes, or repeats or misplaces an open time.
        """
        path = self._files[symbol][start_ms]
        with self._lock:
            return self._blocks.get(path, make=lambda: _read_block(path))

    def describe(self) -> dict[str, object]:
        """Return folder and months as JSON values; a recording has no seed and no regimes."""
        months = {
            symbol: [path.stem for path in files.values()] for symbol, files in self._files.items()
        }
        return {"seed": None, "regimes": [], "folder": str(self.folder), "months": months}


def _find_files(folder: Path) -> dict[str, dict[int, Path]]:
    """Return by symbol the files of its months, keyed by the month's start in milliseconds."""
    is_one_symbol = any(folder.glob("*.parquet"))
    symbol_folders = [folder.resolve()] if is_one_symbol else sorted(folder.glob("*/"))
    found = {one.name: _months(one) for one in symbol_folders}
    found = {symbol: months for symbol, months in found.items() if months}
    if not found:
        raise ConfigurationError(
            f"{folder}: no recorded candles to replay",
            hint="name a folder with SYMBOL/YYYY-MM.parquet, such as BTCUSDT/2024-03.parquet",
        )
    for symbol in found:
        split_symbol(symbol)
    return found


def _months(folder: Path) -> dict[int, Path]:
    months = {}
    for path in sorted(folder.glob("*.parquet")):
        if name := _MONTH_NAME.fullmatch(path.stem):
            _refuse_missing_columns(path)
            months[as_ms(datetime(int(name[1]), int(name[2]), 1, tzinfo=UTC))] = path
    return months


def _refuse_missing_columns(path: Path) -> None:
    schema = pl.read_parquet_schema(path)
    if missing := [name for name in REQUIRED_COLUMNS if name not in schema]:
        raise ConfigurationError(
            f"{path}: the column(s) {', '.join(missing)} are missing",
            hint="replay files that hold one-minute candles",
        )
    open_time = schema["open_time"]
    if not isinstance(open_time, pl.Datetime) or open_time.time_zone != "UTC":
        raise ConfigurationError(
            f"{path}: open_time is {open_time}", hint="replay files whose open_time is zoned to UTC"
        )


def _read_block(path: Path) -> KlineBlock:
    frame = pl.read_parquet(path).sort("open_time")
    absent = [name for name in OPTIONAL_COLUMNS if name not in frame.columns]
    frame = frame.with_columns(pl.lit(0).alias(name) for name in absent)
    is_in_month = pl.col("open_time").dt.strftime("%Y-%m") == path.stem
    is_repeated = pl.col("open_time").is_duplicated()
    is_broken = pl.any_horizontal(pl.col(REQUIRED_COLUMNS).is_null(), ~is_in_month, is_repeated)
    broken = frame.filter(is_broken)
    if not broken.is_empty():
        raise DataError(
            f"{path}: {broken.height} candles lack a value, repeat an open time or lie outside the "
            f"month, first at {broken['open_time'][0]}",
            hint="replay another file",
        )
    frame = frame.with_columns(
        pl.col("open_time").dt.epoch("ms"),
        pl.col("open", "high", "low", "close", "volume").cast(pl.Float64),
        pl.col("quote_volume", "taker_buy_base", "taker_buy_quote").fill_null(0).cast(pl.Float64),
        pl.col("trades").fill_null(0).cast(pl.Int64),
    )
    names = (*REQUIRED_COLUMNS[1:], *OPTIONAL_COLUMNS)
    return KlineBlock(
        frame["open_time"].to_numpy(), columns=[frame[name].to_numpy() for name in names]
    )

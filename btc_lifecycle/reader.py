"""The analyst's door: stored candles as plain records.

``pandas.DataFrame(load_candles_from_duckdb())`` makes a frame of them, and so does
``polars.DataFrame(load_candles_from_duckdb(), schema=CANDLES.schema)``; without the schema, Polars
keeps the times in UTC and forgets that they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from btc_lifecycle.adapters.warehouse import Warehouse
from btc_lifecycle.domain.tables import CANDLES, Table
from btc_lifecycle.settings import load_settings


@dataclass(frozen=True, kw_only=True, slots=True)
class BitcoinCandle:
    """One closed candle as the exchange gave it; prices in quote, amounts in the unit of their name.

    Attributes:
        symbol: Market in ccxt's form, such as BTC/USDT.
        open_time: When its minute opened, aware UTC.
        open: First trade's price.
        high: Highest trade's price.
        low: Lowest trade's price.
        close: Last trade's price.
        volume: Amount traded, in the base asset.
        quote_volume: Value traded, in the quote asset; None where the exchange gives none.
        trades: Number of trades; None where the exchange gives none.
        taker_buy_base: Amount bought by takers, in the base asset; None where there is none.
        taker_buy_quote: Value bought by takers, in the quote asset; None where there is none.
    """

    symbol: str
    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float | None
    trades: int | None
    taker_buy_base: float | None
    taker_buy_quote: float | None


def load_candles_from_duckdb(
    db_path: Path | str | None = None,
    *,
    table: str | None = None,
    symbol: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[BitcoinCandle]:
    """Return stored candles, by symbol and open time.

    Args:
        db_path: DuckDB file; by default that of the environment, FEATURE_DB_PATH.
        table: Table of candles; by default that of the ingest configuration.
        symbol: Only this market, such as BTC/USDT.
        start: Only candles that open at or after this aware time.
        end: Only candles that open before this aware time.

    Raises:
        NothingToServeError: If there is no database yet.
        NeighbourUnavailableError: If another process keeps the database locked.
    """
    warehouse, candles = _opened(db_path, table)
    rows = warehouse.read(candles, symbol=symbol, start=start, end=end)
    return [BitcoinCandle(**row) for row in rows.iter_rows(named=True)]


def count_candles(
    db_path: Path | str | None = None, *, table: str | None = None, symbol: str | None = None
) -> int:
    """Return how many candles are stored; arguments and errors as for loading them."""
    warehouse, candles = _opened(db_path, table)
    return warehouse.count(candles, symbol=symbol)


def _opened(db_path: Path | str | None, table: str | None) -> tuple[Warehouse, Table]:
    if db_path is None or table is None:
        settings = load_settings()
        db_path, table = db_path or settings.feature_db_path, table or settings.ingest.table
    return Warehouse(Path(db_path)), CANDLES.renamed(table)

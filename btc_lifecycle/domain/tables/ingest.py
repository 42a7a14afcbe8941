"""Tables of candles, and of what was missing, revised, refused and fetched."""

from __future__ import annotations

from dataclasses import dataclass

from btc_lifecycle.domain.tables.table import Column, Table

SYMBOL = Column(name="symbol", type="VARCHAR", meaning="market in ccxt's form, such as BTC/USDT")

CANDLE_KEY = (
    SYMBOL,
    Column(
        name="open_time", type="TIMESTAMP", unit="UTC", meaning="when the candle's minute opened"
    ),
)

CANDLES = Table(
    name="candles",
    meaning="Closed one-minute candles as the exchange gave them.",
    key=("symbol", "open_time"),
    columns=(
        *CANDLE_KEY,
        Column(name="open", type="DOUBLE", unit="quote", meaning="first trade's price"),
        Column(name="high", type="DOUBLE", unit="quote", meaning="highest trade's price"),
        Column(name="low", type="DOUBLE", unit="quote", meaning="lowest trade's price"),
        Column(name="close", type="DOUBLE", unit="quote", meaning="last trade's price"),
        Column(name="volume", type="DOUBLE", unit="base", meaning="amount traded"),
        Column(
            name="quote_volume",
            type="DOUBLE",
            unit="quote",
            meaning="value traded",
            is_nullable=True,
        ),
        Column(name="trades", type="BIGINT", meaning="number of trades", is_nullable=True),
        Column(
            name="taker_buy_base",
            type="DOUBLE",
            unit="base",
            meaning="amount bought by takers",
            is_nullable=True,
        ),
        Column(
            name="taker_buy_quote",
            type="DOUBLE",
            unit="quote",
            meaning="value bought by takers",
            is_nullable=True,
        ),
    ),
)

CANDLE_GAPS = Table(
    name="candle_gaps",
    meaning="Minutes that the exchange was asked for and has no candle of; never filled, asked again.",
    key=("symbol", "gap_start"),
    time_column="gap_start",
    columns=(
        SYMBOL,
        Column(name="gap_start", type="TIMESTAMP", unit="UTC", meaning="first missing minute"),
        Column(name="gap_end", type="TIMESTAMP", unit="UTC", meaning="end, exclusive"),
        Column(
            name="first_seen_at", type="TIMESTAMP", unit="UTC", meaning="exchange's time when found"
        ),
        Column(name="tries", type="BIGINT", meaning="how often it was asked for again"),
        Column(
            name="next_try_at",
            type="TIMESTAMP",
            unit="UTC",
            meaning="when it is asked for next; missing after the last try",
            is_nullable=True,
        ),
    ),
)

CANDLE_REVISIONS = Table(
    name="candle_revisions",
    meaning="What a candle was before the exchange revised it.",
    key=("symbol", "open_time", "revised_at"),
    columns=(
        *CANDLE_KEY,
        Column(
            name="revised_at",
            type="TIMESTAMP",
            unit="UTC",
            meaning="exchange's time when other values were found",
        ),
        *CANDLES.columns[len(CANDLE_KEY) :],
    ),
)

CANDLE_QUARANTINE = Table(
    name="candle_quarantine",
    meaning="Rows of the exchange that are no candles, with the reason; they are stored nowhere else.",
    key=("symbol", "kline"),
    time_column="seen_at",
    columns=(
        SYMBOL,
        Column(name="kline", type="VARCHAR", meaning="the row's fields as they came"),
        Column(
            name="open_time",
            type="TIMESTAMP",
            unit="UTC",
            meaning="when its minute opened, where that can be read",
            is_nullable=True,
        ),
        Column(name="reason", type="VARCHAR", meaning="the rule that it breaks"),
        Column(
            name="seen_at", type="TIMESTAMP", unit="UTC", meaning="exchange's time when it came"
        ),
    ),
)

FETCHED_RANGES = Table(
    name="fetched_ranges",
    meaning="The stretches of time that the exchange was asked for; what lies between was never asked.",
    key=("symbol", "range_start"),
    time_column="range_start",
    columns=(
        SYMBOL,
        Column(name="range_start", type="TIMESTAMP", unit="UTC", meaning="first minute"),
        Column(name="range_end", type="TIMESTAMP", unit="UTC", meaning="end, exclusive"),
    ),
)

ARCHIVE_FILES = Table(
    name="archive_files",
    meaning="Files of the exchange's public archive whose candles are stored.",
    key=("symbol", "file_name"),
    time_column="stored_at",
    columns=(
        SYMBOL,
        Column(name="file_name", type="VARCHAR", meaning="name within the archive"),
        Column(
            name="sha256", type="VARCHAR", meaning="checksum; a file is issued again with another"
        ),
        Column(name="n_rows", type="BIGINT", meaning="candles in the file"),
        Column(
            name="n_differing", type="BIGINT", meaning="candles that were stored with other values"
        ),
        Column(
            name="stored_at", type="TIMESTAMP", unit="UTC", meaning="exchange's time when stored"
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class CandleTables:
    """The table of candles with the tables that tell its story."""

    candles: Table
    gaps: Table
    revisions: Table
    quarantine: Table
    ranges: Table
    archive_files: Table

    @classmethod
    def named(cls, name: str = CANDLES.name) -> CandleTables:
        """Return the tables for candles stored under ``name``.

        Beside any other name than candles the others carry it too, so that two tables of candles in
        one database do not tell each other's story.
        """
        prefix = "" if name == CANDLES.name else f"{name}_"
        return cls(
            candles=CANDLES.renamed(name),
            gaps=CANDLE_GAPS.renamed(prefix + CANDLE_GAPS.name),
            revisions=CANDLE_REVISIONS.renamed(prefix + CANDLE_REVISIONS.name),
            quarantine=CANDLE_QUARANTINE.renamed(prefix + CANDLE_QUARANTINE.name),
            ranges=FETCHED_RANGES.renamed(prefix + FETCHED_RANGES.name),
            archive_files=ARCHIVE_FILES.renamed(prefix + ARCHIVE_FILES.name),
        )

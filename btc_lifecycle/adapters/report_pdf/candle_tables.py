"""The key figures and tables of the ingestion report: a summary's numbers as text."""

from __future__ import annotations

from collections.abc import Mapping

from btc_lifecycle.adapters.report_pdf.layout import Table, Tile
from btc_lifecycle.adapters.report_pdf.style import (
    MINUS,
    NOTHING,
    amount,
    count,
    duration,
    number,
    percent,
    price,
    price_decimals,
    symbol_units,
    utc,
)
from btc_lifecycle.domain.ingest.summary import CandleSummary, Move


def market_tiles(summary: CandleSummary) -> tuple[Tile, ...]:
    """Return the figures at the head of the report."""
    coverage = summary.coverage
    _, quote = symbol_units(summary.symbol)
    return (
        Tile(
            label=f"Last close, {quote}" if quote else "Last close",
            value=price(summary.price.last),
            note=f"{utc(coverage.last_open_time)} UTC",
        ),
        Tile(
            label="Change over the span",
            value=percent(summary.price.change_ratio, is_signed=True),
            note=f"from {price(summary.price.first)}",
        ),
        Tile(
            label="Annualised volatility",
            value=percent(summary.returns.annualized_volatility_ratio, decimals=1),
            note="from 1-minute returns",
        ),
        Tile(
            label="Candles",
            value=count(coverage.n_rows),
            note=f"of {count(coverage.n_expected_min)} minutes",
        ),
        _missing_tile(summary),
    )


def quality_tiles(summary: CandleSummary) -> tuple[Tile, ...]:
    """Return the figures at the head of the data-quality page."""
    coverage = summary.coverage
    counts = (
        ("Off the minute grid", coverage.n_off_grid, "candles, kept as they are"),
        ("Without a trade", coverage.n_zero_volume, "candles of volume zero"),
    )
    return (
        Tile(
            label="Minutes present",
            # Rounded down: a missing minute must not read as 100 %.
            value=f"{int(coverage.present_ratio * 1e5) / 1e3:.3f} %",
            note=f"of {count(coverage.n_expected_min)}",
            tone="warning" if coverage.n_missing_min else "good",
        ),
        _missing_tile(summary),
        *(
            Tile(label=label, value=count(n), note=note, tone="warning" if n else "good")
            for label, n, note in counts
        ),
    )


def data_table(summary: CandleSummary, *, stats: Mapping[str, object]) -> Table:
    """Return span and counts, with what the ingest itself reported."""
    coverage = summary.coverage
    return Table(
        title="Data",
        rows=(
            ("first candle, UTC", utc(coverage.first_open_time)),
            ("last candle, UTC", utc(coverage.last_open_time)),
            ("candles in this report", count(coverage.n_rows)),
            ("new with this ingest", count(stats.get("new_rows"))),
            ("stored in all", count(stats.get("total_rows"))),
            ("missing minutes", count(coverage.n_missing_min)),
        ),
    )


def price_table(summary: CandleSummary) -> Table:
    """Return prices with their times."""
    stats, decimals = summary.price, price_decimals(summary.price.last)
    _, quote = symbol_units(summary.symbol)
    return Table(
        title=f"Price, {quote}" if quote else "Price",
        rows=(
            ("first open", price(stats.first), utc(summary.coverage.first_open_time)),
            ("last close", price(stats.last), utc(summary.coverage.last_open_time)),
            ("low", price(stats.low), utc(stats.low_at)),
            ("high", price(stats.high), utc(stats.high_at)),
            (
                f"high {MINUS} low",
                number(stats.high - stats.low, decimals=decimals),
                percent(stats.high / stats.low - 1),
            ),
            (
                "change",
                number(stats.last - stats.first, decimals=decimals, is_signed=True),
                percent(stats.change_ratio, is_signed=True),
            ),
        ),
        widths=(0.28, 0.31, 0.41),
    )


def volume_table(summary: CandleSummary) -> Table:
    """Return volumes in base currency and, where the source gives them, value and trades."""
    stats = summary.volume
    base, quote = symbol_units(summary.symbol)
    return Table(
        title=f"Volume, {base}" if base else "Volume",
        rows=(
            ("total", amount(stats.total, digits=7)),
            ("mean per minute", amount(stats.mean)),
            ("median per minute", amount(stats.median)),
            (f"largest minute ({utc(stats.max_at)})", amount(stats.max)),
            (
                f"value traded, {quote}" if quote else "value traded",
                _given(amount(stats.quote_total, digits=7)),
            ),
            ("trades", _given(count(stats.trades_total))),
        ),
        widths=(0.68, 0.32),
    )


def returns_table(summary: CandleSummary) -> Table:
    """Return the returns in short, for the first page."""
    returns = summary.returns
    up, down = _move_rows(returns.largest_up)[0], _move_rows(returns.largest_down)[0]
    return Table(
        title="One-minute log returns, bps",
        rows=(
            ("returns", count(returns.n_returns), ""),
            ("mean", number(returns.mean_bps, decimals=4), ""),
            ("standard deviation", number(returns.std_bps, decimals=3), ""),
            ("excess kurtosis", number(returns.excess_kurtosis, decimals=1), ""),
            ("largest up", up[1], up[0]),
            ("largest down", down[1], down[0]),
        ),
        widths=(0.37, 0.22, 0.41),
    )


def moments_table(summary: CandleSummary) -> Table:
    """Return the moments of the one-minute returns."""
    returns = summary.returns
    return Table(
        title="Moments",
        rows=(
            ("returns", count(returns.n_returns)),
            ("mean, bps", number(returns.mean_bps, decimals=4)),
            ("standard deviation, bps", number(returns.std_bps, decimals=3)),
            ("skewness", number(returns.skew, decimals=3)),
            ("excess kurtosis", number(returns.excess_kurtosis, decimals=3)),
            ("annualised volatility", percent(returns.annualized_volatility_ratio, decimals=1)),
        ),
    )


def quantiles_table(summary: CandleSummary) -> Table:
    """Return the quantiles of the one-minute returns."""
    rows = [
        (percent(share, decimals=1), number(value, is_signed=True))
        for share, value in summary.returns.quantiles_bps
    ]
    return Table(
        title="Quantiles",
        header=("share of returns below", "log return, bps"),
        rows=rows or [(NOTHING, NOTHING)],
        text_columns=frozenset(),
    )


def moves_table(title: str, *, moves: tuple[Move, ...]) -> Table:
    """Return the largest moves of one direction."""
    return Table(title=title, header=("candle, UTC", "log return, bps"), rows=_move_rows(moves))


def gaps_table(summary: CandleSummary) -> Table:
    """Return the longest gaps."""
    coverage = summary.coverage
    is_cut = coverage.n_gaps > len(coverage.gaps)
    shown = f"the longest {len(coverage.gaps)} of {count(coverage.n_gaps)}"
    return Table(
        title=f"Gaps ({shown if is_cut else count(coverage.n_gaps)})",
        header=("first missing minute, UTC", "minutes", "length"),
        rows=[
            (utc(gap.start), count(gap.n_minutes), duration(gap.n_minutes)) for gap in coverage.gaps
        ],
        widths=(0.4, 0.25, 0.35),
    )


def _given(text: str) -> str:
    return "not given" if text == NOTHING else text


def _missing_tile(summary: CandleSummary) -> Tile:
    n_gaps = summary.coverage.n_gaps
    return Tile(
        label="Missing minutes",
        value=count(summary.coverage.n_missing_min),
        note=f"in {count(n_gaps)} gap{'s' if n_gaps > 1 else ''}" if n_gaps else "no gap",
        tone="warning" if n_gaps else "good",
    )


def _move_rows(moves: tuple[Move, ...]) -> list[tuple[str, str]]:
    """Return time and size of each move, one row of dashes where there is none."""
    rows = [
        (utc(move.open_time), number(move.log_return_bps, decimals=1, is_signed=True))
        for move in moves
    ]
    return rows or [(NOTHING, NOTHING)]

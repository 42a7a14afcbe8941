"""Slow, obvious ways to say what the sandbox exchange must answer."""

from __future__ import annotations

import json

from btc_lifecycle.sandbox.market import Market


def all_rows(market: Market, symbol: str, *, until_ms: int) -> list[list]:
    """Every row of the market, finished or not, whose minute opened by ``until_ms``."""
    rows = []
    for start_ms in market.block_starts(symbol, until_ms=until_ms):
        block = market.block(symbol, start_ms=start_ms)
        rows += json.loads(b"[" + block.rows_text(0, len(block)) + b"]")
    return [row for row in rows if row[0] <= until_ms]


def page(rows: list[list], *, start_ms: int | None, end_ms: int | None, limit: int) -> list[list]:
    """Binance's choice of rows, by the words of its documentation."""
    inside = [
        row
        for row in rows
        if (start_ms is None or row[0] >= start_ms) and (end_ms is None or row[0] <= end_ms)
    ]
    limit = min(limit, 1000)
    return inside[:limit] if start_ms is not None else inside[-limit:]


def broken_rules(row: list) -> list[str]:
    """What is wrong with one finished row of a made-up market, in words."""
    open_, high, low, close, volume, quote, taker_base, taker_quote = (
        float(row[field]) for field in (1, 2, 3, 4, 5, 7, 9, 10)
    )
    rules = {
        "high is not the highest": high >= max(open_, close),
        "low is not the lowest": 0 < low <= min(open_, close),
        "price is off the tick": all(
            round(float(row[i]), 2) == float(row[i]) for i in (1, 2, 3, 4)
        ),
        "no volume": volume > 0,
        "no trades": row[8] >= 1,
        "takers bought more than was traded": 0 <= taker_base <= volume and taker_quote <= quote,
        "quote volume does not fit": low * volume * 0.999999 <= quote <= high * volume * 1.000001,
        "close time": row[6] == row[0] + 59_999,
        "last field": row[11] == "0",
    }
    return [name for name, holds in rules.items() if not holds]

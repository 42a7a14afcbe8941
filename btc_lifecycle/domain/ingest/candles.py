"""What makes a row a candle, and a candle a closed one.

A candle is kept exactly as the exchange gave it: nothing is filled, rounded or moved to the grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl

from btc_lifecycle.domain.tables import CANDLES

INTERVAL = timedelta(minutes=1)

SYMBOL_PATTERN = r"[A-Z0-9]{1,20}/[A-Z0-9]{1,20}"
"""A market's name in ccxt's form: what is traded, and what it is paid in."""

PRICES = ("open", "high", "low", "close")
CARRIED = ("quote_volume", "trades", "taker_buy_base", "taker_buy_quote")
"""What only Binance's klines carry."""

_TICK = timedelta(milliseconds=1)
"""The exchange's resolution of time; a candle closes one tick before the next one opens."""
_ROUNDING = 1 + 1e-9
"""Decimals become binary numbers: a sum of the taker's amounts may come out a hair above the whole."""


def is_sound() -> pl.Expr:
    """Return whether a row is a candle: columns of the table plus ``close_time``.

    Every price is a positive number, high and low bound the others, amounts are numbers from 0 on,
    takers bought no more than was traded, and the row closes within a minute of its opening. Open
    times off the minute grid and minutes without a trade are sound, and so are candles that close
    early, as Binance's last ones before the outages of 2017 and 2018 do.
    """
    return pl.all_horizontal(rule.fill_null(value=False) for rule in _rules().values())


def broken_rule() -> pl.Expr:
    """Return the first rule that a row breaks, in words; missing for a sound row."""
    return _first_broken(_rules())


def broken_stored_rule() -> pl.Expr:
    """Return the first rule of prices and amounts that a stored candle breaks, in words.

    A stored candle has no ``close_time`` any more, and lacks what its source does not carry.
    """
    is_carried = pl.col("trades").is_not_null()
    rules = {words: rule | ~is_carried for words, rule in _carried_rules().items()}
    return _first_broken({**_price_rules(), **rules})


def _first_broken(rules: Mapping[str, pl.Expr]) -> pl.Expr:
    return pl.coalesce(
        pl.when(~is_kept.fill_null(value=False)).then(pl.lit(words))
        for words, is_kept in rules.items()
    )


def _rules() -> dict[str, pl.Expr]:
    return {**_time_rules(), **_price_rules(), **_carried_rules()}


def _time_rules() -> dict[str, pl.Expr]:
    # Whole microseconds: arithmetic on zoned times costs more than all the rest.
    opened_us, closed_us = (pl.col(name).dt.epoch("us") for name in ("open_time", "close_time"))
    minute_us, length_us = INTERVAL // timedelta(microseconds=1), closed_us - opened_us
    return {
        "a time is not in milliseconds or microseconds": length_us.is_not_null(),
        "it does not close within a minute": (length_us > 0) & (length_us <= minute_us),
    }


def _price_rules() -> dict[str, pl.Expr]:
    prices = [pl.col(name) for name in PRICES]
    return {
        "a price is not a number": pl.all_horizontal(price.is_finite() for price in prices),
        "a price is not positive": pl.all_horizontal(price > 0 for price in prices),
        "the high is not the highest price": pl.col("high") >= pl.max_horizontal(PRICES),
        "the low is not the lowest price": pl.col("low") <= pl.min_horizontal(PRICES),
        "the volume is not a number": pl.col("volume").is_finite(),
        "the volume is negative": pl.col("volume") >= 0,
    }


def _carried_rules() -> dict[str, pl.Expr]:
    amounts = [pl.col(name) for name in CARRIED]
    return {
        "an amount is not a number": pl.all_horizontal(amount.is_finite() for amount in amounts),
        "an amount is negative": pl.all_horizontal(amount >= 0 for amount in amounts),
        "takers bought more than was traded": (
            (pl.col("taker_buy_base") <= pl.col("volume") * _ROUNDING)
            & (pl.col("taker_buy_quote") <= pl.col("quote_volume") * _ROUNDING)
        ),
    }


def without_impossible_zeros(candles: pl.DataFrame) -> pl.DataFrame:
    """Return candles whose carried columns are missing where the source does not have them.

    Something was traded, yet no trade is counted: kept as zeros, these columns would say that every
    trade of the minute was a sale.
    """
    is_unknown = (pl.col("volume") > 0) & (pl.col("trades") == 0)
    if not candles.select(is_unknown.any()).item():
        return candles
    return candles.with_columns(
        pl.when(~is_unknown).then(pl.col(name)).alias(name) for name in CARRIED
    )


def closed_before(candles: pl.DataFrame, *, now: datetime) -> pl.DataFrame:
    """Return the candles that the exchange's clock says are over, without ``close_time``.

    The exchange returns the minute still in progress as its last row; its close and volume move
    until the minute ends.
    """
    is_over = (pl.col("close_time") < now) & (pl.col("open_time") < now - INTERVAL + _TICK)
    is_all = candles.select(is_over.all()).item()
    return (candles if is_all else candles.filter(is_over)).select(CANDLES.schema.names())

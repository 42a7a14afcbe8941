"""The exchange's public market data: whole pages of klines at a pace that it never has to refuse."""

from __future__ import annotations

from btc_lifecycle.adapters.exchange.exchange import (
    BINANCE_BASE_URLS,
    PAGE_ROWS,
    Exchange,
    RawPage,
)
from btc_lifecycle.adapters.exchange.pace import Pace

__all__ = ["BINANCE_BASE_URLS", "PAGE_ROWS", "Exchange", "Pace", "RawPage"]

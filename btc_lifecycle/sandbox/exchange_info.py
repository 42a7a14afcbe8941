"""The exchangeInfo body: rate limits and the symbols' trading rules, in the exchange's shape.

Every symbol gets the rules of BTCUSDT; nothing here trades, but clients read tick and lot sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

from btc_lifecycle.sandbox.market import split_symbol

_FILTERS = [
    {
        "filterType": "PRICE_FILTER",
        "minPrice": "0.01000000",
        "maxPrice": "1000000.00000000",
        "tickSize": "0.01000000",
    },
    {
        "filterType": "LOT_SIZE",
        "minQty": "0.00001000",
        "maxQty": "9000.00000000",
        "stepSize": "0.00001000",
    },
    {"filterType": "ICEBERG_PARTS", "limit": 10},
    {
        "filterType": "MARKET_LOT_SIZE",
        "minQty": "0.00000000",
        "maxQty": "128.52621715",
        "stepSize": "0.00000000",
    },
    {
        "filterType": "TRAILING_DELTA",
        "minTrailingAboveDelta": 10,
        "maxTrailingAboveDelta": 2000,
        "minTrailingBelowDelta": 10,
        "maxTrailingBelowDelta": 2000,
    },
    {
        "filterType": "PERCENT_PRICE_BY_SIDE",
        "bidMultiplierUp": "5",
        "bidMultiplierDown": "0.2",
        "askMultiplierUp": "5",
        "askMultiplierDown": "0.2",
        "avgPriceMins": 5,
    },
    {
        "filterType": "NOTIONAL",
        "minNotional": "5.00000000",
        "applyMinToMarket": True,
        "maxNotional": "9000000.00000000",
        "applyMaxToMarket": False,
        "avgPriceMins": 5,
    },
    {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
    {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
]


def exchange_info(
    symbols: Sequence[str], *, now_ms: int, weight_limit_per_min: int
) -> dict[str, object]:
    """Return the body for ``symbols`` as JSON values; numbers are numbers, amounts are strings."""
    limits = (
        ("REQUEST_WEIGHT", "MINUTE", 1, weight_limit_per_min),
        ("ORDERS", "SECOND", 10, 100),
        ("ORDERS", "DAY", 1, 200_000),
        ("RAW_REQUESTS", "MINUTE", 5, 300_000),
    )
    names = ("rateLimitType", "interval", "intervalNum", "limit")
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "rateLimits": [dict(zip(names, limit, strict=True)) for limit in limits],
        "exchangeFilters": [],
        "symbols": [_symbol_info(symbol) for symbol in symbols],
    }


def _symbol_info(symbol: str) -> dict[str, object]:
    base, quote = split_symbol(symbol)
    precisions = (
        "baseAssetPrecision",
        "quotePrecision",
        "quoteAssetPrecision",
        "baseCommissionPrecision",
        "quoteCommissionPrecision",
    )
    permissions = (
        "icebergAllowed",
        "ocoAllowed",
        "quoteOrderQtyMarketAllowed",
        "allowTrailingStop",
        "cancelReplaceAllowed",
        "isSpotTradingAllowed",
        "isMarginTradingAllowed",
    )
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": quote,
        **dict.fromkeys(precisions, 8),
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        **dict.fromkeys(permissions, True),
        "filters": _FILTERS,
        "permissions": ["SPOT", "MARGIN"],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"],
    }

"""A market whose past the exchange corrects: minutes told otherwise than they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.market import Kline, KlineBlock, Market, MarketLabel, as_datetime

MAX_REVISIONS = 1000


class RevisedMarket:
    """A market of any kind with corrections laid over it; without any it is that market.

    Args:
        market: What happened before corrections.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        # Replaced whole, so that handler threads never see it change while they walk it.
        self._volume_factors: dict[tuple[str, int], float] = {}

    @property
    def label(self) -> MarketLabel:
        """The market's own."""
        return self._market.label

    @property
    def symbols(self) -> tuple[str, ...]:
        """The market's own."""
        return self._market.symbols

    def block_starts(self, symbol: str, *, until_ms: int) -> Sequence[int]:
        """Return the market's own."""
        return self._market.block_starts(symbol, until_ms=until_ms)

    def block(self, symbol: str, *, start_ms: int) -> KlineBlock:
        """Return the market's block, corrected."""
        block = self._market.block(symbol, start_ms=start_ms)
        for (revised_symbol, open_ms), factor in self._volume_factors.items():
            if revised_symbol == symbol and (row := _row_of(block, open_ms)) is not None:
                block = block.with_kline(row, _scaled(block.kline(row), volume_factor=factor))
        return block

    def describe(self) -> dict[str, object]:
        """Return what the market says of itself and the corrections, as JSON values."""
        revisions = [
            {
                "symbol": symbol,
                "open_time": as_datetime(open_ms).isoformat(),
                "volume_factor": factor,
            }
            for (symbol, open_ms), factor in self._volume_factors.items()
        ]
        return self._market.describe() | {"revisions": revisions}

    def revise(self, symbol: str, *, open_ms: int, volume_factor: float) -> None:
        """Tell one minute from now on with all its amounts scaled; a second time replaces the first.

        Args:
            symbol: The exchange's name of the symbol.
            open_ms: Open time of the minute, milliseconds since the epoch.
            volume_factor: Factor on the amounts that the market made; trades and prices stay.

        Raises:
            ConfigurationError: When there is no such minute, the factor is not within 0..1000 or
                there are MAX_REVISIONS already.
        """
        if not 0 <= volume_factor <= 1000:
            raise ConfigurationError(
                f"volume_factor is {volume_factor}", hint="give a number from 0 to 1000"
            )
        if symbol not in self.symbols or not self._has(symbol, open_ms=open_ms):
            raise ConfigurationError(
                f"{symbol} has no minute that opens at {as_datetime(open_ms).isoformat()}",
                hint="name a symbol and an open time as klines tells them",
            )
        factors = self._volume_factors | {(symbol, open_ms): volume_factor}
        if len(factors) > MAX_REVISIONS:
            raise ConfigurationError(
                f"{MAX_REVISIONS} minutes are revised already", hint="start another sandbox"
            )
        self._volume_factors = factors

    def _has(self, symbol: str, *, open_ms: int) -> bool:
        starts = self._market.block_starts(symbol, until_ms=open_ms)
        if not starts:
            return False
        return _row_of(self._market.block(symbol, start_ms=starts[-1]), open_ms) is not None


def _row_of(block: KlineBlock, open_ms: int) -> int | None:
    row = int(np.searchsorted(block.open_ms, open_ms))
    return row if row < len(block) and block.open_ms[row] == open_ms else None


def _scaled(kline: Kline, *, volume_factor: float) -> Kline:
    return replace(
        kline,
        volume=kline.volume * volume_factor,
        quote_volume=kline.quote_volume * volume_factor,
        taker_buy_base=kline.taker_buy_base * volume_factor,
        taker_buy_quote=kline.taker_buy_quote * volume_factor,
    )

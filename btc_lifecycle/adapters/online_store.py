"""What the service answers from between two ingests: each market's newest features and candles, and
what the newest monitoring concluded. Jobs write these files, and the service reads them without a
database.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
)

from btc_lifecycle.adapters.files import write_atomically
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.ingest.candles import INTERVAL, SYMBOL_PATTERN

MAX_CANDLES = 240
MAX_OUTCOMES = 200

_MONITORING = "monitoring.json"
_SYMBOL = re.compile(SYMBOL_PATTERN)

# A number that is no number is written as such, so that the check of what is written finds it.
_STRICT = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")

_Time = Annotated[AwareDatetime, AfterValidator(lambda time: time.astimezone(UTC))]
_Symbol = Annotated[str, Field(pattern=f"^{SYMBOL_PATTERN}$")]
_Share = Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]
_Direction = Literal[1, -1]


@dataclass(frozen=True, kw_only=True)
class OnlineCandle:
    """A closed one-minute candle: prices in the quote currency, volume in the base currency."""

    __pydantic_config__ = _STRICT

    open_time: _Time
    open: FiniteFloat
    high: FiniteFloat
    low: FiniteFloat
    close: FiniteFloat
    volume: FiniteFloat


@dataclass(frozen=True, kw_only=True)
class OnlineSnapshot:
    """A market at its newest candle.

    Attributes:
        symbol: The market, such as BTC/USDT.
        open_time: When the newest candle opened, to which the features belong.
        features: Every feature by name, None where it is not known.
        candles: The newest ones, 1 to MAX_CANDLES, oldest first.
        source: Where the candles come from.
        market_time: The exchange's time by which it was decided what is closed.
        read_at: The writer's clock when it read that.
    """

    __pydantic_config__ = _STRICT

    symbol: _Symbol
    open_time: _Time
    features: Mapping[str, FiniteFloat | None]
    candles: Annotated[tuple[OnlineCandle, ...], Field(max_length=MAX_CANDLES)]
    source: Annotated[str, Field(min_length=1)]
    market_time: _Time
    read_at: _Time

    def __post_init__(self) -> None:
        # ValueError, since reading turns it into a message that names the file.
        opened = [candle.open_time for candle in self.candles]
        if opened != sorted(set(opened)) or opened[-1:] != [self.open_time]:
            raise ValueError("candles must open one after the other, the last at open_time")

    def market_now(self, now: datetime) -> datetime:
        """Return the exchange's time at a time of this machine's clock, as far as one can tell."""
        return self.market_time + max(timedelta(0), now - self.read_at)

    def age(self, now: datetime) -> timedelta:
        """Return how long ago the newest candle closed.

        The exchange's clock says how old it was when that clock was read, this machine's how long
        ago that was; neither is held against the other.
        """
        return self.market_now(now) - (self.open_time + INTERVAL)


@dataclass(frozen=True, kw_only=True)
class PastPrediction:
    """A prediction whose outcome is known; directions are 1 for up and -1 for down."""

    __pydantic_config__ = _STRICT

    symbol: _Symbol
    open_time: _Time
    matures_at: _Time
    model_version: str
    probability_up: _Share
    predicted: _Direction
    happened: _Direction


@dataclass(frozen=True, kw_only=True)
class LiveScore:
    """How a version's predictions did in ``[window_start, window_end)``, beside a fair coin's.

    Log-losses are in nats. Bounds are of 95 %, None where the outcomes are of one day only.
    """

    __pydantic_config__ = _STRICT

    model_version: str
    window_start: _Time
    window_end: _Time
    n_outcomes: Annotated[int, Field(ge=1)]
    log_loss: FiniteFloat
    log_loss_low: FiniteFloat | None
    log_loss_high: FiniteFloat | None
    hit_rate: _Share
    hit_rate_low: FiniteFloat | None
    hit_rate_high: FiniteFloat | None
    coin_log_loss: FiniteFloat
    coin_hit_rate: _Share


@dataclass(frozen=True, kw_only=True)
class DriftState:
    """One drift metric: no ``feature`` for the model's own score, no ``value`` with too few rows."""

    __pydantic_config__ = _STRICT

    feature: str
    metric: str
    n_rows: NonNegativeInt
    value: FiniteFloat | None
    limit: FiniteFloat | None
    is_over: bool


@dataclass(frozen=True, kw_only=True)
class MonitoringSummary:
    """What the newest monitoring found.

    Attributes:
        as_of: The exchange's time that it looks back from.
        written_at: The writer's clock.
        outcomes: The newest MAX_OUTCOMES of all markets, oldest first.
        score: The champion's; None while it has no outcome in the window, or there is no champion.
        drift: The champion's, in the order of its features; none without a champion.
        retrain: Whether to retrain.
        reason: Why, in words.
    """

    __pydantic_config__ = _STRICT

    as_of: _Time
    written_at: _Time
    outcomes: Annotated[tuple[PastPrediction, ...], Field(max_length=MAX_OUTCOMES)]
    score: LiveScore | None
    drift: tuple[DriftState, ...]
    retrain: bool
    reason: str


_SNAPSHOT = TypeAdapter(OnlineSnapshot)
_SUMMARY = TypeAdapter(MonitoringSummary)
_Record = TypeVar("_Record", OnlineSnapshot, MonitoringSummary)
_State = tuple[int, int, int]
"""Inode, time of change and size of a file."""


class OnlineStore:
    """A folder of one file for each market and one for monitoring.

    Safe to share between threads, and with a writer in another process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parsed: dict[Path, tuple[_State, OnlineSnapshot | MonitoringSummary]] = {}

    def write(self, snapshot: OnlineSnapshot) -> None:
        """Replace a market's snapshot.

        Raises:
            DataError: If it holds what no reader would take; nothing is written then.
        """
        path = self._folder / f"{snapshot.symbol.replace('/', '-')}.json"
        self._write(path, snapshot, kind=_SNAPSHOT)

    def write_monitoring(self, summary: MonitoringSummary) -> None:
        """Replace the monitoring's summary; refuses as ``write`` does."""
        self._write(self._folder / _MONITORING, summary, kind=_SUMMARY)

    def read(self, symbol: str) -> OnlineSnapshot | None:
        """Return a market's snapshot, None before the first.

        Raises:
            DataError: If its file cannot be read, is damaged, or is another market's.
        """
        if not _SYMBOL.fullmatch(symbol):
            return None
        path = self._folder / f"{symbol.replace('/', '-')}.json"
        snapshot = self._read(path, kind=_SNAPSHOT)
        if snapshot is not None and snapshot.symbol != symbol:
            raise _unusable(path, f"it is of {snapshot.symbol}, not of {symbol}")
        return snapshot

    def read_monitoring(self) -> MonitoringSummary | None:
        """Return the newest monitoring's summary, None before the first; raises as ``read`` does."""
        return self._read(self._folder / _MONITORING, kind=_SUMMARY)

    def symbols(self) -> tuple[str, ...]:
        """Return the markets that have a snapshot, sorted."""
        names = (path.stem.replace("-", "/") for path in self._folder.glob("*.json"))
        return tuple(sorted(name for name in names if _SYMBOL.fullmatch(name)))

    def _write(self, path: Path, record: _Record, *, kind: TypeAdapter[_Record]) -> None:
        content = kind.dump_json(record)
        _parsed(content, kind=kind, path=path)
        write_atomically(path, content)

    def _read(self, path: Path, *, kind: TypeAdapter[_Record]) -> _Record | None:
        try:
            known = self._parsed.get(path)
            if known is not None and known[0] == _state(path.stat()):
                return cast("_Record", known[1])
            with path.open("rb") as file:
                # Of what was opened: the name may lead to the next file already.
                state, content = _state(os.fstat(file.fileno())), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, f"it cannot be read: {error.strerror}") from error
        record = _parsed(content, kind=kind, path=path)
        self._parsed[path] = state, record
        return record


def _state(stat: os.stat_result) -> _State:
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _parsed(content: bytes, *, kind: TypeAdapter[_Record], path: Path) -> _Record:
    try:
        return kind.validate_json(content)
    except ValidationError as error:
        raise _unusable(path, _first_problem(error)) from error


def _first_problem(error: ValidationError) -> str:
    found: dict[str, Any] = dict(error.errors(include_url=False, include_input=False)[0])
    place = ".".join(str(part) for part in found["loc"])
    return f"{place or 'the file'}: {found['msg']} ({error.error_count()} problems)"


def _unusable(path: Path, problem: str) -> DataError:
    writer = "./task monitor" if path.name == _MONITORING else "./task ingest"
    return DataError(f"{path} is not usable, {problem}", hint=f"{writer} writes it anew")

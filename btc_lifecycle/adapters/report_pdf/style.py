"""What all reports share without drawing: colours, paper, how numbers and times are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

INK = "#1b2733"
MUTED = "#66727f"
RULE = "#d5dbe1"
WASH = "#f4f6f8"
BLUE = "#22577a"
SKY = "#9fbfd3"
AMBER = "#b8690f"
TEAL = "#2c7a6b"
RED = "#b23a3a"
WHITE = "#ffffff"

REPORT_NAME = "report.pdf"

PAGE_WIDTH_MM = 210.0
PAGE_HEIGHT_MM = 297.0
MARGIN_MM = 18.0
CONTENT_WIDTH_MM = PAGE_WIDTH_MM - 2 * MARGIN_MM

NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
_BADGES = {"synthetic": "SYNTHETIC DATA", "replay": "REPLAYED DATA"}
_SOURCES = {
    "synthetic": "Source: a synthetic market; none of these prices was ever traded",
    "replay": "Source: a replay of recorded candles",
}


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a report is written, what its data come from and when it was made (aware UTC)."""

    folder: Path
    source: str
    made_at: datetime


def badge_of(source: str) -> str:
    """Return the warning that a report of this source bears, empty for a real exchange."""
    return _BADGES.get(source, "")


def source_line(source: str) -> str:
    """Return a sentence fragment on where candles come from, for the head of a report."""
    return _SOURCES.get(source, f"Source: {source}")


def number(value: float | None, *, decimals: int = 2, is_signed: bool = False) -> str:
    """Return the number with thousands separators, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    # Rounding first keeps a tiny negative number from reading as minus zero.
    rounded = round(value, decimals) + 0.0
    text = f"{rounded:+,.{decimals}f}" if is_signed and rounded else f"{rounded:,.{decimals}f}"
    return text.replace("-", MINUS)


def amount(value: float | None, *, digits: int = 5) -> str:
    """Return the number with about so many significant digits and thousands separators."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return number(value, decimals=decimals_for(value, digits=digits))


def decimals_for(value: float, *, digits: int) -> int:
    """Return how many decimals show so many significant digits of the value, 8 at most."""
    if value == 0:
        return 0
    return min(8, max(0, digits - 1 - math.floor(math.log10(abs(value)))))


def price(value: float) -> str:
    """Return a price with at least the usual two decimals."""
    return number(value, decimals=price_decimals(value))


def price_decimals(value: float) -> int:
    """Return the decimals of a price, for what is compared with it."""
    return max(2, decimals_for(value, digits=5))


def count(value: object) -> str:
    """Return a whole number with thousands separators, a dash where there is none."""
    return f"{value:,}" if isinstance(value, int) else NOTHING


def percent(ratio: float | None, *, decimals: int = 2, is_signed: bool = False) -> str:
    """Return a share as percent, such as ``12.50 %``."""
    text = number(None if ratio is None else 100 * ratio, decimals=decimals, is_signed=is_signed)
    return text if text == NOTHING else f"{text} %"


def utc(time: datetime | None) -> str:
    """Return the time to the minute, to the second where it is off the minute grid."""
    if time is None:
        return NOTHING
    is_off_grid = time.second or time.microsecond
    return f"{time:%Y-%m-%d %H:%M:%S}" if is_off_grid else f"{time:%Y-%m-%d %H:%M}"


def duration(minutes: int) -> str:
    """Return minutes as days, hours and minutes, such as ``4 h 30 min``."""
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"))
    return " ".join(f"{value:,} {unit}" for value, unit in parts if value) or "0 min"


def symbol_units(symbol: str) -> tuple[str, str]:
    """Return base and quote currency of a market in ccxt's form, empty where it names none."""
    base, _, quote = symbol.partition("/")
    return (base, quote.partition(":")[0]) if quote else ("", "")


def thin(frame: pl.DataFrame, *, max_rows: int) -> pl.DataFrame:
    """Return at most so many evenly spaced rows, the last one always among them."""
    step = math.ceil(frame.height / max_rows) if frame.height else 1
    offset = (frame.height - 1) % step if frame.height else 0
    return frame.gather_every(step, offset)

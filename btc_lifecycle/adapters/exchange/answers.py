"""What an answer of the exchange asks for, judged by HTTP status and Binance's own error code.

Sources: Binance Spot API documentation, rest-api.md ("HTTP Return Codes", "LIMITS") and errors.md.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from btc_lifecycle.adapters.http import HttpAnswer

LONGEST_PAUSE_S = 3 * 86_400.0
"""The longest ban that Binance documents; what asks for more makes no sense."""
_BELIEVABLE_S = 30 * 86_400.0
"""A longer pause is a mistake of some proxy, not of the exchange."""

BAD_SYMBOL = -1121
_TOO_MANY_REQUESTS = -1003
_MAY_WORK_LATER = {-1000, -1001, -1006, -1007, -1008, -1016}
_MISTAKES = {-1100, -1101, -1102, -1103, -1104, -1105, -1106, -1120, BAD_SYMBOL, -1122}
_MISTAKES |= {-1127, -1128, -1130}
_DEFAULT_PAUSE_S = {418: 120.0}
_PAUSE_S = 60.0
_LONGEST_OBJECT = 10_000
_BANNED_UNTIL = re.compile(r"banned until (\d{13})\b")


class Asks(StrEnum):
    """What the exchange wants its client to do."""

    NOTHING = "nothing"
    PAUSE = "pause"
    GO_ELSEWHERE = "go elsewhere"
    TRY_AGAIN = "try again"
    MEND = "mend the request"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What an answer asks for, its error code (0: none) and what it says, for people."""

    asks: Asks
    code: int
    text: str


def judge(answer: HttpAnswer) -> Judgement:
    """Return what the exchange asks for; NOTHING when the answer is to be read."""
    error = json_object(answer.body)
    code = error.get("code")
    code = code if isinstance(code, int) else 0
    said = str(error.get("msg", "")) or answer.body[:120].decode("utf-8", "replace")
    text = " ".join(f"{answer.status} {answer.reason} {code or ''} {said}".split())[:300]
    return Judgement(asks=_asks(answer.status, code=code), code=code, text=text)


def pause_s(answer: HttpAnswer, *, now: float) -> float:
    """Return how many seconds a 429, a 418 or a -1003 asks to wait.

    Args:
        answer: The refusal.
        now: When it came, seconds since the epoch.
    """
    default = _DEFAULT_PAUSE_S.get(answer.status, _PAUSE_S)
    asked = [_retry_after_s(answer, now=now), _banned_s(answer, now=now)]
    believed = [min(s, LONGEST_PAUSE_S) for s in asked if 0 <= s <= _BELIEVABLE_S]
    return max(believed, default=default)


def json_object(body: bytes) -> dict[str, object]:
    """Return a short JSON object; empty for anything else."""
    if not body.lstrip().startswith(b"{") or len(body) > _LONGEST_OBJECT:
        return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _asks(status: int, *, code: int) -> Asks:
    if status in {418, 429} or code == _TOO_MANY_REQUESTS:
        return Asks.PAUSE
    if status in {403, 451}:
        return Asks.GO_ELSEWHERE
    if status >= 500 or status == 408 or 300 <= status < 400 or code in _MAY_WORK_LATER:
        return Asks.TRY_AGAIN
    if status >= 400 or code in _MISTAKES:
        return Asks.MEND
    # An error body of another code is no page and no time, which the reader of those will say.
    return Asks.NOTHING


def _retry_after_s(answer: HttpAnswer, *, now: float) -> float:
    text = answer.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    # A date is told by the exchange's clock, which its own date header shows.
    told_at = _epoch_s(answer.headers.get("date", ""))
    return _epoch_s(text) - (now if math.isnan(told_at) else told_at)


def _banned_s(answer: HttpAnswer, *, now: float) -> float:
    found = _BANNED_UNTIL.search(str(json_object(answer.body).get("msg", "")))
    return int(found[1]) / 1000 - now if found else math.nan


def _epoch_s(http_date: str) -> float:
    try:
        moment = parsedate_to_datetime(http_date)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def time_told(answer: HttpAnswer) -> datetime | None:
    """Return the time in an answer to ``GET /api/v3/time``; None if there is none in it."""
    told_ms = json_object(answer.body).get("serverTime")
    try:
        return datetime.fromtimestamp(int(str(told_ms)) / 1000, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return None

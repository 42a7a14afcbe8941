"""Microseconds in place of milliseconds: the header that asks for them, and the change of a text.

Source: Binance Spot API documentation, rest-api.md ("General Information on Endpoints", the header
X-MBX-TIME-UNIT); a close time becomes the last microsecond of its minute.
"""

from __future__ import annotations

import re
from email.message import Message

# Amounts are quoted in JSON and have a decimal point in CSV; only times are bare and this long. A
# close time stands between commas, every other time begins a row or follows a colon.
_CLOSE_TIME = re.compile(rb"(?<=,)([0-9]{13})(?=,)")
_OTHER_TIME = re.compile(rb"(?<![0-9.,\"])([0-9]{13})(?=[,}])")


def asks_for_microseconds(headers: Message) -> bool:
    """Return whether the request wants its answer's times in microseconds."""
    return str(headers.get("X-MBX-TIME-UNIT", "")).lower() == "microsecond"


def in_microseconds(text: bytes) -> bytes:
    """Return JSON or CSV of the exchange with 16 digits in each time that had 13."""
    return _OTHER_TIME.sub(rb"\g<1>000", _CLOSE_TIME.sub(rb"\g<1>999", text))


def as_ms_up(digits: str) -> int:
    """Return a time in milliseconds from its digits, 16 of them being microseconds; rounded up."""
    return -(-int(digits) // 1000) if len(digits) == 16 else int(digits)


def as_ms_down(digits: str) -> int:
    """Return a time in milliseconds from its digits, 16 of them being microseconds; rounded down."""
    return int(digits) // 1000 if len(digits) == 16 else int(digits)

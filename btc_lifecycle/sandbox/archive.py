"""The exchange's public archive of past klines: zipped CSV files by month and day, with checksums.

Source: github.com/binance/binance-public-data, README: paths, the form of the checksum, no header
line in spot files, times in microseconds from 2025 on. A file appears here on the day after its
period, at midnight; the exchange takes until the first Monday of the next month for a month's file.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from btc_lifecycle.sandbox.market import Market, as_ms
from btc_lifecycle.sandbox.protocol import rows_text
from btc_lifecycle.sandbox.time_unit import in_microseconds
from btc_lifecycle.sandbox.transport import Answer

ARCHIVE_PREFIX = "/data/"
HEADER_LINE = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    b"taker_buy_volume,taker_buy_quote_volume,ignore\n"
)

_PATH = re.compile(
    r"/data/spot/(?:monthly|(?P<daily>daily))/klines/(?P<symbol>[A-Z0-9]+)/1m/"
    r"(?P<stem>(?P=symbol)-1m-(?P<year>[0-9]{4})-(?P<month>[0-9]{2})(?(daily)-(?P<day>[0-9]{2})))\.zip"
    r"(?P<checksum>\.CHECKSUM)?"
)
_MICROSECONDS_FROM_MS = as_ms(datetime(2025, 1, 1, tzinfo=UTC))
_FILES_KEPT = 16
_VOLUME = 5


@dataclass(frozen=True, kw_only=True)
class ArchiveSettings:
    """How files are made.

    ``header_line`` puts the columns' names first, as in the exchange's futures files; the file whose
    period holds ``cut_at`` ends there; the first ``revised_rows`` rows of every file have a volume
    that is 1 larger than in the answers to klines; ``bad_checksum`` is that of other bytes.
    """

    header_line: bool = False
    cut_at: datetime | None = None
    revised_rows: int = 0
    bad_checksum: bool = False


@dataclass(frozen=True, kw_only=True)
class _Period:
    symbol: str
    stem: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, kw_only=True)
class _File:
    zipped: bytes
    checksum: bytes


class SandboxArchive:
    """The archive of one market; the same period gives the same bytes until files are re-issued."""

    def __init__(self, market: Market) -> None:
        self._market = market
        # Settings and number of the issue, replaced whole: a file that was begun under the last
        # issue and ends under this one is not taken for one of this issue.
        self._issue = (ArchiveSettings(), 0)
        self._file = lru_cache(maxsize=_FILES_KEPT)(self._make_file)

    @property
    def settings(self) -> ArchiveSettings:
        """How files are made now."""
        return self._issue[0]

    def reissue(self, settings: ArchiveSettings | None = None) -> None:
        """Make every file anew when next asked for, by other settings or by those of now."""
        self._issue = (settings or self.settings, self._issue[1] + 1)

    def get(self, path: str, *, now_ms: int) -> Answer:
        """Return the file or checksum of a path; 404 unless its period ended before today.

        Raises:
            LifecycleError: When the market cannot say what happened then.
        """
        name = _PATH.fullmatch(path)
        period = _period(name, symbols=self._market.symbols) if name else None
        if name is None or period is None or period.end_ms > now_ms:
            return _not_found(path)
        if (file := self._file(period, self._issue)) is None:
            return _not_found(path)
        if name["checksum"]:
            return Answer(body=file.checksum, content_type="binary/octet-stream")
        return Answer(body=file.zipped, content_type="application/zip")

    def _make_file(self, period: _Period, issue: tuple[ArchiveSettings, int]) -> _File | None:
        settings = issue[0]
        rows = rows_text(
            period.symbol, market=self._market, start_ms=period.start_ms, end_ms=period.end_ms - 1
        )
        if not rows:
            return None
        csv = _csv(rows, settings=settings)
        if period.start_ms >= _MICROSECONDS_FROM_MS:
            csv = in_microseconds(csv)
        zipped = _zip(f"{period.stem}.csv", HEADER_LINE + csv if settings.header_line else csv)
        digest = hashlib.sha256(b"other bytes" if settings.bad_checksum else zipped).hexdigest()
        return _File(zipped=zipped, checksum=f"{digest}  {period.stem}.zip\n".encode())


def _period(name: re.Match[str], *, symbols: tuple[str, ...]) -> _Period | None:
    """Return the time that a file's name spans; None for an unknown symbol or no date."""
    try:
        start = datetime(int(name["year"]), int(name["month"]), int(name["day"] or 1), tzinfo=UTC)
        next_month = (start + timedelta(days=31)).replace(day=1)
        end = start + timedelta(days=1) if name["daily"] else next_month
    except (ValueError, OverflowError):
        return None
    if name["symbol"] not in symbols:
        return None
    return _Period(
        symbol=name["symbol"], stem=name["stem"], start_ms=as_ms(start), end_ms=as_ms(end)
    )


def _csv(rows: bytes, *, settings: ArchiveSettings) -> bytes:
    """Return JSON rows as lines without quotes, cut and revised as the settings say."""
    lines = rows[1:-1].replace(b'"', b"").split(b"],[")
    if settings.cut_at is not None:
        lines = _cut(lines, cut_ms=as_ms(settings.cut_at))
    n_revised = settings.revised_rows
    lines = [*map(_with_more_volume, lines[:n_revised]), *lines[n_revised:]]
    return b"".join(line + b"\n" for line in lines)


def _cut(lines: list[bytes], *, cut_ms: int) -> list[bytes]:
    open_ms = [int(line.partition(b",")[0]) for line in lines]
    if not open_ms[0] <= cut_ms <= open_ms[-1]:
        return lines
    return [line for line, opened in zip(lines, open_ms, strict=True) if opened < cut_ms]


def _with_more_volume(line: bytes) -> bytes:
    fields = line.split(b",")
    fields[_VOLUME] = f"{float(fields[_VOLUME]) + 1:.8f}".encode()
    return b",".join(fields)


def _zip(file_name: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        # The entry's time is left at the format's first one, so that equal rows give equal bytes.
        entry = zipfile.ZipInfo(file_name)
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=1)
    return packed.getvalue()


def _not_found(path: str) -> Answer:
    key = path.removeprefix("/")
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code>'
        f"<Message>The specified key does not exist.</Message><Key>{key}</Key></Error>"
    )
    return Answer(status=404, body=body.encode(), content_type="application/xml")

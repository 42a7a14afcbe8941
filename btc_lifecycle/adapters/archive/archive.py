"""The files of the archive, each told by its SHA-256.

Files are re-issued in place when the exchange mends them; the checksum lies beside each and costs
one small request.

Source: https://github.com/binance/binance-public-data
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from btc_lifecycle.adapters.archive.contents import read_klines
from btc_lifecycle.adapters.archive.download import ELSEWHERE, Downloads
from btc_lifecycle.adapters.archive.periods import ArchivePeriod, periods_within
from btc_lifecycle.adapters.http import HttpClient
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.klines import Klines

_CHECKSUM = re.compile(rb"([0-9a-fA-F]{64}) [ *]([!-~]+)\s*")
"""A line of sha256sum."""


@dataclass(frozen=True, kw_only=True)
class ArchiveFile:
    """What one file held: its name, its period, its SHA-256 in lower-case hex, its klines."""

    name: str
    period: ArchivePeriod
    sha256: str
    klines: Klines


class Archive:
    """The archive of one exchange; each file is used whole or not at all."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        http: HttpClient | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare a client; nothing is requested yet.

        Args:
            base_url: Scheme, host and port that ``/data/spot/...`` is appended to; None for
                Binance's own.
            http: Client to use; it must take the bytes of a month, zipped.
            pause: Called with the seconds to wait between tries.
        """
        self._downloads = Downloads(base_url, http=http, pause=pause)

    def files(
        self, symbol: str, *, start: datetime, end: datetime, known: Mapping[str, str]
    ) -> Iterator[ArchiveFile]:
        """Yield the files that cover the whole UTC days within ``[start, end)``, in time order.

        Each is downloaded only when it is asked for. A month whose file is not published yet comes
        as the files of its days; what the archive does not have at all is left out.

        Args:
            symbol: Market in ccxt's form, such as BTC/USDT.
            start: Earliest open time; a day already begun is left out.
            end: End of the stretch, exclusive; a day that it cuts is left out.
            known: SHA-256 by file name of what needs no second download.

        Raises:
            ConfigurationError: If the archive refuses the requests as such.
            NeighbourUnavailableError: If it does not answer, or not with its files.
            DataError: If a file is not what its name and checksum say.
        """
        for period in periods_within(start, end):
            for published, sha256 in self._published(symbol, period):
                if known.get(_file_name(symbol, published)) != sha256:
                    yield self.fetch(symbol, published, sha256=sha256)

    def checksum(self, symbol: str, period: ArchivePeriod) -> str | None:
        """Return the SHA-256 of a file in lower-case hex; None when the archive has no such file.

        Raises:
            ConfigurationError: If the archive refuses the request as such.
            NeighbourUnavailableError: If it does not answer, or not with the file's checksum.
        """
        path = f"{_path(symbol, period)}.CHECKSUM"
        body = b""
        # A web page of a proxy on the way may be gone the next time.
        for _ in range(2):
            answer = self._downloads.get(path)
            if answer is None:
                return None
            line = _CHECKSUM.fullmatch(body := answer)
            if line is not None and line[2].decode() == _file_name(symbol, period):
                return line[1].decode().lower()
        raise NeighbourUnavailableError(
            f"{self._downloads.url(path)} holds {body[:60]!r} where a SHA-256 and the name of the "
            "file were expected",
            hint=f"check that `archive_url` is that of an archive, or {ELSEWHERE}",
        )

    def fetch(self, symbol: str, period: ArchivePeriod, *, sha256: str) -> ArchiveFile:
        """Return one file, whole and as its checksum says.

        Args:
            symbol: Market in ccxt's form.
            period: Month or day of the file.
            sha256: What ``checksum`` returned. Where the file differs from it, both are asked for
                once more, since the file may have been re-issued in between.

        Raises:
            ConfigurationError: If the archive refuses the request as such.
            NeighbourUnavailableError: If it does not answer, or has the checksum without the file.
            DataError: If the file differs from its checksum twice, or does not hold what its name
                says.
        """
        body = self._zip(symbol, period)
        if _digest(body) != sha256:
            sha256 = self.checksum(symbol, period) or sha256
            body = self._zip(symbol, period)
        if _digest(body) != sha256:
            raise DataError(
                f"{self._downloads.url(_path(symbol, period))} has the SHA-256 {_digest(body)} "
                f"where its checksum file says {sha256}",
                hint=f"nothing of it was stored; try again in an hour, or {ELSEWHERE}",
            )
        name = _file_name(symbol, period)
        csv_name = f"{name.removesuffix('.zip')}.csv"
        klines = read_klines(body, csv_name=csv_name, symbol=symbol, period=period)
        return ArchiveFile(name=name, period=period, sha256=sha256, klines=klines)

    def _published(self, symbol: str, period: ArchivePeriod) -> Iterator[tuple[ArchivePeriod, str]]:
        sha256 = self.checksum(symbol, period)
        if sha256 is not None:
            yield period, sha256
        elif period.folder == "monthly":
            # A month's file comes on the first Monday of the next month, a day's on the next day.
            for day in period.days:
                yield from self._published(symbol, day)

    def _zip(self, symbol: str, period: ArchivePeriod) -> bytes:
        path = _path(symbol, period)
        body = self._downloads.get(path)
        if body is None:
            raise NeighbourUnavailableError(
                f"{self._downloads.url(path)} is missing though its checksum is there",
                hint=f"the file is being replaced: try again in an hour, or {ELSEWHERE}",
            )
        return body


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _path(symbol: str, period: ArchivePeriod) -> str:
    folder = f"/data/spot/{period.folder}/klines/{symbol.replace('/', '')}/1m"
    return f"{folder}/{_file_name(symbol, period)}"


def _file_name(symbol: str, period: ArchivePeriod) -> str:
    return f"{symbol.replace('/', '')}-1m-{period.name}.zip"

"""The exchange's public archive: one zipped CSV of one-minute klines for each month or day."""

from __future__ import annotations

from btc_lifecycle.adapters.archive.archive import Archive, ArchiveFile
from btc_lifecycle.adapters.archive.download import BINANCE_ARCHIVE_URL
from btc_lifecycle.adapters.archive.periods import ArchivePeriod, periods_within

__all__ = ["BINANCE_ARCHIVE_URL", "Archive", "ArchiveFile", "ArchivePeriod", "periods_within"]

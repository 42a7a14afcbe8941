"""What a downloaded file of the archive holds, judged before any of it is used."""

from __future__ import annotations

import io
import zipfile
import zlib

from btc_lifecycle.adapters.archive.download import ELSEWHERE
from btc_lifecycle.adapters.archive.periods import ArchivePeriod
from btc_lifecycle.domain.errors import DataError, NeighbourUnavailableError
from btc_lifecycle.domain.ingest.klines import Klines, parse_csv

MAX_CSV_BYTES = 32 * 2**20
"""A month of the busiest market is about 6 MB unpacked; 8 MB of zip could unpack to 8 GB."""

_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


def read_klines(body: bytes, *, csv_name: str, symbol: str, period: ArchivePeriod) -> Klines:
    """Return the klines of a zip that holds one CSV.

    Args:
        body: The whole zip.
        csv_name: Name of the only file that may be within.
        symbol: Market in ccxt's form, which the rows do not carry.
        period: Stretch of time that every open time must lie in.

    Raises:
        DataError: If the zip is damaged, holds anything else, unpacks to more than
            ``MAX_CSV_BYTES``, or its rows are not whole or of another time.
    """
    csv = _unpacked(body, name=csv_name)
    try:
        klines = parse_csv(csv, symbol=symbol)
    except NeighbourUnavailableError as error:
        # A page of the exchange may be mended by asking again, a file of the archive is not.
        raise _refusal(csv_name, error.message) from error
    opened = klines.candles["open_time"]
    outside = opened.filter(~opened.is_between(period.start, period.end, closed="left"))
    if not outside.is_empty():
        raise _refusal(
            csv_name,
            f"{outside.len()} of {opened.len()} candles lie outside {period.name}, first at "
            f"{outside[0]:%Y-%m-%d %H:%M:%S} UTC",
        )
    return klines


def _unpacked(body: bytes, *, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            return _only_file(archive, name=name)
    # RuntimeError (NotImplementedError among them) for encryption and odd versions, ValueError for
    # names that are no text.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise _refusal(name, f"its zip cannot be unpacked: {reason}") from error


def _only_file(archive: zipfile.ZipFile, *, name: str) -> bytes:
    members = archive.infolist()
    names = [member.filename for member in members]
    if names != [name]:
        raise _refusal(name, f"its zip holds not that file alone but {str(names)[:200]}")
    if members[0].compress_type not in _METHODS:
        raise _refusal(name, f"its zip is packed by method {members[0].compress_type}")
    with archive.open(members[0]) as file:
        # The size that the zip names itself is not believed.
        csv = file.read(MAX_CSV_BYTES + 1)
    if len(csv) > MAX_CSV_BYTES:
        raise _refusal(name, f"it unpacks to more than {MAX_CSV_BYTES // 2**20} MB")
    return csv


def _refusal(name: str, problem: str) -> DataError:
    return DataError(
        f"{name} of the archive matches its checksum, but {problem}",
        hint=f"nothing of it was stored; {ELSEWHERE}",
    )

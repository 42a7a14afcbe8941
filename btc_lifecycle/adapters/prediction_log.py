"""The prediction log: what the service answered, as lines of JSON that monitoring reads later.

Every process appends to a file of its own for each UTC hour, so no lock is shared and a reader
meets at most one torn line per file: the last one of a process that was killed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from btc_lifecycle.adapters import clock
from btc_lifecycle.adapters.lines import Lines

_FILES = "predictions-*.jsonl"
_MAX_QUEUED_BYTES = 16 * 1024 * 1024


def _with_offset(text: str) -> str:
    if datetime.fromisoformat(text).utcoffset() is None:
        raise ValueError("a time needs its offset from UTC")
    return text


_Time = Annotated[str, AfterValidator(_with_offset)]


class _Line(BaseModel):
    """One scored row of one answer, with the keys that domain/monitor/predictions.py reads."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    prediction_id: str
    row: Annotated[int, Field(ge=0)]
    symbol: str | None
    open_time: _Time | None
    model_name: str
    model_version: str
    made_at: _Time
    probability_up: Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]
    direction: Literal[1, -1]
    features: list[FiniteFloat]


class PredictionLog:
    """Appends records from a thread of its own: no answer waits for the disk, or fails with it.

    Records that do not fit the queue, or that could not be written, are dropped and counted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_queued_bytes: int = _MAX_QUEUED_BYTES,
        now: Callable[[], datetime] = clock.now,
        on_drop: Callable[[int], None] | None = None,
    ) -> None:
        self._folder, self._now = folder, now
        self._token = secrets.token_hex(4)
        self._lines = Lines(self._write, max_bytes=max_queued_bytes, on_drop=on_drop)

    @property
    def dropped(self) -> int:
        """How many records are lost to a full queue, a failed write, or a value JSON cannot hold."""
        return self._lines.dropped

    def append(self, records: Sequence[Mapping[str, object]]) -> None:
        """Queue records, all or none; never waits and never raises."""
        lines = [line for line in map(_encode, records) if line is not None]
        self._lines.append(lines)
        if len(lines) < len(records):
            self._lines.drop(len(records) - len(lines))

    def flush(self, *, timeout_s: float = 10.0) -> bool:
        """Return whether everything queued was written or dropped within the time."""
        return self._lines.flush(timeout_s=timeout_s)

    def close(self, *, timeout_s: float = 2.0) -> None:
        """Write what is queued and stop, after that time at the latest; later records are dropped."""
        self._lines.close(timeout_s=timeout_s)

    def _write(self, lines: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._path().open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                _write_whole(file.fileno(), lines)
            except OSError:
                # Nobody else writes to this file: not even half a line stays.
                os.ftruncate(file.fileno(), size)
                raise

    def _path(self) -> Path:
        return (
            self._folder / f"predictions-{self._now():%Y%m%dT%H}-{os.getpid()}-{self._token}.jsonl"
        )


def read_prediction_log(folder: Path) -> tuple[list[dict[str, object]], int]:
    """Return all records of a prediction log and how many torn or foreign lines were skipped.

    Records have the keys that ``predictions_frame`` of domain/monitor reads, with times in ISO 8601; they
    come file by file in the order of the files' hours. A folder that does not exist holds none.
    """
    records: list[dict[str, object]] = []
    n_skipped = 0
    for path in sorted(folder.glob(_FILES)):
        for line in path.read_bytes().splitlines():
            try:
                records.append(_Line.model_validate_json(line).model_dump())
            except ValidationError:
                n_skipped += 1
    return records, n_skipped


def _encode(record: Mapping[str, object]) -> bytes | None:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return None


def _write_whole(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]

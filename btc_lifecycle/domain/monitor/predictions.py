"""What the service answered, one row each, read from the objects of its prediction log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NoReturn

import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.tables import PREDICTIONS


def predictions_frame(records: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    """Return the predictions of a prediction log, each answer's row once, oldest first.

    Args:
        records: One object for each scored row of an answer, in any order, with the keys
            ``prediction_id`` (the answer's), ``row`` (its number within the answer, from 0),
            ``symbol`` and ``open_time`` (null where the caller gave features only),
            ``model_version``, ``made_at``, ``probability_up`` and ``direction`` (1 or -1). Times
            are in ISO 8601 with an offset. Other keys, such as ``model_name`` and ``features``,
            are ignored. A row that comes again, as after an import that was cut short, counts as
            its first copy says.

    Returns:
        ``PREDICTIONS.schema`` in the order of ``made_at``, then of the answer's rows;
        ``prediction_id`` is the answer's id, a colon and the row.

    Raises:
        DataError: If a record lacks a key or holds a value that no answer can have; nothing of
            the batch is returned.
    """
    by_key: dict[tuple[str, int], dict[str, object]] = {}
    for position, record in enumerate(records):
        reader = _Reader(record, position=position)
        key = (reader.text("prediction_id"), reader.row())
        if key not in by_key:
            by_key[key] = reader.prediction()
    rows = [by_key[key] for key in sorted(by_key)]
    return pl.DataFrame(rows, schema=PREDICTIONS.schema).sort("made_at", maintain_order=True)


class _Reader:
    """Takes typed values out of one record and refuses what no answer can have."""

    def __init__(self, record: Mapping[str, object], *, position: int) -> None:
        self._record, self._position = record, position

    def prediction(self) -> dict[str, object]:
        """Return the record as a row of the table."""
        return {
            "prediction_id": f"{self.text('prediction_id')}:{self.row()}",
            "symbol": None if self._value("symbol") is None else self.text("symbol"),
            "open_time": None if self._value("open_time") is None else self.time("open_time"),
            "model_version": self.text("model_version"),
            "made_at": self.time("made_at"),
            "probability_up": self.probability_up(),
            "direction": self.direction(),
        }

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        value = self._value(key)
        if not isinstance(value, str) or not value:
            self._refuse(key, wanted="a text")
        return value

    def row(self) -> int:
        """Return the row's number within its answer."""
        value = self._value("row")
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self._refuse("row", wanted="a whole number from 0")
        return value

    def time(self, key: str) -> datetime:
        """Return a time in UTC; one without an offset would mean another instant elsewhere."""
        try:
            time = datetime.fromisoformat(self.text(key))
            in_utc = time.astimezone(UTC)
        except (ValueError, OverflowError):
            self._refuse(key, wanted="a time in ISO 8601")
        if time.utcoffset() is None:
            self._refuse(key, wanted="a time with its offset from UTC")
        return in_utc

    def probability_up(self) -> float:
        """Return the probability; NaN is none."""
        value = self._value("probability_up")
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._refuse("probability_up", wanted="a number")
        if math.isnan(value) or not 0 <= value <= 1:
            self._refuse("probability_up", wanted="a probability from 0 to 1")
        return float(value)

    def direction(self) -> int:
        """Return 1 or -1."""
        value = self._value("direction")
        if not isinstance(value, int) or isinstance(value, bool) or value not in {1, -1}:
            self._refuse("direction", wanted="1 or -1")
        return value

    def _value(self, key: str) -> object:
        if key not in self._record:
            self._refuse(key, wanted="present")
        return self._record[key]

    def _refuse(self, key: str, *, wanted: str) -> NoReturn:
        found = repr(self._record[key]) if key in self._record else "missing"
        raise DataError(
            f"prediction record {self._position} (prediction_id "
            f"{self._record.get('prediction_id')!r}): {key} must be {wanted}, was {found[:80]}",
            hint="take the record out of the prediction log and import the rest again",
        )

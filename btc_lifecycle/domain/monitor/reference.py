"""What a model version's training features looked like, and how far windows of them strayed.

A feature is binned at the deciles of its training span; a window lies as far from the span as its
population stability index says. Minute candles are never stationary, so a fixed limit would raise
an alarm in most weeks; each feature's limit comes from how much it moved inside the span itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from btc_lifecycle.domain.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

FORMAT = 1
N_BINS = 10
MIN_SHARE = 1e-4
"""Shares are raised to this before their ratio is taken: an empty bin counts like a bin that holds
one row in ten thousand, about one row of a week of minutes, instead of making the index infinite."""
MIN_CALIBRATION_WINDOWS = 3
CALIBRATION_LEVEL = 0.99
# The clock alone moves these: a window of some days never has the training span's mix of them.
_CALENDAR_PREFIXES = ("minute_of_day_", "day_of_week_")
_MINUTE_US = 60_000_000
_HOUR_US = 60 * _MINUTE_US


@dataclass(frozen=True, kw_only=True)
class DriftPolicy:
    """How recent features are judged: the window's length, its least rows, the least limit."""

    window_hours: int
    min_window_rows: int
    min_psi: float

    def __post_init__(self) -> None:
        # ValueError, since the settings turn it into a message that names the file and the key.
        if self.window_hours < 1 or self.min_window_rows < 1:
            raise ValueError("window_hours and min_window_rows must be at least 1")
        if not 0 < self.min_psi < math.inf:
            raise ValueError("min_psi must be above 0")


@dataclass(frozen=True, kw_only=True)
class FeatureReference:
    """One feature over the training span: inner bin edges, shares per bin, and its PSI limit.

    A bin holds the values above its lower edge up to and with its upper edge; the outer two are
    open. There are ``N_BINS`` bins, fewer where deciles coincide.
    """

    name: str
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    threshold: float
    n_rows: int
    n_missing: int
    n_windows: int

    def __post_init__(self) -> None:
        is_rising = all(low < high for low, high in zip(self.edges, self.edges[1:], strict=False))
        if not self.edges or not is_rising or len(self.shares) != len(self.edges) + 1:
            raise ValueError(f"{self.name}: bins need rising edges and one share more than edges")
        if not (min(self.shares) >= 0 and math.isclose(sum(self.shares), 1, abs_tol=1e-6)):
            raise ValueError(f"{self.name}: shares must be at least 0 and sum to 1")
        if not 0 < self.threshold < math.inf:
            raise ValueError(f"{self.name}: the threshold must be above 0, was {self.threshold}")

    def psi(self, present: FloatArray) -> float:
        """Return the population stability index of at least one present value, in nats."""
        counts = _counts(present, edges=np.array(self.edges))
        return float(population_stability_index(np.array(self.shares), counts / present.size))


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a model version's training features looked like; stored beside the model."""

    features: tuple[FeatureReference, ...]
    unmonitored: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the reference as JSON values."""
        return {
            "format": FORMAT,
            "features": [
                asdict(feature) | {"edges": list(feature.edges), "shares": list(feature.shares)}
                for feature in self.features
            ],
            "unmonitored": list(self.unmonitored),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Reference:
        """Return the reference that ``to_json`` gave.

        Raises:
            DataError: If the format is another one, or a part is missing or makes no sense.
        """
        require_format(document, what="drift reference")
        try:
            features = tuple(_feature_from_json(feature) for feature in document["features"])
            return cls(features=features, unmonitored=tuple(document["unmonitored"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"drift reference is damaged: {error!r}", hint="train the model version anew"
            ) from error


def require_format(document: Mapping[str, Any], *, what: str) -> None:
    """Refuse a document that was written in another format.

    Raises:
        DataError: If ``format`` is missing or is not this code's.
    """
    if document.get("format") != FORMAT:
        raise DataError(
            f"{what} has format {document.get('format')!r}, this code reads {FORMAT}",
            hint="use the code that wrote it, or make it anew by training",
        )


def make_reference(
    training_features: pl.DataFrame, *, feature_names: Sequence[str], policy: DriftPolicy
) -> Reference:
    """Return how the features lie over the training span, with each feature's own PSI limit.

    The limit is the ``CALIBRATION_LEVEL`` quantile of the feature's PSI over consecutive windows
    of the training span, each symbol's windows for themselves, against the whole span, but at
    least ``min_psi``; with a month of windows that is close to the largest. Windows with fewer
    than ``min_window_rows`` values do not count. Fewer than ``MIN_CALIBRATION_WINDOWS`` of them
    say little about the tail: then the limit is twice the largest, but at least ``min_psi``.

    Args:
        training_features: Symbol, open time and features of the rows that the model learnt from;
            null, NaN and infinite values are missing and counted as such.
        feature_names: The model's features. Calendar features and those without two different
            values are not monitored.
        policy: The window and the least limit, the same as for ``drift_metrics``.

    Raises:
        DataError: If there are no rows, or a feature's column is absent.

    Source: Yurdakul (2018), Statistical properties of population stability index: fixed limits
        such as 0.1 and 0.25 ignore the number of rows.
    """
    if training_features.is_empty():
        raise DataError("no training rows to make a drift reference of", hint="train on candles")
    windows = _window_numbers(training_features, window_hours=policy.window_hours)
    features, unmonitored = [], []
    for name in feature_names:
        values = feature_values(training_features, name=name)
        if name.startswith(_CALENDAR_PREFIXES) or not _varies(values):
            unmonitored.append(name)
        else:
            features.append(_feature_reference(values, name=name, windows=windows, policy=policy))
    return Reference(features=tuple(features), unmonitored=tuple(unmonitored))


def population_stability_index(
    reference_shares: FloatArray, current_shares: FloatArray
) -> FloatArray:
    """Return sum (p - q) ln(p / q) over the bins: 0 for equal shares, symmetric, never negative.

    Args:
        reference_shares: Share of the reference per bin, shape (n_bins,), raised to ``MIN_SHARE``.
        current_shares: Share of the current rows per bin, shape (..., n_bins), likewise.

    Returns:
        The index in nats, shape (...).

    Source: the divergence J of Kullback and Leibler (1951), On information and sufficiency,
        section 2, over binned shares.
    """
    reference = np.maximum(reference_shares, MIN_SHARE)
    current = np.maximum(current_shares, MIN_SHARE)
    return np.asarray(((current - reference) * np.log(current / reference)).sum(axis=-1))


def feature_values(frame: pl.DataFrame, *, name: str) -> FloatArray:
    """Return a feature's present values in the frame's order, NaN where one is missing.

    Raises:
        DataError: If the feature's column is absent.
    """
    if name not in frame.columns:
        raise DataError(
            f"feature {name} has no column among {frame.width} columns",
            hint="compute the features with the code that the model was trained with",
        )
    values = frame[name].cast(pl.Float64).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def _varies(values: FloatArray) -> bool:
    present = values[~np.isnan(values)]
    return present.size > 0 and bool(present.min() < present.max())


def _feature_reference(
    values: FloatArray, *, name: str, windows: IntArray, policy: DriftPolicy
) -> FeatureReference:
    is_present = ~np.isnan(values)
    present = values[is_present]
    edges = _decile_edges(present)
    shares = _counts(present, edges=edges) / present.size
    counts = _counts_by_window(present, edges=edges, windows=windows[is_present])
    n_rows = counts.sum(axis=1, keepdims=True)
    is_full = n_rows[:, 0] >= policy.min_window_rows
    psi = population_stability_index(shares, counts[is_full] / n_rows[is_full])
    return FeatureReference(
        name=name,
        edges=tuple(edges.tolist()),
        shares=tuple(shares.tolist()),
        threshold=_threshold(psi, min_psi=policy.min_psi),
        n_rows=present.size,
        n_missing=values.size - present.size,
        n_windows=psi.size,
    )


def _threshold(psi: FloatArray, *, min_psi: float) -> float:
    if psi.size >= MIN_CALIBRATION_WINDOWS:
        return max(min_psi, float(np.quantile(psi, CALIBRATION_LEVEL)))
    return max(min_psi, 2 * float(psi.max(initial=0.0)))


def _decile_edges(present: FloatArray) -> FloatArray:
    """Return the smallest values that k tenths of the rows do not exceed, k = 1..9, each once.

    Values of the rows themselves, never between two: a value that many rows share ends its bin.
    """
    n_rows_up_to = -(np.arange(1, N_BINS) * -present.size // N_BINS)
    return np.unique(np.sort(present)[n_rows_up_to - 1])


def _counts(present: FloatArray, *, edges: FloatArray) -> IntArray:
    return np.bincount(np.searchsorted(edges, present, side="left"), minlength=edges.size + 1)


def _counts_by_window(present: FloatArray, *, edges: FloatArray, windows: IntArray) -> IntArray:
    """Return the rows per window and bin, shape (windows, bins); window -1 is left out."""
    n_bins = edges.size + 1
    is_inside = windows >= 0
    bins = np.searchsorted(edges, present[is_inside], side="left")
    counts = np.bincount(windows[is_inside] * n_bins + bins)
    return np.pad(counts, (0, -counts.size % n_bins)).reshape(-1, n_bins)


def _window_numbers(features: pl.DataFrame, *, window_hours: int) -> IntArray:
    """Return each row's window, numbered per symbol; -1 after the span's last whole window."""
    since_start_us = features["open_time"].dt.epoch("us").to_numpy()
    since_start_us = since_start_us - since_start_us.min()
    width_us = window_hours * _HOUR_US
    n_whole = (since_start_us.max() + _MINUTE_US) // width_us
    number = since_start_us // width_us
    symbol = features["symbol"].rank("dense").cast(pl.Int64).to_numpy() - 1
    return np.where(number < n_whole, symbol * n_whole + number, -1)


def _feature_from_json(document: Mapping[str, Any]) -> FeatureReference:
    return FeatureReference(
        name=str(document["name"]),
        edges=tuple(float(edge) for edge in document["edges"]),
        shares=tuple(float(share) for share in document["shares"]),
        threshold=float(document["threshold"]),
        n_rows=int(document["n_rows"]),
        n_missing=int(document["n_missing"]),
        n_windows=int(document["n_windows"]),
    )

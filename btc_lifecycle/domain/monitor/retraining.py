"""Whether to train a new candidate now, from the newest drift metrics and the champion's age."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.monitor.reference import FORMAT, require_format


@dataclass(frozen=True, kw_only=True)
class RetrainingPolicy:
    """How much drift or loss leads to retraining, and what holds it back."""

    min_drifted_features: int
    max_log_loss_increase: float
    min_outcomes: int
    cooldown_hours: int
    max_attempts: int

    def __post_init__(self) -> None:
        # ValueError, since the settings turn it into a message that names the file and the key.
        if self.min_drifted_features < 1 or self.min_outcomes < 1 or self.max_attempts < 1:
            raise ValueError(
                "min_drifted_features, min_outcomes and max_attempts must be at least 1"
            )
        if self.cooldown_hours < 0:
            raise ValueError("cooldown_hours must be at least 0")
        if not 0 <= self.max_log_loss_increase < math.inf:
            raise ValueError("max_log_loss_increase must be at least 0 and finite")


@dataclass(frozen=True, kw_only=True)
class DriftFacts:
    """All that the verdict rests on.

    Attributes:
        drifted: Features beyond their limit in any symbol, sorted.
        n_monitored: Features that had enough rows to be judged.
        live_log_loss: Champion's mean log-loss on recent outcomes, in nats; None with too few.
        reference_log_loss: Champion's log-loss on its test rows, in nats; None if unknown.
        n_outcomes: Candles that the live log-loss rests on.
        champion_version: Version that serves; None without one.
        last_trained_at: Market time of the newest candidate's training, that is the end of its
            newest rows, test rows included; None without one.
        market_now: The exchange's time of the verdict.
        n_attempts: Retrainings for this champion that ended with a candidate that did not
            replace it.
        n_failures: Retrainings for this champion that failed since a training last succeeded.
    """

    drifted: tuple[str, ...]
    n_monitored: int
    live_log_loss: float | None
    reference_log_loss: float | None
    n_outcomes: int
    champion_version: str | None
    last_trained_at: datetime | None
    market_now: datetime
    n_attempts: int = 0
    n_failures: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values, times in ISO 8601 with their offset."""
        last_trained_at = self.last_trained_at and self.last_trained_at.isoformat()
        return {
            "format": FORMAT,
            **asdict(self),
            "drifted": list(self.drifted),
            "last_trained_at": last_trained_at,
            "market_now": self.market_now.isoformat(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DriftFacts:
        """Return the facts that ``to_json`` gave, times in UTC.

        Raises:
            DataError: If the format is another one, or a fact is missing or makes no sense.
        """
        require_format(document, what="drift facts")
        try:
            last_trained_at = document["last_trained_at"]
            return cls(
                drifted=tuple(document["drifted"]),
                n_monitored=int(document["n_monitored"]),
                live_log_loss=_optional_float(document["live_log_loss"]),
                reference_log_loss=_optional_float(document["reference_log_loss"]),
                n_outcomes=int(document["n_outcomes"]),
                champion_version=document["champion_version"],
                last_trained_at=None if last_trained_at is None else _time(last_trained_at),
                market_now=_time(document["market_now"]),
                n_attempts=int(document["n_attempts"]),
                # Facts of an earlier version do not have it; the sensor counts anew anyway.
                n_failures=int(document.get("n_failures", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"drift facts are damaged: {error!r}", hint="let monitoring evaluate drift anew"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether to retrain, and the sentence that says why."""

    retrain: bool
    reason: str


def facts_from_metrics(
    metrics: pl.DataFrame,
    *,
    champion_version: str | None,
    reference_log_loss: float | None,
    last_trained_at: datetime | None,
    market_now: datetime,
    n_attempts: int = 0,
    n_failures: int = 0,
) -> DriftFacts:
    """Return the facts that one evaluation's metrics give about the champion.

    Args:
        metrics: ``DRIFT_METRICS.schema`` of one window, of one or more symbols. Metrics of other
            versions than the champion say nothing about it and are left out.
        champion_version: Version that serves; None without one.
        reference_log_loss: Champion's log-loss on its test rows, in nats; None if unknown.
        last_trained_at: Market time of the newest candidate's training, that is the end of its
            newest rows, test rows included; None without one.
        market_now: The exchange's time of the verdict.
        n_attempts: Retrainings for this champion that ended with a candidate that did not
            replace it.
        n_failures: Retrainings for this champion that failed since a training last succeeded.

    Raises:
        DataError: If the metrics come from several windows.
    """
    _require_one_window(metrics)
    of_champion = metrics.filter(pl.col("model_version") == pl.lit(champion_version, pl.String))
    psi = of_champion.filter(metric="psi")
    live_log_loss, n_outcomes = _live_score(of_champion.filter(metric="log_loss"))
    return DriftFacts(
        drifted=tuple(psi.filter("is_breach")["feature"].unique().sort()),
        n_monitored=psi.drop_nulls("value")["feature"].n_unique(),
        live_log_loss=live_log_loss,
        reference_log_loss=reference_log_loss,
        n_outcomes=n_outcomes,
        champion_version=champion_version,
        last_trained_at=last_trained_at,
        market_now=market_now,
        n_attempts=n_attempts,
        n_failures=n_failures,
    )


def decide(facts: DriftFacts, *, policy: RetrainingPolicy) -> Verdict:
    """Return whether to retrain now, with the reason.

    Without a champion there is nothing that could have drifted. A cooldown outranks drift, and so
    do the limits: where the market changed and retraining did not help, or its runs fail again and
    again, more of it will not, and somebody has to look. More drift never turns a yes into a no.
    """
    if facts.champion_version is None:
        return Verdict(retrain=False, reason="no champion serves, so nothing can have drifted")
    evidence = f"{_drift_sentence(facts, policy=policy)}; {_loss_sentence(facts, policy=policy)}"
    cooldown_ends_at = _cooldown_end(facts, policy=policy)
    if cooldown_ends_at is not None and facts.market_now < cooldown_ends_at:
        until = f"{cooldown_ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return Verdict(retrain=False, reason=f"cooling down until {until}; {evidence}")
    has_drifted = len(facts.drifted) >= policy.min_drifted_features
    if not has_drifted and not _has_lost(facts, policy=policy):
        return Verdict(retrain=False, reason=evidence)
    limit_sentence = _limit_sentence(facts, policy=policy)
    if limit_sentence is not None:
        return Verdict(retrain=False, reason=f"{limit_sentence}; {evidence}")
    return Verdict(retrain=True, reason=evidence)


def _limit_sentence(facts: DriftFacts, *, policy: RetrainingPolicy) -> str | None:
    if facts.n_attempts >= policy.max_attempts:
        return (
            f"{facts.n_attempts} retrainings did not replace version {facts.champion_version} "
            f"(limit {policy.max_attempts}), look at their reports and train by hand"
        )
    if facts.n_failures >= policy.max_attempts:
        return (
            f"{facts.n_failures} retraining runs for version {facts.champion_version} failed since "
            f"a training last succeeded (limit {policy.max_attempts}), look at them in the UI and "
            "train by hand"
        )
    return None


def _cooldown_end(facts: DriftFacts, *, policy: RetrainingPolicy) -> datetime | None:
    if facts.last_trained_at is None:
        return None
    return facts.last_trained_at + timedelta(hours=policy.cooldown_hours)


def _has_lost(facts: DriftFacts, *, policy: RetrainingPolicy) -> bool:
    if facts.live_log_loss is None or facts.reference_log_loss is None:
        return False
    limit = facts.reference_log_loss + policy.max_log_loss_increase
    return facts.n_outcomes >= policy.min_outcomes and facts.live_log_loss > limit


def _drift_sentence(facts: DriftFacts, *, policy: RetrainingPolicy) -> str:
    if facts.n_monitored == 0:
        return f"no feature could be judged for version {facts.champion_version}"
    names = f": {', '.join(facts.drifted)}" if facts.drifted else ""
    limit = f"{policy.min_drifted_features} needed"
    return f"{len(facts.drifted)} of {facts.n_monitored} features drifted ({limit}){names}"


def _loss_sentence(facts: DriftFacts, *, policy: RetrainingPolicy) -> str:
    if facts.live_log_loss is None or facts.n_outcomes < policy.min_outcomes:
        return f"{facts.n_outcomes} outcomes, {policy.min_outcomes} needed for a live log-loss"
    live = f"live log-loss {facts.live_log_loss:.4f} over {facts.n_outcomes} outcomes"
    if facts.reference_log_loss is None:
        return f"{live}, no test log-loss of version {facts.champion_version} to hold against it"
    increase = facts.live_log_loss - facts.reference_log_loss
    limit = f"limit {policy.max_log_loss_increase:+.4f}"
    return f"{live}, {increase:+.4f} from the test's {facts.reference_log_loss:.4f} ({limit})"


def _require_one_window(metrics: pl.DataFrame) -> None:
    window_ends = metrics["window_end"].unique().sort()
    if window_ends.len() > 1:
        raise DataError(
            f"drift metrics of {window_ends.len()} windows, ending from "
            f"{window_ends[0]:%Y-%m-%d %H:%M} to {window_ends[-1]:%Y-%m-%d %H:%M} UTC",
            hint="load the metrics of the newest window only",
        )


def _live_score(log_loss: pl.DataFrame) -> tuple[float | None, int]:
    if log_loss.is_empty():
        return None, 0
    return log_loss["value"][0], log_loss["n_rows"][0]


def _optional_float(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"not a finite number: {value!r}")
    return float(value)


def _time(value: str) -> datetime:
    time = datetime.fromisoformat(value)
    if time.utcoffset() is None:
        raise ValueError(f"time without offset from UTC: {value!r}")
    return time.astimezone(UTC)

"""What the modeling report is made of: both candidates' scores, what they use, what was decided."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from btc_lifecycle.adapters.registry import LIBRARIES_TAG, UNREGISTERED, ModelVersion, Registry
from btc_lifecycle.adapters.report_pdf import HeadReport, write_modeling_report
from btc_lifecycle.domain.learn.evaluation import (
    calibration_curve,
    scores_by_hour,
    scores_by_volatility,
)
from btc_lifecycle.domain.learn.heads import DIRECTION_HEAD, VOLATILITY_HEAD, Head
from btc_lifecycle.domain.learn.training import contributions
from btc_lifecycle.orchestration.candidates import PREDICTED, SCORES, read_parquet
from btc_lifecycle.orchestration.learning import Tables, span_of, unseen_rows
from btc_lifecycle.settings import LearnSettings

if TYPE_CHECKING:
    from lightgbm import Booster

_N_EXPLAINED = 500
"""Unseen rows whose predictions are taken apart: enough for the eye, done in a second."""

_REGIME = "realized_volatility_60m"


def report_candidates(
    folder: Path,
    *,
    direction: ModelVersion,
    volatility: ModelVersion,
    registry: Registry,
    tables: Tables,
    learn: LearnSettings,
    made_at: datetime,
) -> Path:
    """Return the path of the report's PDF, with the model card beside it."""
    title = f"Direction of the next {direction.tags['horizon_min']} minutes"
    of_direction = _examine(DIRECTION_HEAD, direction, registry, tables=tables, title=title)
    of_volatility = _examine(
        VOLATILITY_HEAD, volatility, registry, tables=tables, title="Volatility of the next hour"
    )
    predicted = of_direction.predicted
    with_regime = predicted.join(
        tables.features.select("symbol", "open_time", _REGIME),
        on=["symbol", "open_time"],
        how="left",
    )
    return write_modeling_report(
        folder,
        direction=of_direction.report,
        volatility=of_volatility.report,
        calibration=calibration_curve(
            predicted["model"].to_numpy(), predicted["direction"].to_numpy()
        ),
        by_hour=scores_by_hour(predicted),
        by_regime=scores_by_volatility(with_regime),
        contributions=of_direction.contributions,
        cost_bp=2.0 * learn.trading.taker_cost_bp,
        source=direction.tags["source"],
        made_at=made_at,
    )


@dataclass(frozen=True, kw_only=True)
class _Examined:
    """What a candidate's run and a look into its model came to."""

    report: HeadReport
    contributions: pl.DataFrame
    predicted: pl.DataFrame


def _examine(
    head: Head, version: ModelVersion, registry: Registry, *, tables: Tables, title: str
) -> _Examined:
    # Once for all that is told: loading tries the model out in another process.
    booster = registry.load_booster(version)
    predicted = read_parquet(registry, version.run_id, PREDICTED)
    explained = _explained(booster, unseen_rows(head, tables, version))
    is_registered = version.version != UNREGISTERED
    report = HeadReport(
        title=title,
        version=f"{version.name} {version.version}" if is_registered else "not registered",
        facts=_facts(version),
        scores=read_parquet(registry, version.run_id, SCORES),
        outcome=version.tags.get("verdict", "not decided"),
        verdict=version.tags.get("verdict_reason", "nobody has decided yet; run ./task register"),
        importance=_importance(booster, explained),
        n_days=predicted["open_time"].dt.date().n_unique(),
    )
    return _Examined(report=report, contributions=explained, predicted=predicted)


def _importance(booster: "Booster", explained: pl.DataFrame) -> pl.DataFrame:
    gain = booster.feature_importance(importance_type="gain")
    shares = pl.DataFrame({"feature": booster.feature_name(), "gain": gain / (gain.sum() or 1)})
    used = explained.group_by("feature").agg(
        mean_abs_contribution=pl.col("contribution").abs().mean()
    )
    return shares.join(used, on="feature", how="left")


def _explained(booster: "Booster", unseen: pl.DataFrame) -> pl.DataFrame:
    """Return what each feature added to some unseen predictions: feature, value_rank, contribution."""
    rows = unseen.gather_every(max(1, unseen.height // _N_EXPLAINED)).head(_N_EXPLAINED)
    names = booster.feature_name()
    added = contributions(booster, rows, feature_names=names)
    parts = [
        pl.DataFrame(
            {
                "feature": [name] * rows.height,
                "value_rank": rows[name].rank().to_numpy() / rows.height,
                "contribution": np.ascontiguousarray(added[:, position]),
            }
        )
        for position, name in enumerate(names)
    ]
    return pl.concat(parts)


def _facts(version: ModelVersion) -> dict[str, str]:
    tags = version.tags
    parameters, libraries = (json.loads(tags[name]) for name in ("parameters", LIBRARIES_TAG))
    return {
        "Source": tags["source"],
        "Label": f"{tags['label_method']}, {tags['horizon_min']} minutes",
        "Features": str(len(version.feature_names)),
        "Folds": f"{tags['n_folds']}, tested {span_of(tags, 'walked_from', 'test_until')}",
        "Trained on": span_of(tags, "trained_from", "trained_until"),
        "Training rows": f"{int(tags['n_train']):,} and {int(tags['n_validation']):,} to stop early",
        "Parameters": ", ".join(f"{name} {value}" for name, value in parameters.items()),
        "Data (SHA-256)": tags["data_sha256"],
        "Code": tags["code_version"],
        "Libraries": ", ".join(f"{name} {number}" for name, number in libraries.items()),
    }

"""Reports as PDF with their images beside: ingestion, modeling, monitoring.

The drawing lives in the modules beside this one. They load matplotlib and fpdf2, which cost most
of a second, so they are imported when a report is written and not before.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import polars as pl

from btc_lifecycle.adapters.report_pdf.head_report import (
    DirectionEvidence,
    HeadReport,
    with_group_names,
)
from btc_lifecycle.adapters.report_pdf.model_card import MODEL_CARD_NAME, model_card
from btc_lifecycle.adapters.report_pdf.style import REPORT_NAME, Destination
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.ingest.summary import CandleSummary


def write_ingestion_report(
    folder: Path,
    *,
    candles: pl.DataFrame,
    summary: CandleSummary,
    stats: Mapping[str, object],
    source: str,
    made_at: datetime,
) -> Path:
    """Write the report on one market's candles and return the path of its PDF.

    Args:
        folder: made by this call, whole or not at all; empty or absent before.
        candles: the candles that ``summary`` is of.
        summary: their figures.
        stats: the content of ingestion_stats.json.
        source: where the candles come from; ``synthetic`` and ``replay`` are labelled on every
            page and image.
        made_at: aware UTC.

    Raises:
        DataError: the folder already holds something.
    """
    from btc_lifecycle.adapters.report_pdf.ingestion import draw_ingestion_report  # noqa: PLC0415

    with _whole_or_nothing(folder) as partial:
        draw_ingestion_report(
            Destination(folder=partial, source=source, made_at=made_at),
            candles=candles,
            summary=summary,
            stats=stats,
        )
    return folder / REPORT_NAME


def write_modeling_report(  # noqa: PLR0913 - each argument is one thing that the report shows
    folder: Path,
    *,
    direction: HeadReport,
    volatility: HeadReport | None,
    calibration: pl.DataFrame,
    by_hour: pl.DataFrame,
    by_regime: pl.DataFrame,
    contributions: pl.DataFrame,
    cost_bp: float,
    source: str,
    made_at: datetime,
) -> Path:
    """Write the report on a candidate and its model card, and return the path of the PDF.

    The card is ``model_card.md`` beside it. All frames but the heads' are of the direction, on
    rows that the models which predicted them never saw.

    Args:
        folder: made by this call, whole or not at all; empty or absent before.
        direction: the head that tells rises from falls.
        volatility: the head that tells how much the market moves, None where there is none.
        calibration: mean_probability, up_share (both 0 to 1) and n_rows, one row per bin.
        by_hour: group (UTC hour, 0 to 23), n_rows, auc, log_loss, log_loss_gain and accuracy; the
            gain is over the prior, in nats.
        by_regime: the same by the last hour's volatility: low, middle, high.
        contributions: feature, value_rank (0 to 1, null where the value is missing) and
            contribution in log-odds, for some of the rows.
        cost_bp: what one trade pays in basis points, entry and exit together.
        source: as in write_ingestion_report.
        made_at: aware UTC.

    Raises:
        DataError: the folder already holds something.
    """
    from btc_lifecycle.adapters.report_pdf.modeling import draw_modeling_report  # noqa: PLC0415

    evidence = DirectionEvidence(
        calibration=calibration,
        by_hour=with_group_names(by_hour),
        by_regime=with_group_names(by_regime),
        contributions=contributions,
        cost_bp=cost_bp,
    )
    with _whole_or_nothing(folder) as partial:
        destination = Destination(folder=partial, source=source, made_at=made_at)
        draw_modeling_report(
            destination, direction=direction, volatility=volatility, evidence=evidence
        )
        card = model_card(
            destination, direction=direction, volatility=volatility, evidence=evidence
        )
        (partial / MODEL_CARD_NAME).write_text(card, "utf-8")
    return folder / REPORT_NAME


def write_monitoring_report(
    folder: Path,
    *,
    metrics: pl.DataFrame,
    history: pl.DataFrame,
    outcomes: pl.DataFrame,
    verdict: str,
    source: str,
    made_at: datetime,
) -> Path:
    """Write the report on drift and live scores and return the path of its PDF.

    Args:
        folder: made by this call, whole or not at all; empty or absent before.
        metrics: the newest evaluation, DRIFT_METRICS.schema.
        history: all evaluations, DRIFT_METRICS.schema.
        outcomes: OUTCOMES.schema.
        verdict: the sentence that says whether to retrain and why.
        source: as in write_ingestion_report.
        made_at: aware UTC.

    Raises:
        DataError: the folder already holds something.
    """
    from btc_lifecycle.adapters.report_pdf.monitoring import draw_monitoring_report  # noqa: PLC0415

    with _whole_or_nothing(folder) as partial:
        draw_monitoring_report(
            Destination(folder=partial, source=source, made_at=made_at),
            metrics=metrics,
            history=history,
            outcomes=outcomes,
            verdict=verdict,
        )
    return folder / REPORT_NAME


@contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[Path]:
    """Yield a temporary sibling that becomes the folder, or vanishes if the body raises."""
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"the report folder {folder} already holds files",
            hint="choose another folder; a written report is never overwritten",
        )
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(folder)
    except BaseException:
        with suppress(OSError):  # Somebody else's report stays; only an empty folder goes.
            folder.rmdir()
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)

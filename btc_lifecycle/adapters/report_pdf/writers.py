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
    title_facts: Mapping[str, str],
    metrics: Mapping[str, float],
    calibration: pl.DataFrame,
    importance: pl.DataFrame,
    verdict: str,
    was_promoted: bool,
    source: str,
    made_at: datetime,
) -> Path:
    """Write the report on one candidate model and return the path of its PDF.

    Args:
        folder: made by this call, whole or not at all; empty or absent before.
        title_facts: what was trained, on what, when, in the order to show it.
        metrics: flat names to values; ``test_X`` is shown beside ``prior_X``, and
            ``log_loss_gain_low`` with ``log_loss_gain_high`` as an interval in nats.
        calibration: mean_probability, up_share (both 0 to 1) and n_rows, one row per bin.
        importance: feature and gain.
        verdict: the sentence that says why it was promoted or not.
        was_promoted: whether the candidate became the champion.
        source: as in write_ingestion_report.
        made_at: aware UTC.

    Raises:
        DataError: the folder already holds something.
    """
    from btc_lifecycle.adapters.report_pdf.modeling import draw_modeling_report  # noqa: PLC0415

    with _whole_or_nothing(folder) as partial:
        draw_modeling_report(
            Destination(folder=partial, source=source, made_at=made_at),
            title_facts=title_facts,
            metrics=metrics,
            calibration=calibration,
            importance=importance,
            verdict=verdict,
            was_promoted=was_promoted,
        )
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

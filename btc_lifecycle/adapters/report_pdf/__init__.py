"""The PDF reports: the only place that knows matplotlib and fpdf2, both imported when a report is made."""

from __future__ import annotations

from btc_lifecycle.adapters.report_pdf.head_report import HeadReport
from btc_lifecycle.adapters.report_pdf.writers import (
    write_ingestion_report,
    write_modeling_report,
    write_monitoring_report,
)

__all__ = [
    "HeadReport",
    "write_ingestion_report",
    "write_modeling_report",
    "write_monitoring_report",
]

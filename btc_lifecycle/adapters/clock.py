"""The wall clock: the only place that reads it for a meaning, not for a time-out."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """Return the present, aware UTC. What is closed or matured is never decided by it."""
    return datetime.now(UTC)

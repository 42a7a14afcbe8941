"""A prediction log written by hand, as a service of version 1 would have written it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from btc_lifecycle_tests.orchestration.small_lifecycle import NOW

PROBABILITY_UP = 0.75
N_MATURED = 60
FIRST_OPEN_TIME = NOW.replace(second=0) - timedelta(hours=2)
"""Of one prediction a minute: the labels of all of them are known at ``NOW``."""

NOT_MATURED = NOW.replace(second=0) - timedelta(minutes=1)


def write_predictions(folder: Path) -> None:
    """Write matured predictions, one of them twice, one without a candle, one too new, a torn line."""
    matured = [
        _line(f"answer{i}", open_time=(FIRST_OPEN_TIME + i * timedelta(minutes=1)).isoformat())
        for i in range(N_MATURED)
    ]
    others = [
        matured[0],
        _line("without-candle", symbol=None, open_time=None),
        _line("too-new", open_time=NOT_MATURED.isoformat()),
        '{"prediction_id": "torn',
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"predictions-{NOW:%Y%m%dT%H}-1-0a0b0c0d.jsonl"
    path.write_text("\n".join([*matured, *others]), encoding="utf-8")


def _line(
    prediction_id: str, *, symbol: str | None = "BTC/USDT", open_time: str | None = None
) -> str:
    record = {
        "prediction_id": prediction_id,
        "row": 0,
        "symbol": symbol,
        "open_time": open_time,
        "model_name": "bitcoin-model",
        "model_version": "1",
        "made_at": NOW.isoformat(),
        "probability_up": PROBABILITY_UP,
        "direction": 1,
        "features": [0.0],
    }
    return json.dumps(record)

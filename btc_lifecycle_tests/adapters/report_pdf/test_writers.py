from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from polars.exceptions import ColumnNotFoundError

from btc_lifecycle.adapters.report_pdf import (
    write_ingestion_report,
    write_monitoring_report,
)
from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.ingest.summary import summarize
from btc_lifecycle.domain.tables import CANDLES, DRIFT_METRICS, OUTCOMES
from btc_lifecycle_tests.adapters.report_pdf.modeling_inputs import (
    FEATURES,
    MADE_AT,
    NO_EVIDENCE,
    direction,
    modeling_report,
)
from btc_lifecycle_tests.adapters.report_pdf.reading import AMBER_FILL, images_of, page_contents

START = datetime(2024, 2, 1, tzinfo=UTC)
AMBER_PIXEL = (0xB8, 0x69, 0x0F)
STATS = {
    "symbol": "BTC/USDT",
    "interval": "1m",
    "new_rows": 5,
    "total_rows": 5000,
    "fetched_at": "2024-03-01T00:00:05+00:00",
    "source": "binance",
}


def random_candles(n_minutes: int, *, seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    close = 42_000 * np.exp(np.cumsum(rng.normal(0, 0.0008, n_minutes)))
    return pl.DataFrame(
        {
            "symbol": ["BTC/USDT"] * n_minutes,
            "open_time": [START + timedelta(minutes=minute) for minute in range(n_minutes)],
            "open": close,
            "high": close * 1.0003,
            "low": close * 0.9997,
            "close": close,
            "volume": rng.exponential(20, n_minutes),
            "quote_volume": [None] * n_minutes,
            "trades": [None] * n_minutes,
            "taker_buy_base": [None] * n_minutes,
            "taker_buy_quote": [None] * n_minutes,
        },
        schema=CANDLES.schema,
    )


def ingestion_report(folder: Path, candles: pl.DataFrame, *, source: str = "binance") -> Path:
    return write_ingestion_report(
        folder,
        candles=candles,
        summary=summarize(candles),
        stats=STATS,
        source=source,
        made_at=MADE_AT,
    )


def drift_rows(*, window_end: datetime, features: list[str], symbol: str = "BTC/USDT"):
    shared = {
        "symbol": symbol,
        "window_start": window_end - timedelta(hours=24),
        "window_end": window_end,
        "model_version": "7",
    }
    # The fourth feature had too few rows for a value.
    values = [None if position == 3 else 0.02 * position for position in range(len(features))]
    psi = [
        {**shared, "metric": "psi", "feature": feature, "n_rows": 1440, "value": value,
         "threshold": 0.2, "is_breach": value is not None and value > 0.2}
        for feature, value in zip(features, values, strict=True)
    ]  # fmt: skip
    score = {"metric": "log_loss", "feature": "", "n_rows": 900, "value": 0.694, "threshold": 0.7}
    rows = [*psi, {**shared, **score, "is_breach": False}]
    return pl.DataFrame(rows, schema=DRIFT_METRICS.schema)


def some_outcomes(n_outcomes: int) -> pl.DataFrame:
    times = [START + timedelta(minutes=minute) for minute in range(n_outcomes)]
    return pl.DataFrame(
        {
            "prediction_id": [f"p{row}:0" for row in range(n_outcomes)],
            "symbol": ["BTC/USDT"] * n_outcomes,
            "open_time": times,
            "model_version": ["7"] * n_outcomes,
            "probability_up": [0.52] * n_outcomes,
            "direction": [1 if row % 2 else -1 for row in range(n_outcomes)],
            "forward_log_return": [0.001] * n_outcomes,
            "matures_at": [time + timedelta(minutes=16) for time in times],
            "log_loss": [0.69] * n_outcomes,
        },
        schema=OUTCOMES.schema,
    )


def monitoring_report(folder: Path, **changed) -> Path:
    newest = drift_rows(window_end=MADE_AT, features=FEATURES[:20])
    before = drift_rows(window_end=MADE_AT - timedelta(hours=1), features=FEATURES[:20])
    arguments = {
        "metrics": newest,
        "history": pl.concat([before, newest]),
        "outcomes": some_outcomes(50),
        "verdict": "9 features drifted beyond their limit, 3 are enough.",
        "source": "binance",
        "made_at": MADE_AT,
    }
    return write_monitoring_report(folder, **{**arguments, **changed})


def test_the_ingestion_report_has_its_pages_and_sharp_images_beside_it(tmp_path: Path):
    candles = random_candles(3000).filter(~pl.int_range(pl.len()).is_between(900, 1100))
    report = ingestion_report(tmp_path / "ingestion" / "20240301T000100Z", candles)
    assert report.name == "report.pdf"
    assert 3 <= len(page_contents(report)) <= 4
    assert images_of(report.parent) == ["missing_minutes", "price", "returns", "seasonality"]
    for path in report.parent.glob("*.png"):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            # 174 mm at 200 dots per inch.
            assert image.width == pytest.approx(1370, abs=1)
    assert [path.name for path in report.parent.parent.iterdir()] == ["20240301T000100Z"]


@pytest.mark.parametrize(("source", "is_labelled"), [("synthetic", True), ("binance", False)])
def test_every_page_and_image_of_made_up_data_says_so(
    tmp_path: Path, source: str, is_labelled: bool
):
    report = ingestion_report(tmp_path / "report", random_candles(60), source=source)
    assert {AMBER_FILL in page for page in page_contents(report)} == {is_labelled}
    for name in ("price", "seasonality"):
        with Image.open(report.parent / f"{name}.png") as image:
            corner = image.crop((image.width - 250, 0, image.width, 40))
            colors = {color for _, color in corner.getcolors(maxcolors=10_000)}
        assert (AMBER_PIXEL in colors) is is_labelled


def test_the_same_input_gives_the_same_bytes_even_from_several_threads(tmp_path: Path):
    folders = [tmp_path / name for name in ("one", "two")]
    with ThreadPoolExecutor(max_workers=2) as threads:
        reports = list(threads.map(partial(modeling_report, volatility=None), folders))
    assert len({report.read_bytes() for report in reports}) == 1
    for name in ("contributions.png", "model_card.md"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1


def _dead(candles: pl.DataFrame) -> pl.DataFrame:
    prices = [pl.lit(1.0).alias(name) for name in ("open", "high", "low", "close")]
    return candles.with_columns(*prices, volume=pl.lit(0.0))


def _full_of_gaps(candles: pl.DataFrame) -> pl.DataFrame:
    return candles.gather_every(2).with_columns(symbol=pl.lit("Δ" * 90))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda candles: candles.head(1), id="one candle"),
        pytest.param(lambda candles: candles.head(2), id="two candles"),
        pytest.param(_dead, id="constant price, no volume"),
        pytest.param(_full_of_gaps, id="a gap after every candle, a long odd symbol"),
    ],
)
def test_odd_candles_still_make_a_report(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]
):
    report = ingestion_report(tmp_path / "report", change(random_candles(120)))
    assert len(page_contents(report)) >= 3


def test_the_monitoring_report_draws_drift_its_history_and_live_scores(tmp_path: Path):
    report = monitoring_report(tmp_path / "report")
    assert len(page_contents(report)) == 3
    assert images_of(report.parent) == ["drift", "drift_history", "live_log_loss"]


def test_the_long_table_of_two_markets_runs_on_over_pages(tmp_path: Path):
    rows = [
        drift_rows(window_end=MADE_AT, features=FEATURES, symbol=symbol)
        for symbol in ("BTC/USDT", "ETH/USDT")
    ]
    both = pl.concat(rows)
    report = monitoring_report(tmp_path / "report", metrics=both, history=both)
    assert len(page_contents(report)) == 4


def test_nothing_measured_yet_is_said_in_boxes(tmp_path: Path):
    none = pl.DataFrame(schema=DRIFT_METRICS.schema)
    report = monitoring_report(
        tmp_path / "report",
        metrics=none,
        history=none,
        outcomes=pl.DataFrame(schema=OUTCOMES.schema),
        verdict="No champion serves yet.",
    )
    assert len(page_contents(report)) == 1
    assert images_of(report.parent) == []


def test_values_that_are_all_missing_are_said_in_boxes(tmp_path: Path):
    rows = drift_rows(window_end=MADE_AT, features=FEATURES[:3])
    missing = rows.with_columns(value=pl.lit(None, pl.Float64), is_breach=pl.lit(value=False))
    report = monitoring_report(
        tmp_path / "report", metrics=missing, history=missing, outcomes=some_outcomes(1)
    )
    assert images_of(report.parent) == []


def test_a_report_that_fails_leaves_neither_files_nor_open_fonts(tmp_path: Path):
    """Fonts of a report that failed before it was saved stayed open until collected."""
    # Matplotlib keeps the fonts of its charts open, once and for all.
    modeling_report(tmp_path / "first", volatility=None, **NO_EVIDENCE)
    open_before = _open_fonts()
    broken = direction(importance=pl.DataFrame({"feature": ["x"]}))
    with pytest.raises(ColumnNotFoundError) as raised:
        modeling_report(tmp_path / "report", direction=broken)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    # The traceback keeps the report alive, so that only closing can have freed its files.
    assert raised.tb
    assert _open_fonts() == open_before


def _open_fonts() -> int:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("open files are counted through /proc")
    targets = [os.path.realpath(descriptor) for descriptor in descriptors.iterdir()]
    return sum(target.endswith("DejaVuSans.ttf") for target in targets)


def test_a_folder_that_holds_a_report_is_refused_and_left_as_it_is(tmp_path: Path):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "report.pdf").write_text("the first one")
    with pytest.raises(DataError, match="already holds files; choose another folder"):
        modeling_report(folder)
    assert (folder / "report.pdf").read_text() == "the first one"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_importing_the_writers_loads_no_drawing_library():
    code = (
        "import sys, btc_lifecycle.adapters.report_pdf;"
        "print(sorted({'matplotlib', 'fpdf', 'PIL'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_drawing_never_loads_pyplot_whose_figures_would_pile_up():
    code = (
        "import sys;"
        "from btc_lifecycle.adapters.report_pdf import ingestion, modeling, monitoring;"
        "print('matplotlib.figure' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "False"]

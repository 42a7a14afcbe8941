"""The benchmarks run; what they measure is told in benchmarks/README.md, not here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from btc_lifecycle.settings import ROOT

MONTHS = ROOT.parent / "shared" / "data" / "binance_spot_1m" / "BTCUSDT"
TINY = {
    "features.py": ["--candles", "3000", "--runs", "1", "--pandas-runs", "1"],
    "labels.py": ["--candles", "3000", "--runs", "1"],
    "ingestion.py": ["--candles", "3000", "--runs", "1", "--throttled-s", "1"],
    "serving.py": [
        *("--seconds", "1", "--rounds", "1", "--starts", "1", "--clients", "1"),
        *("--mlflow", "left/out"),
    ],
    "storage.py": ["--candles", "3000", "--runs", "1"],
    "training.py": ["--days", "8"],
}
TOLD = {
    "features.py": ["ours: compute_features: peak", "pandas: rolling", "largest difference"],
    "labels.py": ["mlfinpy is left out", "triple barriers, 60 minutes", "pandas and a loop"],
    "ingestion.py": ["freqtrade is left out", "ours: backfill", "weight used in the busiest 60 s"],
    "serving.py": [
        "ours: NativeModel.predict",
        "mlflow models serve is left out",
        "MLServer is left out",
        "ours: start to ready",
        "ours: memory, at the end",
    ],
    "training.py": ["track: wall", "track: peak"],
    "storage.py": ["the last 90 days", "ours: store", "ours: ingest_new"],
}


@pytest.mark.parametrize("script", TINY)
def test_every_benchmark_runs_at_a_tiny_size(script: str) -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *TINY[script]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert [figure for figure in TOLD[script] if figure not in ended.stdout] == []


def test_every_benchmark_is_run_by_a_test() -> None:
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts == {*TINY, "measuring.py", "results.py", "results_page.py", "serving_rivals.py"}


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not MONTHS.is_dir(), reason=f"no real candles under {MONTHS}")
def test_the_page_of_results_is_made_by_one_command(tmp_path: Path) -> None:
    script = [sys.executable, ROOT / "benchmarks" / "results.py", "--out", tmp_path / "page.md"]
    months = ["--tested", "2023-06", "--last", "2023-06", "--window-days", "20", "--leak-days", "9"]
    subprocess.run([*script, *months], check=True)
    page = (tmp_path / "page.md").read_text("utf-8")
    assert page.count("| permuted labels |") == page.count("| logistic |") == 4
    assert page.count("| shuffled |") == 2

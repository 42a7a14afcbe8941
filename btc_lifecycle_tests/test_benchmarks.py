"""The benchmarks run; what they measure is told in benchmarks/README.md, not here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from btc_lifecycle.settings import ROOT

TINY = {
    "ingestion.py": ["--candles", "3000", "--runs", "1", "--throttled-s", "1"],
    "storage.py": ["--candles", "3000", "--runs", "1"],
}
TOLD = {
    "ingestion.py": ["freqtrade is left out", "ours: backfill", "weight used in the busiest 60 s"],
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
    assert scripts == {*TINY, "measuring.py"}

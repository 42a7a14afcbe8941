"""The whole demo, as somebody runs it first, and where it agrees to work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from btc_lifecycle.commands.demo.story import _empty_folder
from btc_lifecycle.domain.errors import ConfigurationError


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_runs_the_whole_lifecycle_and_says_that_its_data_are_synthetic(
    tmp_path: Path,
) -> None:
    """Started where a .env file asks for a key and for other places, which are not the demo's."""
    folder, elsewhere = tmp_path / "demo", tmp_path / "elsewhere"
    (tmp_path / ".env").write_text(f"BTC_API_KEY=secret\nPREDICTION_LOG_DIR={elsewhere}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "btc_lifecycle.commands", "demo", "--data-dir", str(folder)],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "The lifecycle on a SYNTHETIC market" in ended.stdout
    assert "The whole lifecycle ran in" in ended.stdout
    assert ended.stdout.count("done") == 8
    assert not elsewhere.exists()
    assert list(folder.glob("predictions/*.jsonl"))
    for kind in ("ingestion", "modeling", "monitoring"):
        assert list(folder.glob(f"reports/{kind}/*/report.pdf"))


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    for place in (tmp_path, tmp_path / "precious"):
        with pytest.raises(ConfigurationError, match=f"{place} is not an empty folder"):
            _empty_folder(place)


def test_a_new_or_empty_folder_is_taken(tmp_path: Path) -> None:
    assert _empty_folder(tmp_path) == tmp_path
    assert _empty_folder(tmp_path / "new" / "place").is_dir()


def test_without_a_folder_the_demo_works_in_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert _empty_folder(None).parent == tmp_path

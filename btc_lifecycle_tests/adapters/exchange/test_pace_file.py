from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from btc_lifecycle.adapters.exchange import pace_file
from btc_lifecycle.adapters.exchange.pace_file import PaceFile
from btc_lifecycle.adapters.exchange.pace_state import PaceState
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

NOW = 1_800_000_000.0
STATE = PaceState(full_until=NOW, used_weight=3, used_minute=30_000_000)


def test_a_state_is_read_as_it_was_written_by_whichever_way(tmp_path: Path) -> None:
    file = PaceFile(tmp_path / "deep" / "er" / "state.json")
    with file.locked():
        assert file.read(now=NOW) == PaceState()
        for n, write in enumerate([file.write, file.write_durably, file.write, file.write]):
            write(replace(STATE, used_weight=10 ** (3 - n)))
            assert file.read(now=NOW).used_weight == 10 ** (3 - n)


@pytest.mark.parametrize("left", [b"", b"{", b"\0" * 512, b"x" * 5000, bytes(range(256))])
def test_a_file_that_was_spoilt_counts_as_none_and_is_written_over(
    tmp_path: Path, left: bytes
) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(left)
    file = PaceFile(path)
    assert file.read(now=NOW) == PaceState()
    file.write(STATE)
    assert file.read(now=NOW) == STATE


@pytest.mark.parametrize("taken", ["folder", "state"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, taken: str) -> None:
    folder = tmp_path / "exchange"
    if taken == "folder":
        folder.write_text("not a folder")
    else:
        (folder / "state.json").mkdir(parents=True)
    file = PaceFile(folder / "state.json")
    assert file.read(now=NOW) == PaceState()
    with (
        pytest.raises(ConfigurationError, match=f"cannot be kept in {folder} ") as error,
        file.locked(),
    ):
        file.write(STATE)
    assert "make the folder writable" in error.value.hint


def test_a_lock_that_another_process_keeps_is_told_and_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_file, "_LOCK_S", 0.02)
    file = PaceFile(tmp_path / "state.json")
    with (
        FileLock(tmp_path / "state.json.lock"),
        pytest.raises(NeighbourUnavailableError, match=r"another process has held .*lock"),
        file.locked(),
    ):
        pytest.fail("the lock was had twice")

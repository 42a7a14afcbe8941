from __future__ import annotations

import os
from pathlib import Path

import pytest

from btc_lifecycle.adapters.files import write_atomically


def test_the_text_is_written_and_its_folders_are_made(tmp_path: Path):
    path = tmp_path / "a" / "b" / "stats.json"
    write_atomically(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_there_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "stats.json"
    path.write_text("a much longer text than the new one")
    write_atomically(path, "new")
    assert path.read_text() == "new"


def test_who_reads_while_it_is_replaced_keeps_reading_the_old_text(tmp_path: Path):
    path = tmp_path / "stats.json"
    path.write_text("old")
    with path.open() as reader:
        write_atomically(path, "new")
        assert reader.read() == "old"


def test_a_write_that_fails_leaves_the_old_text_and_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "stats.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half of it\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_its_place_is_an_error_and_nothing_stays_beside_it(tmp_path: Path):
    path = tmp_path / "stats.json"
    path.mkdir()
    with pytest.raises(OSError, match=r"stats\.json"):
        write_atomically(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_it_as_any_other_new_file(tmp_path: Path):
    """It was readable by its owner alone, as temporary files are, whatever the umask said."""
    plain, atomic = tmp_path / "plain", tmp_path / "atomic"
    before = os.umask(0o027)
    try:
        plain.write_text("x")
        write_atomically(atomic, "x")
    finally:
        os.umask(before)
    assert atomic.stat().st_mode == plain.stat().st_mode

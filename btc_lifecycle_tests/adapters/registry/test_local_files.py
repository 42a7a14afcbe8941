"""Artifact folders on disk: plain files only, and a disk that cannot be read is no empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from btc_lifecycle.adapters.registry import local_files
from btc_lifecycle.domain.errors import NeighbourUnavailableError


def test_what_lies_on_disk_is_told_by_its_uri(tmp_path):
    odd = tmp_path / "a b%"
    assert local_files.local_folder(odd.as_uri()) == odd
    assert local_files.local_folder(str(tmp_path)) == tmp_path
    for uri in ("s3://bucket/x", "mlflow-artifacts:/1/x", "http://host/x", "runs:/1/x"):
        assert local_files.local_folder(uri) is None


def test_only_plain_files_are_read(tmp_path):
    (tmp_path / "plain").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    (tmp_path / "endless").symlink_to("/dev/zero")
    sizes = {"plain": 5, "folder": None, "link": None, "endless": None}
    assert local_files.local_sizes(tmp_path) == sizes
    assert local_files.local_files(tmp_path) == {"plain": b"12345"}


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    assert local_files.local_sizes(tmp_path / "none") == {}
    assert local_files.local_files(tmp_path / "none") == {}


def test_a_disk_that_cannot_be_read_is_unavailable(tmp_path, monkeypatch):
    def fail(path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    (tmp_path / "plain").touch()
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(NeighbourUnavailableError, match=r"cannot be read: .*Input/output error"):
        local_files.local_files(tmp_path)

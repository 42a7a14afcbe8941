"""The process that reads far artifact folders: what it answers, and how it fails.

That its bytes are those of the folder, test_reading tells with folders that need MLflow.
"""

from __future__ import annotations

import base64

import pytest

from btc_lifecycle.adapters.registry import far_files
from btc_lifecycle.domain.errors import NeighbourUnavailableError


def test_its_answer_holds_what_the_folder_holds(tmp_path):
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_bytes(b"\x00\xff")
    where = {"tracking_uri": f"sqlite:///{tmp_path / 'x.db'}", "folder_uri": folder.as_uri()}
    assert far_files.answer(**where, wanted="sizes") == {"answer": {"a": 2, "inner": None}}
    content = base64.b64encode(b"\x00\xff").decode()
    assert far_files.answer(**where, wanted="files") == {"answer": {"a": content}}


def test_a_problem_is_told_without_the_hint(tmp_path):
    told = far_files.answer(
        tracking_uri=f"sqlite:///{tmp_path / 'x.db'}", folder_uri="nowhere://x/y", wanted="sizes"
    )
    assert "Could not find a registered artifact repository" in told["problem"]


def test_an_endless_reader_is_given_up():
    with pytest.raises(
        NeighbourUnavailableError, match=r"s3://bucket failed: no answer within 0\.01"
    ):
        far_files.far_sizes("s3://key:secret@bucket", tracking_uri="sqlite:///x", wait_s=0.01)


def test_a_reader_that_ends_early_is_told(monkeypatch):
    monkeypatch.setattr(far_files, "__name__", "btc_lifecycle.no_such_module")
    with pytest.raises(NeighbourUnavailableError, match="its reader ended with status 1"):
        far_files.far_files("s3://bucket", tracking_uri="sqlite:///x")

"""What is read of a model's files before they are known to be its own; the rest, test_loading tells."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from btc_lifecycle.adapters.registry.model_files import MOST_BYTES, verified_files
from btc_lifecycle.adapters.registry.records import ModelVersion
from btc_lifecycle.domain.errors import NothingToServeError


class _Sizes:
    """A store that tells sizes and must not be asked for more."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes

    def model_location(self, model_id):
        return "anywhere"

    def file_sizes(self, folder_uri):
        return self.sizes

    def read_folder(self, folder_uri):
        raise AssertionError("more than any model needs was read")


def test_files_larger_than_any_model_are_not_read():
    sizes = {"MLmodel": 1, "golden.json": 1, "model.lgb": MOST_BYTES}
    facts = {name: {"sha256": "", "bytes": n_bytes} for name, n_bytes in sizes.items()}
    version = ModelVersion(
        name="m",
        version="1",
        run_id="",
        tags={"model_uri": f"models:/m-{'0' * 32}", "model_files": json.dumps(facts)},
        metrics={},
        feature_names=(),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    with pytest.raises(NothingToServeError, match="its files have 32000002 bytes, more than"):
        verified_files(version, store=_Sizes(sizes))

"""The pages of docs/ that are made from the code; ``./task docs`` writes them, a test compares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

from pydantic import BaseModel

from btc_lifecycle.domain.tables import TABLES
from btc_lifecycle.settings import ROOT, IngestSettings, LifecycleSettings, read_config

PAGES_FOLDER = ROOT / "docs"


def pages() -> dict[str, str]:
    """Return the content of every generated page by file name."""
    return {"tables.md": tables_page(), "configuration.md": configuration_page()}


def tables_page() -> str:
    """Return the page on the warehouse's tables."""
    parts = [
        "# Tables of the warehouse",
        (
            "Generated from `btc_lifecycle/domain/tables.py`. DuckDB, schema `main`. Times are stored "
            "as UTC without zone; the reader and Dagster's assets hand them out as aware UTC."
        ),
    ]
    for table in TABLES:
        parts.append(f"## {table.name}\n\n{table.meaning} Key: {_code(table.key)}.")
        rows = [
            f"| `{column.name}` | {column.type} | {column.unit} | "
            f"{'yes' if column.is_nullable else ''} | {column.meaning} |"
            for column in table.columns
        ]
        head = ["| column | type | unit | may be missing | meaning |", "|---|---|---|---|---|"]
        parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts) + "\n"


def configuration_page() -> str:
    """Return the page on both configuration files, with the values that are shipped."""
    parts = [
        "# Configuration",
        (
            "Generated from `btc_lifecycle/settings.py` and the files in `config/`. Unknown keys and "
            "wrong types are refused. Places and secrets are environment variables: see `.env.example`."
        ),
    ]
    for name, kind in {"bitcoin_ingest": IngestSettings, "lifecycle": LifecycleSettings}.items():
        shipped = read_config(ROOT / "config" / f"{name}.json", kind)
        rows = [f"| `{key}` | `{value}` | {meaning} |" for key, value, meaning in _keys(shipped)]
        head = ["| key | shipped value | meaning |", "|---|---|---|"]
        parts.append(f"## config/{name}.json\n\n" + "\n".join([*head, *rows]))
    return "\n\n".join(parts) + "\n"


def write(folder: Path = PAGES_FOLDER) -> None:
    """Write every page."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _keys(section: object, *, prefix: str = "") -> Iterator[tuple[str, object, str]]:
    described = section.__pydantic_fields__ if isinstance(section, BaseModel) else {}
    names = described or [field.name for field in fields(section)]  # type: ignore[arg-type]
    for name in names:
        value = getattr(section, name)
        if isinstance(value, BaseModel) or is_dataclass(value):
            yield from _keys(value, prefix=f"{prefix}{name}.")
        else:
            meaning = described[name].description if described else MEANINGS[name]
            yield f"{prefix}{name}", value, meaning or ""


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


MEANINGS = {
    "validation_fraction": "share of the examples, before the test part, that stops the training",
    "test_fraction": "share of the newest examples, never trained on, that scores rest on",
    "min_rows": "fewest examples to train on",
    "num_boost_round": "most trees",
    "early_stopping_rounds": "trees without a better validation log-loss before training stops",
    "learning_rate": "LightGBM's shrinkage",
    "num_leaves": "leaves per tree",
    "min_data_in_leaf": "fewest rows per leaf",
    "feature_fraction": "share of the features that each tree may use",
    "bagging_fraction": "share of the rows that each tree sees",
    "lambda_l2": "L2 penalty on leaf values",
    "seed": "seed of training and of the intervals' resampling",
    "window_hours": "length of the recent window that is held against the training span",
    "min_window_rows": "fewest values in the window to judge a feature by",
    "min_psi": "least limit of a feature's PSI; its own weather in training may raise it",
    "min_drifted_features": "features beyond their limit that make a drift",
    "max_log_loss_increase": "nats by which the live log-loss may exceed the test's",
    "min_outcomes": "fewest matured predictions to judge the live log-loss by",
    "cooldown_hours": "market time after a training during which none is asked for",
    "max_attempts": "retrainings that failed, or did not replace the champion, before a person must look",
}
"""What the keys mean whose classes live in the domain, where they have no descriptions."""

if __name__ == "__main__":
    write()

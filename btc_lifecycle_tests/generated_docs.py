"""The pages of docs/ that are made from the code; ``./task docs`` writes them, a test compares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

from pydantic import BaseModel

from btc_lifecycle.domain.tables import TABLES
from btc_lifecycle.domain.tables.features import CATALOGUE, FeatureEntry
from btc_lifecycle.settings import ROOT, IngestSettings, LifecycleSettings, read_config

PAGES_FOLDER = ROOT / "docs"

FEATURES_INTRODUCTION = """# Features

Generated from `btc_lifecycle/domain/tables/features.py`. Each is one number per candle, known at its
close, from that candle and earlier ones only.

- **Warm-up** is how many minutes before its own candle a feature looks back. Over so many first
  minutes it is missing.
- **A missing minute** silences a feature until the minute lies behind its warm-up: a window that spans
  a gap is missing, never shorter and never of older candles. The longest window is four hours; one of a
  day would silence every model for a day after one missing minute.
- **Optional** features read columns that not every exchange has. Where most of a symbol's rows lack
  one, models learn without it. Any other feature that is mostly missing stops the training.
- **No level**: prices in another currency, or amounts in another unit, give the same features.
- A feature is missing, too, where its formula has no finite value, such as a ratio over a window
  without volume."""

FEATURES_NOTATION = """## Formulas

`O`, `H`, `L`, `C` are a candle's prices, `V` its volume, `N` its number of trades, `B` what takers bought
of `V`, `T = (H + L + C) / 3`. `x[-k]` is `x` of `k` minutes before, `r = ln(C / C[-1])`. `sum_n`, `mean_n`,
`std_n`, `min_n` and `max_n` are over the `n` values up to the candle's own, `std_n` that of a population.
Logs are natural."""


def pages() -> dict[str, str]:
    """Return the content of every generated page by file name."""
    return {
        "tables.md": tables_page(),
        "features.md": features_page(),
        "configuration.md": configuration_page(),
    }


def tables_page() -> str:
    """Return the page on the warehouse's tables."""
    parts = [
        "# Tables of the warehouse",
        (
            "Generated from `btc_lifecycle/domain/tables/`. DuckDB, schema `main`. Times are stored "
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


def features_page() -> str:
    """Return the page on the features, from their catalogue."""
    rows = [
        f"| `{entry.name}` | {entry.meaning} | {entry.unit} | {entry.window_min} | "
        f"{_code(entry.inputs)}{', optional' if entry.is_optional else ''} |"
        for entry in CATALOGUE
    ]
    head = [
        "| feature | meaning | unit | warm-up, minutes | reads |",
        "|---|---|---|---|---|",
    ]
    formulas = [f"| `{entry.name}` | `{entry.formula}` |" for entry in CATALOGUE]
    parts = [
        FEATURES_INTRODUCTION,
        "\n".join([*head, *rows]),
        FEATURES_NOTATION,
        "\n".join(["| feature | formula |", "|---|---|", *formulas]),
        "## Sources\n\nA feature without a source is arithmetic on prices, amounts or the clock.",
        "\n".join(_sources(CATALOGUE)),
    ]
    return "\n\n".join(parts) + "\n"


def configuration_page() -> str:
    """Return the page on both configuration files, with the values that are shipped."""
    parts = [
        "# Configuration",
        (
            "Generated from `btc_lifecycle/settings/sections.py` and the files in `config/`. Unknown keys and "
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


def _sources(entries: Iterable[FeatureEntry]) -> Iterator[str]:
    names_by_source: dict[str, list[str]] = {}
    for entry in entries:
        if entry.source:
            names_by_source.setdefault(entry.source, []).append(entry.name)
    for source, names in names_by_source.items():
        yield f"- {_code(tuple(names))}: {source}."


def _keys(section: object, *, prefix: str = "") -> Iterator[tuple[str, object, str]]:
    described = section.__pydantic_fields__ if isinstance(section, BaseModel) else {}
    names = described or [field.name for field in fields(section)]  # type: ignore[arg-type]
    for name in names:
        value = getattr(section, name)
        if isinstance(value, BaseModel) or is_dataclass(value):
            yield from _keys(value, prefix=f"{prefix}{name}.")
        else:
            meaning = described[name].description if described else MEANINGS[f"{prefix}{name}"]
            yield f"{prefix}{name}", value, meaning or ""


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


MEANINGS = {
    "learn.labels.method": "`horizon`: the close at the horizon decides; `triple_barrier`: what "
    "comes first of a barrier above, one below and the horizon",
    "learn.labels.horizon_min": "minutes from close to outcome, at the latest with barriers; 1 to 240",
    "learn.labels.barrier_width": "distance of the barriers, in units of the horizon's volatility",
    "learn.labels.volatility_window_min": "minutes whose volatility sets the barriers",
    "learn.labels.weighting": "`equal`, or `uniqueness`: labels that overlap weigh less",
    "learn.split.validation_fraction": "share of the examples before a test part that stops the "
    "training",
    "learn.split.test_fraction": "share of the newest examples, that the folds' test parts tile",
    "learn.split.n_folds": "test parts; each is predicted by a model trained on all before it",
    "learn.split.embargo_min": "minutes between a part's last outcome and the next part",
    "learn.split.min_rows": "fewest examples to train on",
    "learn.split.min_days": "fewest UTC days that they are of",
    "learn.training.num_boost_round": "most trees",
    "learn.training.early_stopping_rounds": "trees without a better validation loss before training "
    "stops",
    "learn.training.learning_rate": "LightGBM's shrinkage",
    "learn.training.num_leaves": "leaves per tree",
    "learn.training.min_data_in_leaf": "fewest rows per leaf",
    "learn.training.seed": "seed of training and of the intervals' resampling",
    "learn.tuning.n_trials": "sets of parameters to try before training; 0 keeps the configured one",
    "learn.tuning.max_minutes": "no trial begins after these",
    "learn.trading.min_edge": "the rule that is scored trades where the probability is this far from "
    "one half",
    "learn.trading.taker_cost_bp": "basis points that it pays on entry, and again on exit",
    "learn.promotion.min_rows": "fewest unseen rows to promote by",
    "learn.promotion.min_days": "fewest UTC days that they are of",
    "learn.promotion.min_confidence": "share of resampled days in which a candidate must beat each "
    "baseline",
    "learn.promotion.max_loss_increase": "share of the champion's loss by which a candidate's may be "
    "higher, with a confidence of 95 %",
    "monitor.drift.window_hours": "length of the recent window that is held against the training span",
    "monitor.drift.min_window_rows": "fewest values in the window to judge a feature by",
    "monitor.drift.min_psi": "least limit of a feature's PSI; its own weather in training may raise it",
    "monitor.retraining.min_drifted_features": "features beyond their limit that make a drift",
    "monitor.retraining.max_log_loss_increase": "nats by which the live log-loss may exceed the test's",
    "monitor.retraining.min_outcomes": "fewest matured predictions to judge the live log-loss by",
    "monitor.retraining.cooldown_hours": "market time after a training during which none is asked for",
    "monitor.retraining.max_attempts": "retrainings that failed, or did not replace the champion, "
    "before a person must look",
}
"""What the keys mean whose classes live in the domain, where they have no descriptions."""

if __name__ == "__main__":
    write()

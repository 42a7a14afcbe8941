from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from btc_lifecycle_tests.adapters.report_pdf.modeling_inputs import (
    FEATURES,
    NO_EVIDENCE,
    SHA256,
    contributions,
    direction,
    direction_scores,
    groups,
    importance,
    modeling_report,
    unknown_heads,
    volatility_scores,
    without_intervals,
    without_trades,
)
from btc_lifecycle_tests.adapters.report_pdf.reading import (
    images_of,
    page_contents,
    page_texts,
)

# Of each score: what it is multiplied by, its decimals, whether it bears a sign.
WRITTEN = {
    "auc": (1, 4, ""),
    "log_loss": (1, 4, ""),
    "log_loss_gain": (1000, 2, "+"),
    "brier": (1, 4, ""),
    "accuracy": (100, 1, ""),
    "confident_accuracy": (100, 1, ""),
    "expected_calibration_error": (100, 2, ""),
    "rank_ic": (1, 3, ""),
    "trade_share": (100, 1, ""),
    "gross_bp": (1, 2, "+"),
    "net_bp": (1, 2, "+"),
    "r_squared": (1, 4, ""),
    "mse": (1, 4, ""),
    "mse_gain": (1, 4, "+"),
    "spearman": (1, 4, ""),
}


def cell(row: dict) -> str:
    scale, decimals, sign = WRITTEN[row["score"]]
    value, low, high = (
        f"{row[name] * scale:{sign}.{decimals}f}".replace("-", "\N{MINUS SIGN}")
        for name in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return modeling_report(tmp_path_factory.mktemp("modeling") / "report")


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    return "\n".join(page_texts(report))


def test_the_report_has_its_images_and_its_card_beside_it(report: Path):
    assert images_of(report.parent) == [
        "calibration",
        "contributions",
        "folds",
        "groups",
        "importance",
        "volatility_folds",
        "volatility_importance",
    ]
    assert (report.parent / "model_card.md").exists()
    assert len(page_contents(report)) == 6


def test_no_score_of_all_folds_is_lost_on_the_way_to_the_pages(text: str):
    lines = text.splitlines()
    scores = pl.concat([direction_scores(), volatility_scores()]).filter(pl.col("fold").is_null())
    missing = [row for row in scores.iter_rows(named=True) if cell(row) not in lines]
    assert scores.height == 4 * 2 * 10 + 3 * 2 + 3 * 3 + 2
    assert missing == []


def test_the_first_page_says_what_was_decided_and_what_the_scores_come_to(report: Path):
    first = page_texts(report)[0]
    for said in (
        "Direction of the next 15 minutes: refused  ·  bitcoin-model 3",
        "Kept champion 2: its loss is lower.",
        "Volatility of the next hour: promoted  ·  bitcoin-volatility 2",
        "Better than each baseline.",
        "0.5312",
        "43,200",
        "30 days, 3 folds",
        "the interval lies above 0.",
        "A trade costs 10.00 bp, entry and exit together.",
    ):
        assert said in first


def test_facts_that_heads_share_stand_once_and_the_others_by_head(text: str):
    assert text.count(SHA256) == 1
    assert text.count("\nleaves\n") == 2


def test_a_long_fact_runs_on_instead_of_being_cut(tmp_path: Path):
    parameters = ", ".join(f"parameter_{number}={number}" for number in range(40))
    report = modeling_report(
        tmp_path / "report",
        direction=direction(facts={"parameters": parameters}),
        volatility=None,
        **NO_EVIDENCE,
    )
    words = " ".join(page_texts(report)[-1].split())
    assert parameters in words


def test_the_twenty_largest_features_are_drawn_and_the_rest_counted(text: str):
    words = " ".join(text.replace("\N{NO-BREAK SPACE}", " ").split())
    assert words.count(f"The 20 largest gains of {len(FEATURES)} features.") == 2
    assert f"20 of {len(FEATURES)} features that move predictions" in words
    assert words.count(f"Unused: 1 of {len(FEATURES)}.") == 2


@pytest.mark.parametrize(("source", "is_labelled"), [("synthetic", True), ("binance", False)])
def test_every_page_of_made_up_data_says_so(tmp_path: Path, source: str, is_labelled: bool):
    written = modeling_report(tmp_path / "report", source=source, volatility=None, **NO_EVIDENCE)
    assert {"SYNTHETIC DATA" in text for text in page_texts(written)} == {is_labelled}


def test_one_fold_of_one_day_without_a_trade_or_a_volatility_says_why_numbers_are_missing(
    tmp_path: Path,
):
    scores = without_trades(without_intervals(direction_scores(1))).with_columns(
        value=pl.when(pl.col("score") == "rank_ic").then(float("nan")).otherwise("value")
    )
    unknown = importance([f"a_long_name_of_a_feature_of_some_market_{name}" for name in FEATURES])
    report = modeling_report(
        tmp_path / "report",
        direction=direction(
            scores=scores,
            version="not registered",
            outcome="deferred",
            n_days=None,
            importance=unknown.with_columns(mean_abs_contribution=pl.lit(None, pl.Float64)),
        ),
        volatility=None,
        by_hour=groups([5]).with_columns(auc=pl.lit(None, pl.Float64)),
        by_regime=groups(["low"]).with_columns(log_loss_gain=pl.lit(float("nan"))),
        contributions=contributions(1),
    )
    text = "\n".join(page_texts(report))
    assert "Volatility of the next hour" not in text
    assert "0.5312 (no interval)" in text
    assert "\N{EN DASH} (no trade)" in text
    assert "\N{EN DASH} (not defined)" in text
    assert "With one fold nothing can be said of time." in " ".join(text.split())
    assert "no trade was made" in " ".join(text.split())
    assert "\n1 fold\n" in text


def test_groups_of_one_kind_are_drawn_without_the_other(tmp_path: Path):
    evidence = {**NO_EVIDENCE, "by_regime": groups(["low", "middle", "high"])}
    report = modeling_report(tmp_path / "report", volatility=None, **evidence)
    assert "groups" in images_of(report.parent)


def test_a_model_of_which_nothing_is_known_gets_boxes_instead_of_charts(tmp_path: Path):
    report = modeling_report(tmp_path / "report", source="replay", **unknown_heads(), **NO_EVIDENCE)
    assert images_of(report.parent) == []
    pages = page_texts(report)
    assert all("REPLAYED DATA" in page for page in pages)
    text = "\n".join(pages)
    for said in (
        "Direction of the next 15 minutes: rolled back",
        "No baseline was scored beside the model.",
        "One minute late: not scored.",
        "No fold was scored",
        "No calibration",
        "No gain is known",
        "No contributions",
        "No groups",
    ):
        assert said in text
    assert "no trade" not in text


def test_a_model_without_a_split_is_called_a_constant(tmp_path: Path):
    constant = importance().with_columns(gain=pl.lit(0.0), mean_abs_contribution=pl.lit(0.0))
    report = modeling_report(
        tmp_path / "report",
        direction=direction(importance=constant),
        volatility=None,
        **NO_EVIDENCE,
    )
    assert "The model splits on no feature: it is a constant." in "\n".join(page_texts(report))
    assert "importance" not in images_of(report.parent)

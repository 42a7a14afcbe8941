from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from btc_lifecycle.adapters.report_pdf.head_report import DirectionEvidence, with_group_names
from btc_lifecycle.adapters.report_pdf.model_card import model_card
from btc_lifecycle.adapters.report_pdf.style import Destination
from btc_lifecycle_tests.adapters.report_pdf.modeling_inputs import (
    FEATURES,
    MADE_AT,
    NO_EVIDENCE,
    SHA256,
    calibration,
    contributions,
    direction,
    direction_scores,
    groups,
    unknown_heads,
    volatility,
    volatility_scores,
)
from btc_lifecycle_tests.adapters.report_pdf.test_modeling import cell


def card_of(*, source: str = "binance", **changed) -> str:
    """Return the card that stands beside the report of the same input."""
    evidence = {
        "calibration": calibration(),
        "by_hour": with_group_names(groups(list(range(24)))),
        "by_regime": with_group_names(groups(["low", "middle", "high"])),
        "contributions": contributions(),
    }
    heads = {"direction": direction(), "volatility": volatility(), **changed}
    evidence |= {name: heads.pop(name) for name in evidence if name in heads}
    return model_card(
        Destination(folder=Path("unused"), source=source, made_at=MADE_AT),
        evidence=DirectionEvidence(cost_bp=10.0, **evidence),
        **heads,
    )


@pytest.fixture(scope="module")
def card() -> str:
    return card_of(source="synthetic")


def tables_of(card: str) -> list[list[list[str]]]:
    """Return the cells of each table, its rule left out."""
    blocks = (block.splitlines() for block in card.split("\n\n") if block.startswith("| "))
    return [
        [row.strip("| ").split(" | ") for number, row in enumerate(rows) if number != 1]
        for rows in blocks
    ]


def test_its_sections_are_those_of_a_model_card_in_order(card: str):
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == [
        "What it is",
        "Intended use and misuse",
        "Data and span",
        "Features",
        "Training",
        "Evaluation",
        "Delay and costs",
        "Limits",
        "Decision",
    ]


def test_made_up_data_are_named_in_bold_before_anything_else(card: str):
    second = card.splitlines()[2]
    assert second.startswith("**SYNTHETIC DATA.")
    assert second.endswith("**")
    assert "SYNTHETIC" not in card_of(source="binance")


def test_every_row_of_a_table_has_as_many_cells_as_its_header(card: str):
    tables = tables_of(card)
    assert len(tables) == 3 + 2 + 3 + 3 + 1 + 1
    assert [table for table in tables if len({len(row) for row in table}) != 1] == []


def test_no_score_of_all_folds_is_lost(card: str):
    cells = {cell for table in tables_of(card) for row in table for cell in row}
    scores = pl.concat([direction_scores(), volatility_scores()]).filter(pl.col("fold").is_null())
    assert [row for row in scores.iter_rows(named=True) if cell(row) not in cells] == []


def test_each_fold_has_its_row_with_its_own_scores(card: str):
    folds = next(table for table in tables_of(card) if table[0][0] == "fold, oldest first")
    wanted = direction_scores().filter(pl.col("fold") == 2, delay_min=0)
    auc = wanted.row(
        by_predicate=(pl.col("rival") == "model") & (pl.col("score") == "auc"), named=True
    )
    gain = wanted.row(
        by_predicate=(pl.col("rival") == "prior") & (pl.col("score") == "log_loss_gain"), named=True
    )
    assert folds[2] == ["2", "14,400", cell(auc), cell(gain)]


def test_every_feature_stands_with_its_meaning(card: str):
    features = next(table for table in tables_of(card) if table[0][0] == "feature")
    assert sorted(row[0] for row in features[1:]) == sorted(FEATURES)
    meaning = {row[0]: row[1] for row in features}["log_return_15m"]
    assert meaning == "log of close over the close 15 minutes before"


def test_it_says_what_data_it_was_made_of_and_what_was_decided(card: str):
    assert f"| SHA-256 | {SHA256} |" in card
    assert (
        "**Direction of the next 15 minutes: refused.** Kept champion 2: its loss is lower." in card
    )
    assert "A trade costs 10.00 bp, entry and exit together." in card


def test_text_that_would_break_a_table_is_kept_within_its_cell():
    head = direction(facts={"a|b": "c\nd | e"}, verdict="two\nlines")
    card = card_of(direction=head, volatility=None)
    assert "| a\\|b | c d \\| e |" in card
    assert card.rstrip().endswith("refused.** two lines")


def test_a_model_of_which_nothing_is_known_has_a_card_that_says_so():
    card = card_of(source="replay", **unknown_heads(), **NO_EVIDENCE)
    assert "**REPLAYED DATA." in card
    assert "not scored" in card
    assert "No rows by feature." in card
    assert "No rows by hour, UTC." in card
    assert card.count("refused because refused") >= 1

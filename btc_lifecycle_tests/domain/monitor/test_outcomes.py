"""What became of predictions, and which outcomes count for a score."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from btc_lifecycle.domain.errors import DataError
from btc_lifecycle.domain.monitor.outcomes import join_outcomes, one_per_candle
from btc_lifecycle.domain.tables import LABELS, OUTCOMES, PREDICTIONS
from btc_lifecycle_tests import reference_monitor

START = datetime(2024, 3, 5, tzinfo=UTC)
BTC, ETH = "BTC/USDT", "ETH/USDT"


def minute(number):
    return START + timedelta(minutes=number)


def make_predictions(*rows):
    """Rows of (prediction_id, symbol, minute or None, probability_up), all of version 1."""
    return pl.DataFrame(
        [
            {
                "prediction_id": prediction_id,
                "symbol": symbol,
                "open_time": None if number is None else minute(number),
                "model_version": "1",
                "made_at": minute(600),
                "probability_up": probability_up,
                "direction": 1 if probability_up >= 0.5 else -1,
            }
            for prediction_id, symbol, number, probability_up in rows
        ],
        schema=PREDICTIONS.schema,
    )


def make_labels(*rows):
    """Rows of (symbol, minute, direction) at a horizon of 15 minutes."""
    return pl.DataFrame(
        [
            {
                "symbol": symbol,
                "open_time": minute(number),
                "horizon_min": 15,
                "forward_log_return": direction * 0.001,
                "direction": direction,
                "matures_at": minute(number + 16),
            }
            for symbol, number, direction in rows
        ],
        schema=LABELS.schema,
    )


def test_a_fall_that_was_given_three_quarters_costs_ln_four_thirds():
    outcomes = join_outcomes(make_predictions(("a:0", BTC, 3, 0.25)), make_labels((BTC, 3, -1)))

    assert outcomes.schema == OUTCOMES.schema
    assert outcomes.row(0, named=True) == {
        "prediction_id": "a:0",
        "symbol": BTC,
        "open_time": minute(3),
        "model_version": "1",
        "probability_up": 0.25,
        "direction": -1,
        "forward_log_return": -0.001,
        "matures_at": minute(19),
        "log_loss": pytest.approx(math.log(4 / 3)),
    }


def test_a_rise_that_was_given_one_quarter_costs_ln_four():
    outcomes = join_outcomes(make_predictions(("a:0", BTC, 3, 0.25)), make_labels((BTC, 3, 1)))

    assert outcomes["log_loss"].item() == pytest.approx(math.log(4))


@pytest.mark.parametrize(("probability_up", "direction"), [(0.0, 1), (1.0, -1)])
def test_a_sure_and_wrong_answer_costs_much_but_not_infinitely(probability_up, direction):
    outcomes = join_outcomes(
        make_predictions(("a:0", BTC, 0, probability_up)), make_labels((BTC, 0, direction))
    )

    assert outcomes["log_loss"].item() == pytest.approx(-math.log(1e-15), rel=1e-2)


@pytest.mark.parametrize(("probability_up", "direction"), [(1.0, 1), (0.0, -1)])
def test_a_sure_and_right_answer_costs_next_to_nothing_and_not_less(probability_up, direction):
    outcomes = join_outcomes(
        make_predictions(("a:0", BTC, 0, probability_up)), make_labels((BTC, 0, direction))
    )

    assert 0 <= outcomes["log_loss"].item() < 1e-14


def test_predictions_without_candle_or_matured_label_or_movement_have_no_outcome():
    predictions = make_predictions(
        ("no-candle:0", None, None, 0.5),
        ("no-time:0", BTC, None, 0.5),
        ("not-matured:0", BTC, 9, 0.5),
        ("other-market:0", ETH, 1, 0.5),
        ("flat:0", BTC, 2, 0.5),
        ("matured:0", BTC, 1, 0.5),
    )

    outcomes = join_outcomes(predictions, make_labels((BTC, 1, 1), (BTC, 2, 0)))

    assert outcomes["prediction_id"].to_list() == ["matured:0"]


def test_outcomes_are_sorted_by_symbol_time_and_prediction():
    predictions = make_predictions(
        ("d:0", ETH, 0, 0.5), ("c:0", BTC, 1, 0.5), ("b:0", BTC, 0, 0.5), ("a:0", BTC, 1, 0.5)
    )

    outcomes = join_outcomes(predictions, make_labels((ETH, 0, 1), (BTC, 1, 1), (BTC, 0, 1)))

    assert outcomes["prediction_id"].to_list() == ["b:0", "a:0", "c:0", "d:0"]


def test_two_labels_of_one_candle_are_refused():
    with pytest.raises(DataError, match=r"ETH/USDT: 2 labels .* 2024-03-05 00:04 UTC"):
        join_outcomes(make_predictions(), make_labels((BTC, 4, 1), (ETH, 4, 1), (ETH, 4, -1)))


_symbols = st.sampled_from([BTC, ETH])
_minutes = st.integers(0, 4)


@given(
    st.lists(st.tuples(st.none() | _symbols, st.none() | _minutes, st.floats(0, 1)), max_size=12),
    st.lists(
        st.tuples(_symbols, _minutes, st.sampled_from([1, 0, -1])),
        max_size=10,
        unique_by=lambda label: label[:2],
    ),
)
def test_outcomes_are_those_of_the_slow_reference(candidates, label_rows):
    predictions = make_predictions(*((f"p:{i}", *row) for i, row in enumerate(candidates)))
    labels = make_labels(*label_rows)

    outcomes = join_outcomes(predictions, labels)

    expected = reference_monitor.outcomes(predictions.to_dicts(), labels.to_dicts())
    assert outcomes["prediction_id"].n_unique() == outcomes.height == len(expected)
    for prediction_id, direction, log_loss in outcomes.select(
        "prediction_id", "direction", "log_loss"
    ).iter_rows():
        assert expected[prediction_id] == (direction, pytest.approx(log_loss, rel=1e-12))


def test_a_candle_counts_once_per_version_however_often_it_was_asked():
    labels = make_labels((BTC, 0, 1), (BTC, 1, 1), (ETH, 0, 1))
    first = join_outcomes(
        make_predictions(
            ("c:0", BTC, 0, 0.9), ("b:0", BTC, 0, 0.1), ("d:0", BTC, 1, 0.5), ("e:0", ETH, 0, 0.5)
        ),
        labels,
    )
    second = first.filter(prediction_id="c:0").with_columns(
        prediction_id=pl.lit("f:0"), model_version=pl.lit("2")
    )

    counted = one_per_candle(pl.concat([second, first]))

    assert counted.schema == OUTCOMES.schema
    assert counted["prediction_id"].to_list() == ["b:0", "f:0", "d:0", "e:0"]


@given(st.lists(st.tuples(_symbols, _minutes), max_size=12), st.randoms(use_true_random=False))
def test_which_outcomes_count_depends_neither_on_order_nor_on_counting_again(rows, random):
    predictions = make_predictions(*((f"p:{i}", *row, 0.5) for i, row in enumerate(rows)))
    labels = make_labels(*((symbol, number, 1) for symbol, number in sorted(set(rows))))
    outcomes = join_outcomes(predictions, labels)
    shuffled = list(range(outcomes.height))
    random.shuffle(shuffled)

    counted = one_per_candle(outcomes)

    assert counted.height == len(set(rows))
    assert_frame_equal(one_per_candle(outcomes[shuffled]), counted)
    assert_frame_equal(one_per_candle(counted), counted)

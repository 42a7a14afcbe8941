from __future__ import annotations

import polars as pl
import pytest

from btc_lifecycle.domain.learn.features import (
    FEATURE_NAMES,
    OPTIONAL_FEATURES,
    WARMUP_MIN,
    available_features,
    compute_features,
)
from btc_lifecycle.domain.tables import FEATURES
from btc_lifecycle_tests.builders import make_candles

REQUIRED = tuple(name for name in FEATURE_NAMES if name not in OPTIONAL_FEATURES)


def features_of(symbol: str, *, n: int = 400, with_taker: bool = True) -> pl.DataFrame:
    candles = make_candles(n, symbol=symbol, with_taker=with_taker)
    return compute_features(candles)[WARMUP_MIN:]


def with_known(features: pl.DataFrame, name: str, *, n_known: int) -> pl.DataFrame:
    is_known = pl.int_range(pl.len()) < n_known
    return features.with_columns(pl.when(is_known).then(0.5).alias(name))


def test_an_exchange_that_tells_everything_gives_every_feature():
    assert available_features(features_of("BTC/USDT")) == FEATURE_NAMES


def test_an_exchange_that_tells_neither_trades_nor_takers_gives_the_rest():
    assert set(OPTIONAL_FEATURES) == {
        name for name in FEATURE_NAMES if name.startswith(("taker_", "trades_"))
    }
    assert available_features(features_of("BTC/USDT", with_taker=False)) == REQUIRED


def test_what_one_symbol_lacks_no_model_of_both_can_have():
    """Rows of all symbols were counted together: the poorer symbol lost every example."""
    rich, poor = features_of("BTC/USDT", n=900), features_of("ETH/USDT", with_taker=False)
    assert available_features(pl.concat([rich, poor])) == REQUIRED


@pytest.mark.parametrize(("n_known", "is_available"), [(1, False), (79, False), (80, True)])
def test_an_optional_feature_is_wanted_in_half_of_a_symbols_rows(n_known, is_available):
    features = with_known(features_of("BTC/USDT"), "taker_imbalance_1m", n_known=n_known)
    assert features.height == 160
    assert ("taker_imbalance_1m" in available_features(features)) == is_available


def test_a_required_feature_is_never_dropped_silently():
    features = with_known(features_of("BTC/USDT"), "rsi_14m", n_known=0)
    assert available_features(features) == FEATURE_NAMES


def test_no_rows_tell_of_no_optional_feature():
    assert available_features(pl.DataFrame(schema=FEATURES.schema)) == REQUIRED

from __future__ import annotations

import json
from pathlib import Path

import pytest

from btc_lifecycle.domain.errors import ConfigurationError
from btc_lifecycle.sandbox.exchange_info import exchange_info

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures" / "binance_rest"


def recorded(name):
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return json.loads(path.read_text())


def body():
    return exchange_info(["BTCUSDT"], now_ms=1, weight_limit_per_min=6000)


def shape(value):
    """Names and kinds of a JSON value; of a list, the kinds of its items."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return {type(item).__name__ for item in value}
    return type(value).__name__


def test_the_weight_limit_is_announced():
    assert body()["rateLimits"][0] == {
        "rateLimitType": "REQUEST_WEIGHT",
        "interval": "MINUTE",
        "intervalNum": 1,
        "limit": 6000,
    }


def test_a_symbol_that_has_no_quote_asset_is_refused():
    with pytest.raises(ConfigurationError, match="no symbol"):
        exchange_info(["NOTHING"], now_ms=1, weight_limit_per_min=6000)


@pytest.mark.real_data
def test_the_body_has_the_shape_of_the_recorded_one():
    old = recorded("exchange_info_2021.json")
    assert body().keys() == old.keys()
    assert shape(body()["rateLimits"][0]) == shape(old["rateLimits"][0])


@pytest.mark.real_data
def test_a_symbol_has_every_field_of_the_recorded_one_with_numbers_as_numbers():
    """The recent recording went through a library that made texts of its numbers; 2021's did not."""
    info = body()["symbols"][0]
    recent = recorded("exchange_info_symbol_recent.json")["symbol_info"]
    assert info.keys() == recent.keys()
    for name, value in recent.items():
        if name != "filters":
            assert info[name] == (int(value) if name.endswith("Precision") else value), name
    as_texts = json.loads(json.dumps(info["filters"]), parse_int=str)
    assert as_texts == recent["filters"]
    of_2021 = recorded("exchange_info_2021.json")["symbols"][0]
    for name in of_2021.keys() & info.keys() - {"filters"}:
        assert type(info[name]) is type(of_2021[name]), name

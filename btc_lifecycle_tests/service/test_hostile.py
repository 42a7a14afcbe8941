"""Requests that nobody should send: each gets an error that says why, and harms none after it."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import requests
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from btc_lifecycle.adapters.online_store import OnlineStore
from btc_lifecycle.service.app import create_app
from btc_lifecycle.service.errors import ApiError
from btc_lifecycle.service.rows import feature_matrix, parse_predict_request, plain_row
from btc_lifecycle_tests.model_builders import FEATURES
from btc_lifecycle_tests.service.conftest import service_settings
from btc_lifecycle_tests.service.test_app import JSON, error_of
from btc_lifecycle_tests.service.test_latest import snapshot

GOOD = {"features": [0.4, -1.0, 0.6]}
KEY = {"X-API-Key": "s3cret"}

JUDGED_HERE = [not_a_server_error, positive_data_acceptance, ignored_auth]
"""A market without features is 503, how many numbers a row has is the model's, and the key is sent."""

BAD_BODIES = {
    "empty": (b"", 400),
    "no JSON": (b"features", 400),
    "cut": (b'{"features": [1, 2', 400),
    "two documents": (b'{"features": [1, 2, 3]} {}', 400),
    "not UTF-8": (b'{"features": "\xff"}', 400),
    "UTF-16": ('{"features": [1, 2, 3]}'.encode("utf-16"), 400),
    "byte order mark": (b'\xef\xbb\xbf{"features": [1, 2, 3]}', 400),
    "NaN": (b'{"features": [NaN, 1, 2]}', 400),
    "Infinity": (b'{"features": [1, Infinity, 2]}', 400),
    "-Infinity": (b'{"features": [1, 2, -Infinity]}', 400),
    "duplicate key": (b'{"features": [1, 2, 3], "features": [1, 2, 4]}', 400),
    "duplicate feature": (b'{"features": [{"rsi_14m": 1, "rsi_14m": 2}]}', 400),
    "deep list": (b'{"features": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", 400),
    "deep object": (b'{"a":' * 30_000 + b"1" + b"}" * 30_000, 400),
    "integer of 5000 digits": (b'{"features": [1, 2, ' + b"9" * 5000 + b"]}", 400),
    "integer of 400 digits": (b'{"features": [1, 2, ' + b"9" * 400 + b"]}", 422),
    "1e400": (b'{"features": [1e400, 1, 2]}', 422),
    "null": (b"null", 422),
    "list": (b"[1, 2, 3]", 422),
    "number": (b"1", 422),
    "text": (b'"features"', 422),
    "empty object": (b"{}", 422),
    "extra key": (b'{"features": [1, 2, 3], "extra": 1}', 422),
    "extra key of half a surrogate": (b'{"features": [1, 2, 3], "\\ud800": 1}', 422),
    "features null": (b'{"features": null}', 422),
    "features number": (b'{"features": 1}', 422),
    "features text": (b'{"features": "1,2,3"}', 422),
    "features object": (b'{"features": {"rsi_14m": 1}}', 422),
    "no rows": (b'{"features": []}', 422),
    "empty row": (b'{"features": [[]]}', 422),
    "empty named row": (b'{"features": [{}]}', 422),
    "number as text": (b'{"features": ["1", 2, 3]}', 422),
    "boolean": (b'{"features": [true, 2, 3]}', 422),
    "null value": (b'{"features": [null, 2, 3]}', 422),
    "null row": (b'{"features": [null]}', 422),
    "object value": (b'{"features": [1, {}, 3]}', 422),
    "too few": (b'{"features": [1, 2]}', 422),
    "too many": (b'{"features": [1, 2, 3, 4]}', 422),
    "one short row": (b'{"features": [[1, 2, 3], [1, 2]]}', 422),
    "mixed rows": (b'{"features": [[1, 2, 3], {"rsi_14m": 1}]}', 422),
    "row beside values": (b'{"features": [1, [1, 2, 3]]}', 422),
    "too deep by one": (b'{"features": [[[1, 2, 3]]]}', 422),
    "text in a row": (b'{"features": [[1, "2", 3]]}', 422),
    "missing name": (b'{"features": [{"rsi_14m": 1, "log_return_1m": 1}]}', 422),
    "unknown name": (
        b'{"features": [{"rsi_14m": 1, "log_return_1m": 1, "log_return_5m": 1, "x": 1}]}',
        422,
    ),
    "unknown name of half a surrogate": (b'{"features": [{"\\udfff": 1}]}', 422),
    "named null": (
        b'{"features": [{"rsi_14m": null, "log_return_1m": 1, "log_return_5m": 1}]}',
        422,
    ),
    "symbol number": (b'{"features": [1, 2, 3], "symbol": 5}', 422),
    "symbol in lower case": (b'{"features": [1, 2, 3], "symbol": "btc/usdt"}', 422),
    "symbol of half a surrogate": (b'{"features": [1, 2, 3], "symbol": "\\ud800/A"}', 422),
    "open times without symbol": (
        b'{"features": [1, 2, 3], "open_times": ["2026-01-31T12:00:00Z"]}',
        422,
    ),
}
BAD_BODIES |= {
    f"value {value[:30]}": (f'{{"features": [{value}, 2, 3]}}'.encode(), 400)
    for value in (
        "1_000", "0x1F", "01", "-01", "+1", ".5", "1.", "-", "--1", "1e", "1e+", "1.5.2", "1 2", "1f",
        "nan", "inf", "Inf", "None", "True", "undefined", "'1'", "\u0661", "1,", ",1", "1/2", "1//x\n",
        "/* one */ 1", "# one\n1", "\x00", "1\x00", "\x0b1", "\xa01", "\ufeff1", '"\\x41"', '"\n"', '"\\ud8"',
    )
}  # fmt: skip
BAD_BODIES |= {
    "trailing comma": (b'{"features": [1, 2, 3],}', 400),
    "single quotes": (b"{'features': [1, 2, 3]}", 400),
    "no quotes": (b"{features: [1, 2, 3]}", 400),
    "no colon": (b'{"features" [1, 2, 3]}', 400),
    "square and curly": (b'{"features": [1, 2, 3}]', 400),
    "something before": (b')]}\',\n{"features": [1, 2, 3]}', 400),
    "a nought at the end": (b'{"features": [1, 2, 3]}\x00', 400),
    "the key twice by an escape": (b'{"features": [1, 2, 3], "\\u0066eatures": [1, 2, 3]}', 400),
    "the key in capitals": (b'{"FEATURES": [1, 2, 3]}', 422),
    "a long name": (b'{"features": [{"' + b"x" * 100_000 + b'": 1}]}', 422),
    "a long key": (b'{"features": [1, 2, 3], "' + b"x" * 100_000 + b'": 1}', 422),
    "nested nulls": (b'{"features": [[null, null, null]]}', 422),
    "a value of 1e309": (b'{"features": [1e309, 2, 3]}', 422),
    "exponent beyond any": (b'{"features": [1e99999999999999999999, 2, 3]}', 422),
    "a thousand rows of one": (b'{"features": [' + b",".join([b"[1]"] * 1000) + b"]}", 422),
    "a row too many": (b'{"features": [' + b",".join([b"[1, 2, 3]"] * 1001) + b"]}", 422),
    "a symbol with a newline": (b'{"features": [1, 2, 3], "symbol": "BTC/USDT\\n"}', 422),
    "gzip": (gzip.compress(b'{"features": [1, 2, 3]}'), 400),
    "a form": (b"features=1&features=2&features=3", 400),
}
BAD_BODIES |= {
    f"open times {times}": (
        f'{{"features": [1, 2, 3], "symbol": "BTC/USDT", "open_times": {times}}}'.encode(),
        422,
    )
    for times in (
        "[]",
        "{}",
        "[1769860800]",
        '["1769860800"]',
        '["yesterday"]',
        '["2026-01-31T12:00:00"]',
        '["0001-01-01T00:00:00+14:00"]',
        '["2026-01-31T12:00:00Z", "2026-01-31T12:01:00Z"]',
        "[null]",
    )
}


@pytest.mark.parametrize(("body", "status"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_gets_an_error_answer_and_the_next_good_one_its_prediction(client, body, status):
    answer = client.post("/predict", content=body, headers=JSON)
    assert answer.status_code == status
    error_of(answer)
    assert client.post("/predict", json=GOOD).status_code == 200


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-400", 0.0),
        ("-0.0", -0.0),
        ("-0", 0.0),
        ("9223372036854775808", 2.0**63),
        ("18446744073709551616", 2.0**64),
        ("-9223372036854775809", -(2.0**63)),
        ("9" * 30, 1e30),
        ("9007199254740993", 9007199254740992.0),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("4.9e-324", 5e-324),
        ("0e999", 0.0),
    ],
)
def test_numbers_at_the_edges_are_what_ieee_754_says(text, value):
    body = f'{{"features": [{text}, 2]}}'.encode()
    assert carefully(body) == np.array([[value, 2.0]]).tobytes()
    assert agrees(body)


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {"Content-Type": "text/json"}])
def test_a_packed_body_or_one_of_another_type_is_refused(client, headers):
    packed = gzip.compress(json.dumps(GOOD).encode())
    error_of(client.post("/predict", content=packed, headers={**JSON, **headers}))
    parts = client.post("/predict", data={"x": "1"}, files={"features": b"[1, 2, 3]"})
    assert error_of(parts)["code"] == "wrong_content_type"


_SPACES = st.text(" \t\r\n", max_size=2)
_NUMBERS = (
    st.floats().map(repr)
    | st.integers().map(str)
    | st.integers(-(10**40), 10**40).map(str)
    | st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
    | st.sampled_from(["true", "null", "01", "+1", "1_0", "[]", "{}", "NaN", "1e400", "-0", "''"])
)
_KEYS = st.sampled_from(["features"] * 5 + ["\\u0066eatures", "symbol", "", "f\u00e9"])


@st.composite
def plain_texts(draw: st.DrawFn) -> bytes:
    """Return a body much like one row of two, with some of its bytes changed."""
    space = draw(_SPACES)
    values = f"{space},{space}".join(draw(st.lists(_NUMBERS, min_size=1, max_size=3)))
    body = bytearray(f'{space}{{"{draw(_KEYS)}"{space}:[{values}]{space}}}{space}'.encode())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 1))] = draw(
            st.binary(max_size=1) | st.sampled_from([b'"', b",", b"[", b"}", b"-", b"e", b"\\"])
        )
    return bytes(body)


def carefully(body: bytes) -> bytes | int:
    """Return the bytes of the numbers that the careful way reads, or the status of its refusal."""
    try:
        request = parse_predict_request(body)
        return feature_matrix(request, feature_names=("a", "b"), max_rows=2).tobytes()
    except ApiError as error:
        return error.status


def agrees(body: bytes) -> bool:
    row = plain_row(body, n_features=2)
    return row is None or np.array([row], dtype=np.float64).tobytes() == carefully(body)


@settings(max_examples=500)
@given(body=plain_texts() | st.binary(max_size=20).map(b'{"features": [1, 2%s]}'.__mod__))
@example(body=b'{"features": [1e400, 1]}')
@example(body=b'{"features": [-0, 1]}')
@example(body=b'{"features": [1, 1], "features": [1, 2]}')
@example(body=b'{"features": [1, 1], "symbol": 1}')
@example(body=b'\xef\xbb\xbf{"features": [1, 2]}')
def test_what_the_quick_way_takes_the_careful_way_takes_bit_for_bit(body):
    assert agrees(body)


def test_the_quick_way_takes_a_plain_row_at_all():
    assert plain_row(b'{"features": [1, 2.5]}', n_features=2) == [1, 2.5]


@pytest.mark.slow
@settings(max_examples=50_000)
@given(body=plain_texts())
def test_fifty_thousand_bodies_find_no_difference_between_the_two_ways(body):
    assert agrees(body)


@pytest.fixture(scope="module")
def guarded(champion_uri, tmp_path_factory) -> Iterator[TestClient]:
    """A client with the key of a service that has a champion and fresh features of BTC/USDT."""
    folder, now = tmp_path_factory.mktemp("guarded"), datetime.now(UTC)
    open_time = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    OnlineStore(folder / "online").write(
        snapshot(open_time=open_time, market_time=now, read_at=now)
    )
    changes = {"api_key": KEY["X-API-Key"], "access_log": False, "max_feature_age_s": 86_400.0}
    app = create_app(service_settings(champion_uri, folder, **changes))
    with TestClient(app, headers=KEY, raise_server_exceptions=False) as client:
        app.state.service.live.refresh()
        yield client


def generated(strategy: st.SearchStrategy, check: Callable[[Case], None], *, n: int) -> None:
    """Check up to n cases; an operation that nothing can be wrong about has no bad ones."""

    @settings(max_examples=n, database=None, suppress_health_check=list(HealthCheck))
    @given(case=strategy)
    def run(case: Case) -> None:
        check(case)

    try:
        run()
    except Unsatisfiable:
        return


def call_everything(client: TestClient, *, n: int) -> Counter[str]:
    """Return how many requests each operation got; all answers are as its document says."""
    schema, n_calls = schemathesis.openapi.from_dict(client.app.openapi()), Counter[str]()

    def check(case: Case) -> None:
        n_calls[case.operation.label] += 1
        # Not by its own client, which would start the app a second time.
        told = case.as_transport_kwargs(base_url="http://localhost", headers=KEY)
        asked = requests.Request(**told).prepare()
        answer = client.request(
            asked.method, asked.url, headers=dict(asked.headers), content=asked.body
        )
        case.validate_response(answer, excluded_checks=JUDGED_HERE)
        if answer.status_code >= 500:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "no_features"
            assert dict(case.query)["symbol"] != "BTC/USDT"

    for operation in (found.ok() for found in schema.get_all_operations()):
        for mode in GenerationMode:
            generated(operation.as_strategy(generation_mode=mode), check, n=n)
            assert client.post("/predict", json=GOOD).status_code == 200
    return n_calls


def test_generated_requests_to_every_endpoint_are_answered_as_documented(guarded):
    n_calls = call_everything(guarded, n=50)
    assert set(n_calls) == {
        f"{method.upper()} {path}"
        for path, operations in guarded.app.openapi()["paths"].items()
        for method in operations
    }
    assert n_calls.total() > 500


@pytest.mark.slow
def test_ten_thousand_generated_requests_are_answered_as_documented(guarded):
    assert call_everything(guarded, n=850).total() > 10_000


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_FINITE = st.floats(allow_nan=False, allow_infinity=False)
_ROWS = st.lists(_FINITE, min_size=3, max_size=3)
_NAMED = st.fixed_dictionaries(dict.fromkeys(FEATURES, _FINITE))
_REQUESTS = st.fixed_dictionaries(
    {"features": _ROWS | st.lists(_ROWS) | st.lists(_NAMED) | _VALUES},
    optional={"symbol": st.just("BTC/USDT") | _VALUES, "open_times": _VALUES},
)


def predict_whatever(client: TestClient, *, n: int) -> Counter[int]:
    """Return how often each status came of requests that are good, nearly good, or anything."""
    statuses = Counter[int]()

    @settings(max_examples=n, database=None)
    @given(body=_REQUESTS | _VALUES)
    def run(body: object) -> None:
        content = json.dumps(body).encode()
        answer = client.post("/predict", content=content, headers=JSON)
        statuses[answer.status_code] += 1
        if answer.status_code != 200:
            error_of(answer)

    run()
    return statuses


def test_whatever_is_to_be_predicted_is_predicted_or_refused(guarded):
    statuses = predict_whatever(guarded, n=300)
    assert {200, 422} <= set(statuses) <= {200, 400, 422}


@pytest.mark.slow
def test_whatever_is_to_be_predicted_ten_thousand_times_is_predicted_or_refused(guarded):
    statuses = predict_whatever(guarded, n=10_000)
    assert set(statuses) <= {200, 400, 422}
    assert statuses[200] > 1000

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from email.utils import parsedate_to_datetime

import pytest

from btc_lifecycle.sandbox.faults import TELL_A_DELAY, Fault, FaultKind, FaultPath
from btc_lifecycle.sandbox.market import MINUTE_MS, as_ms
from btc_lifecycle.sandbox.protocol import KLINES_PATH, answer, to_json
from btc_lifecycle.sandbox.spoiling import ELSEWHERE, GIANT_BYTES, another_page, kinds_of, spoil
from btc_lifecycle.sandbox.synthetic import SyntheticMarket
from btc_lifecycle.sandbox.transport import Answer, Delivery
from btc_lifecycle_tests.reference_sandbox import all_rows
from btc_lifecycle_tests.sandbox.conftest import NOW, START

MARKET = SyntheticMarket(start=START)
ROWS = all_rows(MARKET, "BTCUSDT", until_ms=as_ms(START) + 9 * MINUTE_MS)
GOOD = Answer(body=to_json(ROWS), headers={"X-MBX-USED-WEIGHT-1M": "2"})


def spoilt(kind, *, delay=1):
    fault = Fault(kind=FaultKind(kind), retry_after_seconds=delay)
    return spoil(GOOD, fault=fault, now=NOW)


class TestKinds:
    def test_the_time_and_the_archive_have_no_rows_to_spoil(self):
        of_time, of_archive = kinds_of(FaultPath.TIME), kinds_of(FaultPath.ARCHIVE)
        assert set(of_time) - set(of_archive) == {FaultKind.NOT_A_TIME}
        assert {*of_time} >= {FaultKind.HTML, FaultKind.HTTP_503, FaultKind.RESET, FaultKind.DRIP}
        assert not {*of_time} & {FaultKind.NAN, FaultKind.HOLES, FaultKind.MICROSECONDS}

    def test_klines_can_have_every_fault_but_the_times_own(self):
        assert {*FaultKind} - {*kinds_of(FaultPath.KLINES)} == {FaultKind.NOT_A_TIME}

    @pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind != FaultKind.OTHER_TIME])
    def test_every_kind_makes_the_answer_another_one_and_keeps_its_headers(self, kind):
        found = spoilt(kind)
        assert found != GOOD
        assert found is None or found.headers.items() >= GOOD.headers.items()


class TestStatuses:
    @pytest.mark.parametrize(
        ("kind", "status", "code"),
        [
            ("ok_1003", 200, -1003),
            ("http_400_1003", 400, -1003),
            ("http_418", 418, -1003),
            ("http_429", 429, -1003),
            ("http_429_bare", 429, -1003),
            ("http_429_date", 429, -1003),
            ("http_451", 451, 0),
            ("http_500", 500, -1000),
            ("http_500_1001", 500, -1001),
            ("http_503", 503, -1008),
            ("http_504", 504, -1007),
        ],
    )
    def test_an_error_has_the_exchanges_status_and_code(self, kind, status, code):
        found = spoilt(kind)
        assert (found.status, json.loads(found.body)["code"]) == (status, code)

    @pytest.mark.parametrize(
        ("kind", "status"),
        [("html", 200), ("http_302", 302), ("http_403", 403), ("http_502", 502), ("http_520", 520)],
    )
    def test_what_stands_before_the_exchange_answers_in_html(self, kind, status):
        found = spoilt(kind)
        assert (found.status, found.content_type) == (status, "text/html")
        assert found.body.startswith(b"<!DOCTYPE html>")

    def test_a_redirect_names_a_host_that_cannot_exist(self):
        assert spoilt("http_302").headers["Location"] == ELSEWHERE
        assert ".invalid/" in ELSEWHERE

    def test_a_delay_is_told_in_seconds_as_a_date_or_not_at_all(self):
        told = {
            kind: spoilt(kind, delay=90).headers.get("Retry-After")
            for kind in FaultKind
            if kind not in (FaultKind.OTHER_TIME, FaultKind.RESET)
        }
        assert {kind for kind, delay in told.items() if delay is not None} == TELL_A_DELAY
        assert told[FaultKind.HTTP_418] == told[FaultKind.HTTP_429] == "90"
        until = parsedate_to_datetime(told[FaultKind.HTTP_429_DATE])
        assert until == NOW + timedelta(seconds=90)


class TestBodies:
    @pytest.mark.parametrize(
        ("kind", "body"),
        [("empty", b""), ("null", b"null"), ("object", b"{}"), ("not_a_time", b"{}")],
    )
    def test_bodies_that_hold_no_rows(self, kind, body):
        assert spoilt(kind).body == body

    def test_a_cut_body_is_a_true_beginning_that_does_not_parse(self):
        cut = spoilt("cut").body
        assert GOOD.body.startswith(cut)
        with pytest.raises(json.JSONDecodeError):
            json.loads(cut)

    def test_a_giant_is_a_good_page_of_more_than_5_mb(self):
        giant = spoilt("giant").body
        assert len(giant) > GIANT_BYTES > 5_000_000
        assert json.loads(giant) == ROWS

    def test_what_is_said_to_be_compressed_is_not(self):
        found = spoilt("bad_gzip")
        assert found.headers["Content-Encoding"] == "gzip"
        with pytest.raises(gzip.BadGzipFile):
            gzip.decompress(found.body)

    def test_times_of_a_page_in_microseconds_have_sixteen_digits(self):
        rows = json.loads(spoilt("microseconds").body)
        assert [row[0] for row in rows] == [1000 * row[0] for row in ROWS]
        assert {len(str(row[6])) for row in rows} == {16}

    def test_rows_are_spoilt_by_the_exchanges_time(self):
        *rows, future = json.loads(spoilt("future_row").body)
        assert rows == ROWS
        assert future[0] > as_ms(NOW)


@pytest.mark.parametrize(
    ("kind", "delivery"),
    [
        ("hang", Delivery.NEVER),
        ("drip", Delivery.DRIPPED_BODY),
        ("drip_headers", Delivery.DRIPPED_HEAD),
        ("cut_connection", Delivery.HALF),
    ],
)
def test_a_good_answer_can_be_delivered_badly(kind, delivery):
    found = spoilt(kind)
    assert (found.body, found.delivery) == (GOOD.body, delivery)


def test_a_reset_is_no_answer():
    assert spoilt("reset") is None


class TestAnotherPage:
    def found(self, *times):
        def ask(parameters):
            return answer(
                KLINES_PATH,
                parameters,
                market=MARKET,
                now_ms=as_ms(NOW),
                weight_limit_per_min=6000,
            )

        parameters = [("symbol", "BTCUSDT"), ("interval", "1m"), ("limit", "5"), *times]
        good = ask(parameters)
        rows = json.loads(another_page(good, parameters=parameters, ask=ask))
        minutes = [(row[0] - as_ms(START)) // MINUTE_MS for row in rows]
        return len(json.loads(good)), minutes

    def test_old_rows_asked_for_bring_the_newest(self):
        n_good, minutes = self.found(("startTime", str(as_ms(START))))
        assert (n_good, minutes) == (5, [3056, 3057, 3058, 3059, 3060])

    def test_new_rows_asked_for_bring_the_oldest(self):
        for times in ((), (("endTime", str(as_ms(NOW) - 3 * MINUTE_MS)),)):
            assert self.found(*times) == (5, [0, 1, 2, 3, 4])

    def test_no_rows_asked_for_bring_the_newest_all_the_same(self):
        n_good, minutes = self.found(("endTime", "0"))
        assert (n_good, minutes[-1]) == (0, 3060)

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters.exchange.answers import (
    LONGEST_PAUSE_S,
    Asks,
    json_object,
    judge,
    pause_s,
    time_told,
)
from btc_lifecycle.adapters.http import HttpAnswer

NOW = datetime(2026, 11, 23, 16, 0, tzinfo=UTC).timestamp()
PAGE = b'[[1767225600000,"1","1","1","1","1",1767225659999,"1",1,"1","1","0"]]'


def answer(status: int = 200, body: bytes = b"", **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status=status, reason="Reason", headers=named, body=body)


def error_body(code: int, msg: str = "said so") -> bytes:
    return json.dumps({"code": code, "msg": msg}).encode()


def http_date(moment: float) -> str:
    return format_datetime(datetime.fromtimestamp(moment, tz=UTC), usegmt=True)


class TestWhatIsAskedFor:
    @pytest.mark.parametrize("body", [PAGE, b"[]", b"", b"null", b"{}", b'{"serverTime":17}'])
    def test_a_body_with_200_is_left_to_its_reader(self, body: bytes):
        assert judge(answer(200, body)).asks == Asks.NOTHING

    @pytest.mark.parametrize(
        "refusal",
        [
            answer(429),
            answer(418, b"<html>banned</html>"),
            answer(200, error_body(-1003)),
            answer(400, error_body(-1003)),
            answer(403, error_body(-1003)),
            answer(503, error_body(-1003)),
        ],
    )
    def test_too_many_requests_ask_for_a_pause_under_any_status(self, refusal: HttpAnswer):
        assert judge(refusal).asks == Asks.PAUSE

    @pytest.mark.parametrize("status", [403, 451])
    def test_a_refusal_of_the_country_asks_to_go_elsewhere(self, status: int):
        assert judge(answer(status, error_body(0))).asks == Asks.GO_ELSEWHERE

    @pytest.mark.parametrize("status", [301, 302, 308, 408, 500, 502, 503, 504, 520, 524, 527])
    def test_faults_of_the_server_ask_for_another_try(self, status: int):
        assert judge(answer(status, b"<html>")).asks == Asks.TRY_AGAIN
        assert judge(answer(status, error_body(-1121))).asks == Asks.TRY_AGAIN

    @pytest.mark.parametrize("code", [-1000, -1001, -1006, -1007, -1008, -1016])
    @pytest.mark.parametrize("status", [200, 400, 503])
    def test_codes_that_pass_ask_for_another_try(self, status: int, code: int):
        assert judge(answer(status, error_body(code))).asks == Asks.TRY_AGAIN

    @pytest.mark.parametrize(
        "code",
        [*range(-1106, -1099), -1120, -1121, -1122, -1127, -1128, -1130],
    )
    @pytest.mark.parametrize("status", [200, 400])
    def test_codes_of_a_wrong_request_ask_to_mend_it(self, status: int, code: int):
        judgement = judge(answer(status, error_body(code)))
        assert (judgement.asks, judgement.code) == (Asks.MEND, code)

    @pytest.mark.parametrize("status", [400, 401, 404, 405, 410, 414])
    def test_other_refusals_ask_to_mend_the_request(self, status: int):
        assert judge(answer(status, b"no such page")).asks == Asks.MEND

    def test_the_text_says_status_code_and_message_in_one_line(self):
        assert judge(answer(400, error_body(-1120, "Bad\ninterval."))).text == (
            "400 Reason -1120 Bad interval."
        )
        assert judge(answer(502, b"<html>\r\n \xff" + b"x" * 900)).text.startswith(
            "502 Reason <html> \ufffdxxx"
        )

    @given(status=st.integers(100, 599), body=st.binary(max_size=60))
    def test_every_answer_is_judged(self, status: int, body: bytes):
        assert judge(answer(status, body)).asks in Asks


class TestPauses:
    @pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("7", 7), (" 120 ", 120)])
    def test_seconds_are_taken_as_they_are(self, text: str, seconds: int):
        assert pause_s(answer(429, retry_after=text), now=NOW) == seconds

    @pytest.mark.parametrize(
        "text", ["", "soon", "-5", "1e3", "999999999", "9" * 400, "Mon, 99 Foo 2026 25:00:00 GMT"]
    )
    @pytest.mark.parametrize(("status", "seconds"), [(429, 60), (418, 120), (200, 60)])
    def test_without_a_sensible_time_the_usual_one_holds(
        self, text: str, status: int, seconds: int
    ):
        assert pause_s(answer(status, retry_after=text), now=NOW) == seconds
        assert pause_s(answer(status), now=NOW) == seconds

    def test_a_date_is_understood_by_this_machines_clock(self):
        assert pause_s(answer(429, retry_after=http_date(NOW + 90)), now=NOW) == 90

    def test_a_date_is_rather_understood_by_the_clock_of_the_exchange(self):
        wrong_clock = NOW - 3600
        refusal = answer(429, retry_after=http_date(NOW + 90), date=http_date(NOW))
        assert pause_s(refusal, now=wrong_clock) == 90

    def test_of_two_times_the_later_holds(self):
        body = error_body(-1003, f"Way too many; IP banned until {int(1000 * NOW) + 300_000}. Use")
        assert pause_s(answer(418, body, retry_after="120"), now=NOW) == pytest.approx(300)
        assert pause_s(answer(418, body, retry_after="400"), now=NOW) == 400
        assert pause_s(answer(418, body), now=NOW) == pytest.approx(300)

    @pytest.mark.parametrize("until_s", [-5, 31 * 86_400])
    def test_a_ban_that_is_over_or_absurdly_long_is_not_believed(self, until_s: int):
        body = error_body(-1003, f"banned until {int(1000 * (NOW + until_s))}")
        assert pause_s(answer(418, body), now=NOW) == 120

    @pytest.mark.parametrize("seconds", [LONGEST_PAUSE_S + 1, 7 * 86_400])
    def test_one_longer_than_the_longest_known_lasts_as_long_as_that(self, seconds: float):
        """A second more than three days was taken for nonsense, and two minutes were kept."""
        assert pause_s(answer(418, retry_after=f"{seconds:.0f}"), now=NOW) == LONGEST_PAUSE_S

    @given(
        status=st.sampled_from([200, 400, 418, 429]),
        retry_after=st.text(st.characters(max_codepoint=255), max_size=40),
        date=st.text(st.characters(max_codepoint=255), max_size=40),
        body=st.binary(max_size=60),
    )
    def test_every_refusal_gives_a_pause_that_ends(
        self, status: int, retry_after: str, date: str, body: bytes
    ):
        refusal = answer(status, body, retry_after=retry_after, date=date)
        assert 0 <= pause_s(refusal, now=NOW) <= LONGEST_PAUSE_S


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"null", b"[]", b"[{}]", b'{"a":', b"\xff{}", b"17"),
            b'{"a":' * 1500,
            b'{"a":"' + b"x" * 10_000 + b'"}',
            b'{"a":' + b"9" * 5000 + b"}",
        ],
        ids=range(10),
    )
    def test_what_is_no_short_object_is_an_empty_one(self, body: bytes):
        assert json_object(body) == {}

    def test_an_object_is_read(self):
        assert json_object(b' {"code":-1,"msg":"x"}\n') == {"code": -1, "msg": "x"}

    def test_a_time_is_read_to_the_millisecond(self):
        told = time_told(answer(200, b'{"serverTime":1767225600007}'))
        assert told == datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=7)

    @pytest.mark.parametrize("value", ["null", '"soon"', "true", "[1]", "1767225600007000", "NaN"])
    def test_what_is_no_time_is_none(self, value: str):
        assert time_told(answer(200, f'{{"serverTime":{value}}}'.encode())) is None
        assert time_told(answer(200, b"[]")) is None

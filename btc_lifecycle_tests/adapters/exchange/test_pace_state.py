from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters.exchange.pace_state import LONGEST_HOLD_S, Budget, PaceState

NOW = 1_800_000_000.0
"""A whole minute."""
BUDGET = Budget(per_min=3000.0, burst=60.0)
TINY = Budget(per_min=10.0, burst=2.0)
KNOWN = PaceState(
    full_until=NOW + 1.5,
    used_weight=17,
    used_minute=int(NOW // 60),
    not_before=NOW + 90.0,
    passed_over_until=NOW + 600.0,
)


class TestTurns:
    def test_after_a_rest_a_burst_leaves_at_once_and_the_next_waits_for_its_share(self):
        state = PaceState()
        for _ in range(30):
            assert state.free_at(2, budget=BUDGET, now=NOW) == NOW
            state = state.after_request(2, budget=BUDGET, now=NOW)
        # 2940 of weight leak in a minute; 2 of them take 2 * 60 / 2940 s.
        assert state.free_at(2, budget=BUDGET, now=NOW) == pytest.approx(NOW + 0.040816, abs=1e-5)

    def test_a_lighter_request_fits_earlier(self):
        state = replace(PaceState(), full_until=NOW + 60 * BUDGET.seconds_per_weight)
        light, heavy = (state.free_at(w, budget=BUDGET, now=NOW) - NOW for w in (1, 2))
        assert light == pytest.approx(heavy / 2, abs=1e-6)

    def test_the_exchanges_own_count_ends_the_minute(self):
        state = PaceState(used_weight=2999, used_minute=int(NOW // 60))
        assert state.free_at(1, budget=BUDGET, now=NOW + 3) == NOW + 3
        assert state.free_at(2, budget=BUDGET, now=NOW + 3) == NOW + 60

    def test_the_count_of_another_minute_says_nothing(self):
        state = PaceState(used_weight=2999, used_minute=int(NOW // 60) - 1)
        assert state.free_at(2, budget=BUDGET, now=NOW) == NOW
        assert state.after_request(2, budget=BUDGET, now=NOW).used_weight == 2

    def test_what_was_asked_for_since_counts_too(self):
        state = PaceState(used_weight=2996, used_minute=int(NOW // 60))
        for _ in range(2):
            state = state.after_request(2, budget=BUDGET, now=NOW)
        assert state.free_at(2, budget=BUDGET, now=NOW + 1) == NOW + 60

    @given(
        steps=st.lists(st.tuples(st.integers(1, 2), st.floats(0, 40)), max_size=60),
        budget=st.sampled_from([BUDGET, TINY]),
    )
    def test_no_minute_passes_the_budget_whatever_is_asked_when(
        self, steps: list[tuple[int, float]], budget: Budget
    ):
        state, now, sent = PaceState(), NOW, list[tuple[float, int]]()
        for weight, idle_s in steps:
            now = state.free_at(weight, budget=budget, now=now + idle_s)
            state = state.after_request(weight, budget=budget, now=now)
            sent.append((now, weight))
        for start, _ in sent:
            # Times near 2e9 s are exact to a quarter of a microsecond.
            within = sum(weight for at, weight in sent if start <= at <= start + 60 - 1e-3)
            assert within <= budget.per_min


class TestText:
    def test_what_was_written_is_read(self):
        assert PaceState.from_json(KNOWN.to_json(), now=NOW) == KNOWN
        assert PaceState.from_json(KNOWN.to_json().ljust(512), now=NOW) == KNOWN

    @given(st.binary(max_size=200))
    def test_any_text_is_a_state_that_holds_nobody_beyond_the_longest_ban(self, text: bytes):
        state = PaceState.from_json(text, now=NOW)
        assert state.not_before <= NOW + LONGEST_HOLD_S

    @pytest.mark.parametrize(
        "text",
        [b"", b"null", b"[]", b"{}", b"[" * 2000, b'{"full_until": 1}', KNOWN.to_json()[:-1]]
        + [KNOWN.to_json().replace(b"17", bad) for bad in (b"null", b"Infinity", b"NaN", b'"x"')],
    )
    def test_what_is_no_state_is_taken_for_none(self, text: bytes):
        assert PaceState.from_json(text, now=NOW) == PaceState()

    @pytest.mark.parametrize("moment", [float("nan"), float("inf"), NOW + 10 * 86_400])
    def test_times_that_cannot_be_are_forgotten_one_by_one(self, moment: float):
        wrong = replace(KNOWN, not_before=moment, full_until=moment)
        read = PaceState.from_json(wrong.to_json(), now=NOW)
        assert read == replace(KNOWN, not_before=0.0, full_until=0.0)

    def test_a_clock_set_back_frees_the_pace_but_keeps_a_ban(self):
        """An hour back, the next free moment once lay an hour ahead."""
        read = PaceState.from_json(KNOWN.to_json(), now=NOW - 3600)
        assert (read.full_until, read.passed_over_until) == (0.0, 0.0)
        assert read.not_before == KNOWN.not_before

"""How a question is put to an exchange until it is answered: pauses, other addresses, new tries.

What the exchange asks for is kept in the pace's folder, so that it binds every process and outlasts
them. A pause that it asks for is no failed try; a new try never is an answer to a 429 or a 418.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from btc_lifecycle.adapters.exchange.answers import BAD_SYMBOL, Asks, Judgement, judge, pause_s
from btc_lifecycle.adapters.exchange.pace import Pace, Turn
from btc_lifecycle.adapters.http import HttpAnswer, HttpError
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

N_TRIES = 5
TRIES_TOTAL_S = 45.0
FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 1.0, 8.0
PASS_OVER_S = 600.0
"""How long an address that refused this country is not the first to be asked."""

_USED_WEIGHT_HEADER = "x-mbx-used-weight-1m"

_Read = TypeVar("_Read")


@dataclass(frozen=True, kw_only=True)
class Question(Generic[_Read]):
    """One call of the exchange.

    Attributes:
        about: What is asked for, for messages.
        weight: Request weight that the exchange counts for it.
        send: Takes an address and returns its answer.
        read: Takes an answer and returns what is in it; raises NeighbourUnavailableError when that is
            not what was asked for.
    """

    about: str
    weight: int
    send: Callable[[str], HttpAnswer]
    read: Callable[[HttpAnswer], _Read]


class Asker:
    """Puts questions to the first address that serves us."""

    def __init__(
        self,
        bases: Sequence[str],
        *,
        pace: Pace,
        request_total_s: float,
        pause: Callable[[float], None],
        jitter: random.Random,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            bases: Addresses in the order of preference.
            pace: When a request may leave.
            request_total_s: The longest that one request may take.
            pause: Called with the seconds to wait between tries.
            jitter: Spreads the tries of clients that failed together.
        """
        self.bases, self.pace, self._request_total_s = tuple(bases), pace, request_total_s
        self._pause, self._jitter = pause, jitter

    def ask(self, question: Question[_Read], *, patience_s: float) -> _Read:
        """Return what the question's ``read`` makes of a good answer.

        Raises:
            ConfigurationError: If the exchange takes the request for wrong.
            NeighbourUnavailableError: If no address answers properly within the tries and the
                patience.
        """
        n_failed, spent_s, refusals = 0, 0.0, dict[str, str]()
        while True:
            base = self._next_base(refusals, about=question.about)
            turn = self.pace.take_turn(base, weight=question.weight, patience_s=patience_s)
            patience_s -= turn.waited_s
            asked_at = time.monotonic()
            try:
                return self._answered(question, base=base, turn=turn)
            except _HeldError:
                continue
            except _RefusedHereError as refusal:
                refusals[base] = str(refusal)
            except _PassingError as failure:
                n_failed += 1
                back_off_s = self._back_off_s(n_failed)
                spent_s += time.monotonic() - asked_at + back_off_s
                if n_failed == N_TRIES or spent_s + self._request_total_s > TRIES_TOTAL_S:
                    raise _gave_up(base, failure, question=question, n_tries=n_failed) from failure
                self._pause(back_off_s)

    def _next_base(self, refusals: Mapping[str, str], *, about: str) -> str:
        left = [base for base in self.bases if base not in refusals]
        if not left:
            raise _refused_everywhere(refusals, about=about)
        if len(left) == 1:
            return left[0]
        return next((base for base in left if not self.pace.is_passed_over(base)), left[0])

    def _back_off_s(self, n_failed: int) -> float:
        longest = min(LONGEST_BACK_OFF_S, FIRST_BACK_OFF_S * 2 ** (n_failed - 1))
        return self._jitter.uniform(0.0, longest)

    def _answered(self, question: Question[_Read], *, base: str, turn: Turn) -> _Read:
        try:
            answer = question.send(base)
        except HttpError as error:
            text = error.message.removeprefix(base)
            if error.kind == "tls":
                raise _untrusted(base, text) from error
            raise _PassingError(text) from error
        used = answer.headers.get(_USED_WEIGHT_HEADER, "")
        if used.isdecimal():
            self.pace.count(base, used_weight=int(used), turn=turn)
        self._obey(judge(answer), answer, base=base, about=question.about)
        try:
            return question.read(answer)
        except NeighbourUnavailableError as error:
            raise _PassingError(error.message) from error

    def _obey(self, judgement: Judgement, answer: HttpAnswer, *, base: str, about: str) -> None:
        if judgement.asks == Asks.PAUSE:
            seconds = pause_s(answer, now=self.pace.clock())
            # Request weight is counted by our IP address, whichever of the exchange's we ask.
            for each in self.bases:
                self.pace.hold(each, seconds=seconds)
            raise _HeldError
        if judgement.asks == Asks.GO_ELSEWHERE:
            self.pace.pass_over(base, seconds=PASS_OVER_S)
            raise _RefusedHereError(judgement.text)
        if judgement.asks == Asks.TRY_AGAIN:
            raise _PassingError(judgement.text)
        if judgement.asks == Asks.MEND:
            raise _mistaken(judgement, base=base, about=about)


class _HeldError(Exception):
    pass


class _RefusedHereError(Exception):
    pass


class _PassingError(Exception):
    pass


def _gave_up(
    base: str, failure: _PassingError, *, question: Question[_Read], n_tries: int
) -> NeighbourUnavailableError:
    return NeighbourUnavailableError(
        f"{base} did not answer the request about {question.about} properly, {n_tries} times over: "
        f"{failure}",
        hint="check the network and EXCHANGE_BASE_URL; the next ingest continues where this one "
        "stopped",
    )


def _refused_everywhere(refusals: Mapping[str, str], *, about: str) -> NeighbourUnavailableError:
    said = "; ".join(f"{base}: {text}" for base, text in refusals.items())
    return NeighbourUnavailableError(
        f"every address of the exchange refused the request about {about}, most often because it "
        f"does not serve this country or network: {said}",
        hint="name an address that serves this network in `base_url` of the ingest configuration "
        "or in EXCHANGE_BASE_URL; several are separated by commas",
    )


def _untrusted(base: str, text: str) -> NeighbourUnavailableError:
    return NeighbourUnavailableError(
        f"the certificate of {base} is not trusted, nothing was asked: {text}",
        hint="check this machine's clock, and whether a proxy or a captive portal stands between",
    )


def _mistaken(judgement: Judgement, *, base: str, about: str) -> ConfigurationError:
    if judgement.code == BAD_SYMBOL:
        return ConfigurationError(
            f"{base} does not know the market {about}",
            hint="mend `symbols` in the ingest configuration; BTC/USDT is one that exists",
        )
    return ConfigurationError(
        f"{base} refused the request about {about}: {judgement.text}",
        hint="mend the ingest configuration or EXCHANGE_BASE_URL; trying again cannot help",
    )

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters.exchange import asking
from btc_lifecycle.adapters.exchange.asking import LONGEST_BACK_OFF_S, N_TRIES, Asker, Question
from btc_lifecycle.adapters.exchange.pace import Pace
from btc_lifecycle.adapters.http import HttpAnswer, HttpError
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

ONE, TWO = "https://one.example", "https://two.example"
START = datetime(2026, 11, 23, 16, 0, tzinfo=UTC).timestamp()


def said(status: int, *, body: bytes = b"", **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(status=status, reason="Reason", headers=named, body=body)


GOOD = said(200, body=b"good")
BUSY = said(503, body=b'{"code":-1008,"msg":"Server is currently overloaded"}')
BANNED = said(418, retry_after="10")
FOREIGN = said(451, body=b'{"code":0,"msg":"restricted location"}')


class Largest(random.Random):
    """Jitter that always takes the longest pause."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Scene:
    """An asker, the answers that its addresses will give, and all that happened meanwhile."""

    def __init__(
        self, folder: Path, *, bases: tuple[str, ...] = (ONE,), jitter: random.Random | None = None
    ) -> None:
        self.now = START
        self.folder, self.bases, self.jitter = folder, bases, jitter or Largest()
        self.to_come: dict[str, deque[HttpAnswer | HttpError]] = {ONE: deque(), TWO: deque()}
        self.asked: list[tuple[str, float]] = []
        self.paused_s: list[float] = []
        self.asker = self.restarted()

    def restarted(self) -> Asker:
        """Return the asker of another process."""
        return Asker(
            self.bases,
            pace=Pace(self.folder, clock=lambda: self.now, pause=self._wait),
            request_total_s=20.0,
            pause=self._pause,
            jitter=self.jitter,
        )

    def ask(
        self, *, patience_s: float = 20.0, read: Callable[[HttpAnswer], bytes] | None = None
    ) -> bytes:
        question = Question(
            about="BTC/USDT", weight=2, send=self._send, read=read or (lambda answer: answer.body)
        )
        return self.asker.ask(question, patience_s=patience_s)

    def bases_asked(self) -> list[str]:
        return [base for base, _ in self.asked]

    def _send(self, base: str) -> HttpAnswer:
        self.asked.append((base, self.now))
        answer = self.to_come[base].popleft() if self.to_come[base] else GOOD
        if isinstance(answer, HttpError):
            raise answer
        return answer

    def _wait(self, seconds: float) -> None:
        self.now += seconds

    def _pause(self, seconds: float) -> None:
        self.paused_s.append(seconds)
        self.now += seconds


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def two_bases(tmp_path: Path) -> Scene:
    return Scene(tmp_path, bases=(ONE, TWO))


class TestTries:
    @pytest.mark.parametrize(
        "fault",
        [BUSY, said(500), said(520), said(302), said(200, body=b'{"code":-1001,"msg":"x"}')]
        + [HttpError(kind, f"{ONE}/x: why") for kind in ("timeout", "reset", "dns", "too_large")],
    )
    def test_a_fault_that_passes_is_tried_over(self, scene: Scene, fault: HttpAnswer | HttpError):
        scene.to_come[ONE].extend([fault] * (N_TRIES - 1))
        assert scene.ask() == b"good"
        assert scene.paused_s == [1.0, 2.0, 4.0, 8.0]

    def test_a_fault_that_stays_is_told_with_its_last_cause(self, scene: Scene):
        scene.to_come[ONE].extend([HttpError("cut", f"{ONE}/x: half"), *[BUSY] * 9])
        with pytest.raises(NeighbourUnavailableError) as error:
            scene.ask()
        assert error.value.message == (
            f"{ONE} did not answer the request about BTC/USDT properly, 5 times over: "
            "503 Reason -1008 Server is currently overloaded"
        )
        assert "the next ingest continues where this one stopped" in error.value.hint
        assert len(scene.asked) == N_TRIES
        assert sum(scene.paused_s) == 15.0

    def test_what_cannot_be_read_is_tried_over_and_told(self, scene: Scene):
        def read(answer: HttpAnswer) -> bytes:
            raise NeighbourUnavailableError("no page at all", hint="none")

        with pytest.raises(NeighbourUnavailableError, match="5 times over: no page at all"):
            scene.ask(read=read)

    @given(jitter=st.randoms())
    def test_pauses_are_spread_but_bounded(
        self, jitter: random.Random, tmp_path_factory: pytest.TempPathFactory
    ):
        scene = Scene(tmp_path_factory.mktemp("pace"), jitter=jitter)
        scene.to_come[ONE].extend([BUSY] * 9)
        with pytest.raises(NeighbourUnavailableError):
            scene.ask()
        assert len(scene.paused_s) == N_TRIES - 1
        longest = [1.0, 2.0, 4.0, LONGEST_BACK_OFF_S]
        assert all(0 <= s <= most for s, most in zip(scene.paused_s, longest, strict=True))

    def test_no_try_begins_that_could_end_after_45_seconds(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ):
        """Five tries of 20 s each would have held a minute's run for two minutes."""
        clock = SimpleNamespace(monotonic=lambda: 20.0 * len(scene.asked))
        monkeypatch.setattr(asking, "time", clock)
        scene.to_come[ONE].extend([HttpError("timeout", "no answer")] * 9)
        with pytest.raises(NeighbourUnavailableError, match="2 times over"):
            scene.ask()

    def test_a_certificate_that_is_not_trusted_is_told_at_once(self, scene: Scene):
        scene.to_come[ONE].append(HttpError("tls", f"{ONE}/x: certificate has expired"))
        with pytest.raises(NeighbourUnavailableError, match="has expired") as error:
            scene.ask()
        assert error.value.message.startswith(f"the certificate of {ONE} is not trusted")
        assert "clock" in error.value.hint
        assert len(scene.asked) == 1


class TestMistakes:
    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (said(400, body=b'{"code":-1121,"msg":"Invalid symbol."}'), "know the market BTC/USDT"),
            (said(400, body=b'{"code":-1120,"msg":"Bad interval."}'), "BTC/USDT: 400 .*Bad inter"),
            (said(404, body=b"no such page"), "BTC/USDT: 404 Reason no such page"),
        ],
    )
    def test_a_wrong_request_is_not_repeated(self, scene: Scene, answer: HttpAnswer, text: str):
        scene.to_come[ONE].append(answer)
        with pytest.raises(ConfigurationError, match=text) as error:
            scene.ask()
        assert error.value.hint.startswith("mend ")
        assert (len(scene.asked), scene.paused_s) == (1, [])


class TestPauses:
    def test_a_pause_within_the_patience_is_kept_and_no_failed_try(self, scene: Scene):
        scene.to_come[ONE].extend([BUSY, BANNED, BUSY, BUSY, BUSY])
        assert scene.ask() == b"good"
        (_, refused_at), (_, again_at) = scene.asked[1:3]
        assert again_at - refused_at > 10
        assert len(scene.paused_s) == 4

    def test_pauses_one_after_the_other_are_kept_as_long_as_the_patience_lasts(self, scene: Scene):
        scene.to_come[ONE].extend([BANNED] * 9)
        with pytest.raises(NeighbourUnavailableError, match="asks for a pause until 16:00:22 UTC"):
            scene.ask(patience_s=20)
        assert len(scene.asked) == 2

    def test_a_longer_pause_ends_the_call_and_binds_the_next_process(self, scene: Scene):
        scene.to_come[ONE].append(said(429, retry_after="60"))
        for seconds in (0, 30, 30.9):
            scene.now = START + seconds
            with pytest.raises(NeighbourUnavailableError, match="a pause until 16:01:01 UTC"):
                scene.ask()
            scene.asker = scene.restarted()
        assert len(scene.asked) == 1
        scene.now = START + 45
        assert scene.ask() == b"good"
        assert scene.asked[1][1] >= START + 61

    def test_a_pause_binds_every_address(self, two_bases: Scene):
        """Weight is counted by our own IP address; the next address would only bring the ban."""
        two_bases.to_come[ONE].append(said(429, retry_after="60"))
        with pytest.raises(NeighbourUnavailableError, match="asks for a pause"):
            two_bases.ask()
        two_bases.asker.pace.pass_over(ONE, seconds=600)
        with pytest.raises(NeighbourUnavailableError, match=f"{TWO} asks for a pause"):
            two_bases.ask()
        assert two_bases.bases_asked() == [ONE]

    def test_the_exchanges_count_is_obeyed_by_the_next_request(self, scene: Scene):
        scene.to_come[ONE].append(said(200, x_mbx_used_weight_1m="3000"))
        scene.ask()
        with pytest.raises(NeighbourUnavailableError, match="used up until 16:01:00 UTC"):
            scene.ask()
        scene.ask(patience_s=60)
        assert scene.asked[1][1] >= START + 60

    @pytest.mark.parametrize("text", ["", "many", "-3"])
    def test_a_count_that_is_none_is_passed_over(self, scene: Scene, text: str):
        scene.to_come[ONE].append(said(200, x_mbx_used_weight_1m=text))
        scene.ask()
        scene.ask(patience_s=0)


class TestAddresses:
    def test_the_first_address_is_asked_while_it_serves(self, two_bases: Scene):
        two_bases.to_come[ONE].extend([BUSY, BUSY])
        for _ in range(3):
            two_bases.ask()
        assert set(two_bases.bases_asked()) == {ONE}

    @pytest.mark.parametrize("refusal", [FOREIGN, said(403, body=b"<html>blocked</html>")])
    def test_an_address_that_refuses_us_is_passed_over_for_ten_minutes(
        self, two_bases: Scene, refusal: HttpAnswer
    ):
        two_bases.to_come[ONE].append(refusal)
        assert two_bases.ask() == b"good"
        two_bases.asker = two_bases.restarted()
        two_bases.ask()
        two_bases.now = START + 599
        two_bases.ask()
        two_bases.now = START + 601
        two_bases.ask()
        assert two_bases.bases_asked() == [ONE, TWO, TWO, TWO, ONE]
        assert two_bases.paused_s == []

    def test_when_all_refuse_each_is_asked_once_and_named(self, two_bases: Scene):
        for base in (ONE, TWO):
            two_bases.to_come[base].extend([FOREIGN] * 9)
        for n_calls in (1, 2):
            with pytest.raises(NeighbourUnavailableError) as error:
                two_bases.ask()
            assert two_bases.bases_asked() == [ONE, TWO] * n_calls
        assert "does not serve this country" in error.value.message
        assert f"{ONE}: 451 Reason restricted location; {TWO}: 451" in error.value.message
        assert "`base_url`" in error.value.hint
        assert "EXCHANGE_BASE_URL" in error.value.hint

    def test_an_address_that_refused_before_is_asked_when_the_others_refuse_too(
        self, two_bases: Scene
    ):
        two_bases.to_come[ONE].append(FOREIGN)
        two_bases.ask()
        two_bases.to_come[TWO].append(FOREIGN)
        assert two_bases.ask() == b"good"
        assert two_bases.bases_asked() == [ONE, TWO, TWO, ONE]

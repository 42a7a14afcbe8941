from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_lifecycle.adapters.exchange import Pace
from btc_lifecycle.domain.errors import ConfigurationError, NeighbourUnavailableError

URL, OTHER_URL = "https://one.example", "https://two.example:8443"
START = datetime(2026, 11, 23, 16, 0, tzinfo=UTC).timestamp()
FOR_EVER_S = 1e9


@dataclass
class Wall:
    """A clock that only a pause moves."""

    now: float = START
    paused_s: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.paused_s.append(seconds)
        # A sleep lasts a little longer than asked for.
        self.now += seconds + 1e-4


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def pace(tmp_path: Path, wall: Wall) -> Pace:
    return another(tmp_path, wall)


def another(folder: Path, wall: Wall, *, limit_per_min: int = 6000) -> Pace:
    """Return the pace of a second process on the folder."""
    return Pace(folder, limit_per_min=limit_per_min, clock=wall.clock, pause=wall.pause)


def most_in_a_minute(sent: list[tuple[float, int]]) -> int:
    """Return the largest weight of any 60 s."""
    return max(sum(w for at, w in sent if start <= at < start + 59.999) for start, _ in sent)


class TestBudget:
    def test_a_caller_that_never_idles_uses_nearly_all_of_it_and_never_more(
        self, pace: Pace, wall: Wall
    ):
        sent, served = [], Counter[int]()
        while wall.now < START + 75:
            turn = pace.take_turn(URL, weight=2, patience_s=FOR_EVER_S)
            served[int(wall.now // 60)] += 2
            pace.count(URL, used_weight=served[int(wall.now // 60)], turn=turn)
            sent.append((wall.now, 2))
        assert most_in_a_minute(sent) <= 3000
        assert sum(weight for at, weight in sent if at >= START + 15) >= 0.95 * 3000

    def test_two_processes_share_it(self, tmp_path: Path, wall: Wall):
        paces = [another(tmp_path, wall, limit_per_min=600) for _ in range(2)]
        sent = []
        while wall.now < START + 130:
            for pace in paces:
                pace.take_turn(URL, weight=2, patience_s=FOR_EVER_S)
                sent.append((wall.now, 2))
        assert most_in_a_minute(sent) <= 300
        assert sum(weight for at, weight in sent if at < START + 120) >= 0.95 * 2 * 300

    @given(
        steps=st.lists(
            st.tuples(st.integers(1, 2), st.sampled_from([0.0, 0.001, 0.3, 7.0, 61.0])),
            max_size=40,
        ),
        limit_per_min=st.sampled_from([20, 60, 6000]),
    )
    def test_no_minute_passes_it_whatever_is_asked_when(
        self, steps: list[tuple[int, float]], limit_per_min: int
    ):
        wall = Wall()
        with TemporaryDirectory() as folder:
            sent = [(START, 0)]
            for n, (weight, idle_s) in enumerate(steps):
                wall.now += idle_s
                if n % 7 == 0:
                    pace = another(Path(folder), wall, limit_per_min=limit_per_min)
                pace.take_turn(URL, weight=weight, patience_s=FOR_EVER_S)
                sent.append((wall.now, weight))
        assert most_in_a_minute(sent) <= limit_per_min / 2

    def test_what_others_behind_the_same_address_use_is_left_to_them(self, pace: Pace, wall: Wall):
        turn = pace.take_turn(URL, weight=2, patience_s=0)
        pace.count(URL, used_weight=2999, turn=turn)
        pace.take_turn(URL, weight=1, patience_s=0)
        with pytest.raises(NeighbourUnavailableError, match="3000 of the request weight") as error:
            pace.take_turn(URL, weight=1, patience_s=20)
        assert error.value.message.endswith("are used up until 16:01:00 UTC")
        assert error.value.hint.startswith("wait 0:01:00, or raise weight_share")
        assert wall.paused_s == []
        assert pace.take_turn(URL, weight=1, patience_s=60).waited_s == pytest.approx(60, abs=0.01)

    def test_each_address_has_its_own(self, pace: Pace):
        turn = pace.take_turn(URL, weight=2, patience_s=0)
        pace.count(URL, used_weight=3000, turn=turn)
        pace.take_turn(OTHER_URL, weight=2, patience_s=0)

    @pytest.mark.parametrize("share", [0.0, 0.001])
    def test_a_share_that_allows_hardly_any_request_is_refused(self, tmp_path: Path, share: float):
        with pytest.raises(ConfigurationError, match="one page costs 2; raise weight_share"):
            Pace(tmp_path, weight_share=share)

    def test_nothing_is_written_before_the_first_request(self, tmp_path: Path):
        Pace(tmp_path / "exchange")
        assert list(tmp_path.iterdir()) == []


class TestHolds:
    def test_nothing_leaves_before_it_has_passed_in_any_process(self, tmp_path: Path, wall: Wall):
        another(tmp_path, wall).hold(URL, seconds=30)
        for pace in (another(tmp_path, wall), another(tmp_path, wall)):
            with pytest.raises(NeighbourUnavailableError, match="asks for a pause until") as error:
                pace.take_turn(URL, weight=1, patience_s=29)
            assert error.value.message == f"{URL} asks for a pause until 16:00:31 UTC"
            assert error.value.hint.startswith("wait 0:00:31, ")
        assert wall.paused_s == []
        another(tmp_path, wall).take_turn(URL, weight=1, patience_s=40)
        assert wall.now > START + 30

    def test_another_process_obeys_by_the_true_clock(self, tmp_path: Path):
        Pace(tmp_path).hold(URL, seconds=600)
        code = (
            "import sys; from pathlib import Path;"
            "from btc_lifecycle.adapters.exchange import Pace;"
            f"Pace(Path(sys.argv[1])).take_turn({URL!r}, weight=1, patience_s=5)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 1
        assert f"{URL} asks for a pause until " in ended.stderr

    def test_a_shorter_hold_does_not_shorten_a_longer_one(self, pace: Pace, wall: Wall):
        pace.hold(URL, seconds=120)
        pace.hold(URL, seconds=1)
        assert pace.take_turn(URL, weight=1, patience_s=200).at > START + 120

    def test_a_hold_put_while_another_waits_holds_that_one_too(self, tmp_path: Path, wall: Wall):
        def pause(seconds: float) -> None:
            wall.pause(seconds)
            if len(wall.paused_s) % 2 == 1:
                another(tmp_path, wall).hold(URL, seconds=10)

        waiting = Pace(tmp_path, clock=wall.clock, pause=pause)
        waiting.hold(URL, seconds=5)
        assert waiting.take_turn(URL, weight=1, patience_s=60).at > START + 15
        waiting.hold(URL, seconds=5)
        with pytest.raises(NeighbourUnavailableError, match="asks for a pause"):
            waiting.take_turn(URL, weight=1, patience_s=12)

    def test_a_hold_until_another_day_is_told_with_its_date(self, pace: Pace):
        pace.hold(URL, seconds=timedelta(days=2).total_seconds())
        with pytest.raises(NeighbourUnavailableError, match="until 2026-11-25 16:00:01 UTC"):
            pace.take_turn(URL, weight=1, patience_s=20)

    def test_state_that_cannot_be_read_holds_nobody(self, tmp_path: Path, wall: Wall):
        another(tmp_path, wall).hold(URL, seconds=30)
        (file,) = tmp_path.glob("*.json")
        file.write_bytes(b'{"not_before": ')
        assert another(tmp_path, wall).take_turn(URL, weight=1, patience_s=0).at == START

    def test_a_folder_that_cannot_be_written_is_the_configurations_fault(
        self, tmp_path: Path, wall: Wall
    ):
        (tmp_path / "exchange").write_text("no folder")
        with pytest.raises(ConfigurationError, match="the pace of requests cannot be kept in "):
            another(tmp_path / "exchange", wall).take_turn(URL, weight=1, patience_s=0)


class TestPassingOver:
    def test_an_address_is_passed_over_for_its_time_in_every_process(
        self, tmp_path: Path, wall: Wall
    ):
        another(tmp_path, wall).pass_over(URL, seconds=600)
        for seconds, is_passed_over in [(0, True), (599, True), (600, False)]:
            wall.now = START + seconds
            assert another(tmp_path, wall).is_passed_over(URL) == is_passed_over
            assert not another(tmp_path, wall).is_passed_over(OTHER_URL)


def test_the_used_share_is_that_of_the_running_minute(pace: Pace, wall: Wall):
    assert pace.used_share(URL) == 0
    turn = pace.take_turn(URL, weight=2, patience_s=0)
    assert pace.used_share(URL) == 2 / pace.limit_per_min
    pace.count(URL, used_weight=1500, turn=turn)
    assert pace.used_share(URL) == 1500 / pace.limit_per_min
    wall.pause(60)
    assert pace.used_share(URL) == 0

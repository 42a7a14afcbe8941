"""Lines on their way to a sink that is slow, broken or gone."""

from __future__ import annotations

import threading

from btc_lifecycle.adapters.lines import Lines


class Sink:
    """Keeps what it gets; waits before the first batch while it is held."""

    def __init__(self) -> None:
        self.content = b""
        self.is_free = threading.Event()
        self.is_reached = threading.Event()
        self.is_broken = False

    def write(self, content: bytes) -> None:
        self.is_reached.set()
        self.is_free.wait(10)
        if self.is_broken:
            raise OSError(28, "No space left on device")
        self.content += content


def test_lines_arrive_in_order_and_whole() -> None:
    sink = Sink()
    sink.is_free.set()
    lines = Lines(sink.write, max_bytes=10_000)
    for number in range(300):
        lines.append([b"%d\n" % number, b"and again\n"])
    lines.close()
    assert sink.content == b"".join(b"%d\nand again\n" % number for number in range(300))
    assert lines.dropped == 0


def test_a_stuck_sink_holds_nobody_up_and_what_waits_is_bounded() -> None:
    sink = Sink()
    lines = Lines(sink.write, max_bytes=8)
    lines.append([b"abc\n"])
    assert sink.is_reached.wait(10)
    lines.append([b"def\n"])
    lines.append([b"g\n", b"h\n"])
    assert lines.dropped == 2
    assert not lines.flush(timeout_s=0.0)
    sink.is_free.set()
    assert lines.flush()
    lines.append([b"i\n"])
    lines.close()
    assert sink.content == b"abc\ndef\ni\n"
    assert lines.dropped == 2


def test_a_sink_that_fails_costs_its_batch_and_no_other() -> None:
    sink = Sink()
    sink.is_free.set()
    sink.is_broken = True
    lines = Lines(sink.write, max_bytes=100)
    lines.append([b"a\n", b"b\n"])
    assert lines.flush()
    assert lines.dropped == 2
    sink.is_broken = False
    lines.append([b"c\n"])
    lines.close()
    assert sink.content == b"c\n"


def test_lines_after_the_end_are_dropped_and_those_before_it_are_not() -> None:
    sink = Sink()
    sink.is_free.set()
    lines = Lines(sink.write, max_bytes=100)
    lines.append([b"a\n"])
    lines.close()
    lines.close()
    lines.append([b"b\n"])
    assert (sink.content, lines.dropped) == (b"a\n", 1)


def test_a_stream_that_was_closed_costs_its_lines_and_not_the_thread() -> None:
    def write(content: bytes) -> None:
        raise ValueError("write to closed file")

    lost: list[int] = []
    lines = Lines(write, max_bytes=100, on_drop=lost.append)
    for _ in range(2):
        lines.append([b"a\n"])
        assert lines.flush()
    lines.close()
    lines.append([b"b\n"])
    assert (lines.dropped, sum(lost)) == (3, 3)


def test_lines_that_could_not_be_made_count_as_dropped() -> None:
    lines = Lines(lambda content: None, max_bytes=100)
    lines.drop(3)
    lines.close()
    assert lines.dropped == 3

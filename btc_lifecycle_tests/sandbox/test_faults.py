from __future__ import annotations

from btc_lifecycle.sandbox.faults import Fault, FaultKind, FaultPath, FaultQueue


def test_faults_come_first_in_first_out_and_run_dry():
    queue = FaultQueue()
    queue.add(Fault(kind=FaultKind.CUT), count=1)
    queue.add(Fault(kind=FaultKind.HTTP_429, retry_after_seconds=7), count=2)
    assert queue.pending() == ["cut", "http_429", "http_429"]
    popped = [queue.pop(FaultPath.KLINES) for _ in range(4)]
    banned = Fault(kind=FaultKind.HTTP_429, retry_after_seconds=7)
    assert popped == [Fault(kind=FaultKind.CUT), banned, banned, None]


def test_each_path_has_a_queue_of_its_own():
    queue = FaultQueue()
    queue.add(Fault(kind=FaultKind.HANG), count=1, path=FaultPath.ARCHIVE)
    queue.add(Fault(kind=FaultKind.NOT_A_TIME), count=1, path=FaultPath.TIME)
    queue.add(Fault(kind=FaultKind.NULL), count=1)
    assert queue.pending() == ["null", "time:not_a_time", "archive:hang"]
    assert queue.pop(FaultPath.TIME) == Fault(kind=FaultKind.NOT_A_TIME)
    assert queue.pop(FaultPath.TIME) is None
    assert queue.pending() == ["null", "archive:hang"]

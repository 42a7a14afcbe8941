"""Lines that a thread of its own writes: whoever appends them never waits and never fails.

What waits is bounded in bytes. Lines beyond that, or that could not be written, are dropped and
counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

_PAUSE_S = 0.2
"""Between two writes: waking the thread for each line would cost the appender more than the line."""


class Lines:
    """A queue of lines and the thread that hands them to a sink, in order and in batches.

    Args:
        write: Takes the bytes of a batch; an OSError or a ValueError of its loses the batch.
        max_bytes: Most bytes that may wait.
        on_drop: Told of each number of lines that is lost.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        *,
        max_bytes: int,
        on_drop: Callable[[int], None] | None = None,
    ) -> None:
        self._write, self._max_bytes, self._on_drop = write, max_bytes, on_drop
        self._waiting: list[bytes] = []
        self._n_bytes = 0
        self._n_unwritten = 0
        self._n_dropped = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._is_awaited = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines are lost to a full queue, a failed write, or came after the end."""
        return self._n_dropped

    def append(self, lines: Sequence[bytes]) -> None:
        """Queue lines, each with its newline, all or none."""
        n_bytes = sum(map(len, lines))
        with self._lock:
            has_room = not self._is_closed and self._n_bytes + n_bytes <= self._max_bytes
            if has_room:
                self._waiting.extend(lines)
                self._n_bytes += n_bytes
                self._n_unwritten += len(lines)
        if not has_room:
            self.drop(len(lines))

    def drop(self, n_lines: int) -> None:
        """Count lines as lost, such as those that could not even be made."""
        with self._lock:
            self._n_dropped += n_lines
        if self._on_drop is not None:
            self._on_drop(n_lines)

    def flush(self, *, timeout_s: float = 10.0) -> bool:
        """Return whether everything queued was written or dropped within the time."""
        self._is_awaited.set()
        with self._changed:
            return self._changed.wait_for(lambda: self._n_unwritten == 0, timeout_s)

    def close(self, *, timeout_s: float = 2.0) -> None:
        """Write what is queued and stop, after that time at the latest; later lines are dropped."""
        with self._changed:
            self._is_closed = True
        self._is_awaited.set()
        self._thread.join(timeout=timeout_s)

    def _run(self) -> None:
        while not self._is_closed or self._waiting:
            self._is_awaited.wait(_PAUSE_S)
            self._is_awaited.clear()
            self._write_waiting()

    def _write_waiting(self) -> None:
        with self._changed:
            batch, self._waiting = self._waiting, []
        if not batch:
            return
        content = b"".join(batch)
        try:
            self._write(content)
        except (OSError, ValueError):  # a closed stream raises the latter
            self.drop(len(batch))
        with self._changed:
            self._n_bytes -= len(content)
            self._n_unwritten -= len(batch)
            self._changed.notify_all()

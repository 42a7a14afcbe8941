"""A journal of alias moves on disk, without a database."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

from btc_lifecycle.adapters.registry import AliasMove


class FileJournal:
    """Alias moves as lines of a file; each is on disk before ``append`` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, move: AliasMove) -> None:
        line = json.dumps(asdict(move) | {"moved_at": move.moved_at.isoformat()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[AliasMove]:
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        rows = [AliasMove(**json.loads(line)) for line in lines]
        return [replace(row, moved_at=datetime.fromisoformat(row.moved_at)) for row in rows]

    def unfinished(self) -> list[AliasMove]:
        ended = {row.move_id for row in self.rows() if row.state != "intended"}
        return [row for row in self.rows() if row.move_id not in ended]

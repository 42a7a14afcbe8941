from __future__ import annotations

import io

from rich.console import Console

from btc_lifecycle.commands.progress import showing_progress


def test_a_bar_per_symbol_shows_minutes_and_share_of_the_limit():
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    totals = {"BTC/USDT": 44_640, "ETH/USDT": 1000}
    with showing_progress(console, totals=totals, used_share=lambda: 0.25) as told:
        told("BTC/USDT", 1000)
        told("BTC/USDT", 20_000)
        told("ETH/USDT", 1000)
    bitcoin, ether = console.file.getvalue().splitlines()
    assert "BTC/USDT" in bitcoin
    assert "21000/44640 minutes" in bitcoin
    assert "25% of the limit" in bitcoin
    assert ether.split()[2:5] == ["1000/1000", "minutes", "100%"]
    assert "100%" in ether

"""``python -m btc_lifecycle.commands``: what ./task calls."""

from btc_lifecycle.commands.cli import main

main()

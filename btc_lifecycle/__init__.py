"""The machine-learning lifecycle on Bitcoin minute candles. Import its modules, not this package."""

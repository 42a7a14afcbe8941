"""From raw exchange rows to closed, unique, ordered candles."""

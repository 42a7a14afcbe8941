"""From candles to a promoted model: features, labels, splits, training, evaluation, promotion."""

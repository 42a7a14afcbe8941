"""The sandbox exchange: a loopback server that speaks Binance spot REST over synthetic or replayed markets."""

"""History: candles and what else lies in the past, by symbol and day, each day accounted for."""

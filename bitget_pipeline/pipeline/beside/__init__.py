"""What a live run does beside its trades: order books, tickers, and each minute held against the exchange's own."""

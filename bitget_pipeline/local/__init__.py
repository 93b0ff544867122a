"""What a laptop lacks: the simulated exchange, ClickHouse's protocol over chDB, a Redis server. Only `cli` and tests use it."""

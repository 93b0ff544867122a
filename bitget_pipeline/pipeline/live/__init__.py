"""The live walk: sockets → stream → ClickHouse, and the repair of every break. Begins in run.py."""

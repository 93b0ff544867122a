"""A complete, verified copy of Bitget's market data in ClickHouse, orchestrated by Dagster."""

__version__ = "0.1.0"

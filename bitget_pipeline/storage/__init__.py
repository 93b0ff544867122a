"""Where everything is kept: ClickHouse (tables, migrations, warehouse) and Redis (stream, lease, budget, control)."""

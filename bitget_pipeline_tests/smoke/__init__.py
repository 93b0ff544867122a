"""
The whole pipeline, started as a user starts it, and compared with what the exchange really sent.

`python -m bitget_pipeline_tests.smoke` starts `bitget-pipeline up --demo --headless`, waits until everything has happened
through Dagster, and compares ClickHouse with the local exchange's ground truth row by row and field by field. It reads
ClickHouse, Dagster and the exchange over HTTP with no code of the pipeline in between.
"""

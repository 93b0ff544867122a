"""
The kill suite: real processes are killed, stopped and cut off at seeded random moments; in the end nothing is lost.

`python -m bitget_pipeline_tests.chaos --rounds 200 --seed 1` runs it on the pipeline processes of the live walk, and
test_chaos.py a short part of the same; live_through_dagster.py and history_through_dagster.py do it through Dagster and
say how to run them alone. `make chaos` runs them all. The truth is that of the local exchange; what is stored is compared
with it row by row.
"""

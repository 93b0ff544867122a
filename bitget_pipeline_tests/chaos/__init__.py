"""
The kill suite: real processes are killed, stopped and cut off at seeded random moments; in the end nothing is lost.

`python -m bitget_pipeline_tests.chaos --rounds 200 --seed 1` runs it on pipeline processes, test_chaos.py a short part of
the same. The truth is that of the local exchange; what is stored is compared with it row by row.
"""

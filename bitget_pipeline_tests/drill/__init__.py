"""
The drills: the exchange, the stores and the machine fail in ways that have a name, and what is promised is looked at.

`python -m bitget_pipeline_tests.drill` plays them (`--only silent --only dark` a part of them) and prints a table: after how
many seconds each fault was noticed, by what, what was done about it, how long the way back took, and what is missing in the
tables compared with what was traded. `make drill` runs all; test_drill.py a short part. Scene and comparison are those of the
kill suite (chaos/); what the kill suite draws by chance is done here by name, with the rules and times of production.
"""

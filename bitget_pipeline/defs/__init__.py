"""
The Dagster shell: a partition in, one call to `pipeline/`, metadata out.

Nothing here decides anything about market data; what can be decided without Dagster is decided in the layers below.
"""

"""Benchmarks: each prints one line of JSON and what it means; `make bench` runs them all. Figures are in ARCHITECTURE.md."""

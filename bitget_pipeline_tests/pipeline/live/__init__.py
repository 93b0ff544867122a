"""Tests of pipeline/live."""

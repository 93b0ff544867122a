"""Tests of pipeline/beside."""

"""Tests of pipeline/universe."""

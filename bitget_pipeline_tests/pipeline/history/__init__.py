"""Tests of pipeline/history."""

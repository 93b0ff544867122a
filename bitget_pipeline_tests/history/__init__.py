"""Tests of the history part."""

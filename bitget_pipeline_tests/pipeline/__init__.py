"""Tests of the pipeline part."""

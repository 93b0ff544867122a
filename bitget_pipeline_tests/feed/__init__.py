"""Tests of the feed part."""

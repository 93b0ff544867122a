"""Tests. Property tests have no deadline per example: machines that test are often busy with something else."""

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")

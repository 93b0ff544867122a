"""The house rules that machines can check: import directions, types, style."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import LONGEST

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.timeout(900)  # on a busy machine mypy alone takes minutes


def check(*command: str) -> None:
    """Run a checker with this interpreter; fail with all it complains about."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert said, "a checker that says nothing has not checked"
    assert done.returncode == 0, f"\n{said}"


def test_imports_point_only_rightwards() -> None:
    """The layers of pyproject.toml hold, `local` stands apart, and only the shell knows Dagster."""
    check("-c", "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])")


def test_every_type_is_right() -> None:
    """mypy, in its strict mode, over the whole package."""
    check("-m", "mypy", "--strict", "-p", "bitget_pipeline")


def test_the_linter_is_content() -> None:
    """ruff, over package and tests."""
    check("-m", "ruff", "check", "--no-cache", "bitget_pipeline", "bitget_pipeline_tests")


def test_the_formatter_would_change_nothing() -> None:
    """One way to lay out code."""
    check("-m", "ruff", "format", "--check", "--no-cache", "bitget_pipeline", "bitget_pipeline_tests")


def test_every_benchmark_can_be_started() -> None:
    """
    What figures are repeated with follows the code, although no test runs it: each module of bench/ loads.
    """
    names = sorted(path.stem for path in (ROOT / "bench").glob("[a-z]*.py"))
    assert len(names) > 10
    check("-c", f"import {', '.join(f'bench.{name}' for name in names)}; print('loaded')")


def test_the_files_that_run_first_are_there() -> None:
    """A file that was renamed would fall back among the others, and nobody would see why the tests take longer."""
    assert [name for name in LONGEST if not (Path(__file__).parent / name).is_file()] == []

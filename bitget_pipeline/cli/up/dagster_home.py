"""
Dagster's files of an instance: its home with dagster.yaml, and the workspace that points at our code server.

The dagster.yaml beside pyproject.toml is used in a checkout, the copy inside the package in an installed wheel.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ...errors import SettingsInvalid

LOCATION = "bitget_pipeline"
MODULE = "bitget_pipeline.definitions"

PACKAGE = Path(__file__).parents[2]


def dagster_yaml() -> Path:
    """The instance configuration to use. Raises SettingsInvalid when the installation lacks it."""
    checkout = PACKAGE.parent
    candidates = [PACKAGE / "defs" / "dagster.yaml"]
    if (checkout / "pyproject.toml").is_file():
        candidates.insert(0, checkout / "dagster.yaml")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SettingsInvalid("dagster.yaml is missing", where=str(PACKAGE), remedy="install bitget-pipeline again")


def prepare(home: Path, *, code_server_port: int) -> Path:
    """Write Dagster's files into the instance's folder; returns the workspace file."""
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(dagster_yaml(), dagster_home / "dagster.yaml")
    workspace = home / "workspace.yaml"
    workspace.write_text(
        "# Written by `bitget-pipeline up` at every start.\n"
        "load_from:\n"
        f"  - grpc_server: {{host: 127.0.0.1, port: {code_server_port}, location_name: {LOCATION}}}\n",
        encoding="utf-8",
    )
    return workspace

"""
Dagster's files of an instance: its home with dagster.yaml, and the workspace that points at our code server.

The dagster.yaml beside pyproject.toml is used in a checkout, the copy inside the package in an installed wheel.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from ...errors import SettingsInvalid, StoreUnavailable

LOCATION = "bitget_pipeline"
MODULE = "bitget_pipeline.definitions"

PACKAGE = Path(__file__).parents[2]

RECORDS = "dagster-records"
"""The step that Dagster's programs wait for."""


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


def make_records(home: Path, environment: Mapping[str, str]) -> str:
    """
    Create Dagster's databases, or bring them to the version installed; returns what was done, for people.

    Before its programs start, once for a folder and version: two that create them at the same moment trip over each
    other (seen: "table alembic_version already exists", and "more than one head present", which no later start gets
    over). Raises StoreUnavailable with Dagster's last words.
    """
    marker, wanted = home / "dagster" / ".records", version("dagster")
    if marker.is_file() and marker.read_text(encoding="utf-8").strip() == wanted:
        return "Dagster's records are there"
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "instance", "migrate"],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise StoreUnavailable(
            f"Dagster's records cannot be prepared: {words[-1] if words else 'no reason given'}",
            where=str(home / "dagster"),
            remedy="look at the storage block of dagster.yaml, and at the folder's permissions and free space",
        )
    marker.write_text(f"{wanted}\n", encoding="utf-8")
    return "Dagster's records are up to date"

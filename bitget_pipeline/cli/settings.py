"""
The settings, explained: what there is, and what holds now.

README's table and .env.example are printed from here, so that they cannot differ from the code (tests compare them).
"""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import SecretStr
from rich.table import Table

from ..guard.remedy_table import changes_in_a_line
from ..settings import Boot, Documented, Operational, all_settings, load_boot, load_operational
from .output import as_json, console, meant_environment, print_json, where

FILE_HEAD = """\
# Settings of bitget_pipeline. Copy this file to .env and set what you need; everything has a default.
# The same settings may stand in a TOML file (BITGET_PIPELINE_SETTINGS), under the keys that the README names.
"""


@click.command("settings")
@where
@click.option("--markdown", is_flag=True, help="The table of every setting, as the README has it.")
@click.option("--env", is_flag=True, help="Every setting as a commented line, as .env.example has it.")
@as_json
def settings_command(demo: bool, home: Path | None, markdown: bool, env: bool, json_wanted: bool) -> None:
    """Every setting, and the value that holds now. Secrets are never shown."""
    if markdown:
        click.echo(as_markdown(), nl=False)
        return
    if env:
        click.echo(as_env(), nl=False)
        return
    environ = meant_environment(home=home, demo=demo)
    boot = load_boot(environ)
    operational = load_operational(boot, environ)
    values = {row.variable: _shown(row, boot, operational) for row in all_settings()}
    if json_wanted:
        print_json(
            {
                "home": str(boot.home),
                "tier": operational.tier.value,
                "generation": operational.generation,
                "values": values,
            }
        )
        return
    table = Table("variable", "now", "what it is", box=None, padding=(0, 2, 0, 0))
    for row in all_settings():
        table.add_row(row.variable, values[row.variable] or "-", row.description)
    console().print(table)
    tier = f"tier {operational.tier}, generation {operational.generation}"
    console().print(
        f"{tier}; the data lies in {boot.home}; a settings file would be {boot.settings_file}", markup=False
    )


def as_markdown() -> str:
    """Every setting as a Markdown table."""
    lines = ["| variable | key in the settings file | default | what it is |", "| --- | --- | --- | --- |"]
    for row in all_settings():
        key = f"`{row.key}`" if row.key else "-"
        lines.append(f"| `{row.variable}` | {key} | {row.default or '-'} | {row.description} |")
    return "\n".join(lines) + "\n"


def as_env() -> str:
    """Every setting as a commented line of a .env file."""
    blocks = []
    for row in all_settings():
        default = f" Default: {row.default}." if row.default else ""
        blocks.append(f"# {row.description}{default}\n# {row.variable}=\n")
    return "\n".join([FILE_HEAD, *blocks])


def _shown(row: Documented, boot: Boot, operational: Operational) -> str:
    model = boot if row.field in Boot.model_fields else operational
    value = getattr(model, row.field)
    if row.field == "proxy":
        return boot.proxy_shown or ""
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return changes_in_a_line(value)
    return "" if value is None else str(value)

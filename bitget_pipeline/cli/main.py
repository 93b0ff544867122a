"""
The command `bitget-pipeline`: finds the command asked for, and turns our errors into one line and an exit code.

Commands are imported when they are used, because Dagster, pandas and chDB each take a while to import.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from .. import __version__
from ..errors import PipelineError
from ..telemetry import configure

COMMANDS = {
    "up": "lifecycle",
    "down": "lifecycle",
    "reset": "lifecycle",
    "status": "status",
    "doctor": "doctor",
    "backfill": "backfill",
    "symbols": "symbols",
    "coverage": "coverage",
    "scorecard": "scorecard",
    "flush": "flush",
    "flusher": "flush",
    "failover": "failover",
    "quarantine": "quarantine",
    "housekeeping": "housekeeping",
    "alerts": "alerts",
    "metrics": "metrics",
    "settings": "settings",
    "credentials": "credentials",
    "exchange": "servers",
    "warehouse": "servers",
}


class Commands(click.Group):
    """Commands by name, each imported from its module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a person meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None when there is none of this name."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = getattr(importlib.import_module(f".{module}", __package__), f"{cmd_name}_command")
        return command if isinstance(command, click.Command) else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.version_option(__version__, prog_name="bitget-pipeline")
def commands(debug: bool) -> None:
    """A complete, verified copy of Bitget's market data in ClickHouse, orchestrated by Dagster."""


def main(arguments: list[str] | None = None) -> None:
    """
    Run a command and exit with its code.

    0 done; 1 a check found problems, or an error of no better kind; 2 wrong usage; 65 something malformed came in;
    75 try again later; 78 a setting has to change; 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    configure(level="DEBUG" if debug else "ERROR")  # commands say themselves what happened
    if not debug:  # clickhouse-connect raises the level of its parent
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    sys.exit(_run([argument for argument in arguments if argument != "--debug"], debug=debug))


def _run(arguments: list[str], *, debug: bool) -> int:
    try:
        answer: Any = commands.main(arguments, prog_name="bitget-pipeline", standalone_mode=False)
    except PipelineError as error:
        if debug:
            raise
        _complain(str(error))
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        _complain(f"{type(error).__name__}: {error} — this is a defect; run it again with --debug and report it")
        return 1
    return answer if isinstance(answer, int) else 0


def _complain(line: str) -> None:
    click.secho(" ".join(line.split()), fg="red", err=True)


if __name__ == "__main__":
    main()

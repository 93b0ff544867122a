"""
How settings are read: environment variables over the settings file, errors as one line.

Input: the environment and a TOML file; output: values of a settings model, or SettingsInvalid that names the variable
or the line, what is wrong with it and what to write instead. The value of a secret never appears in an error.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dotenv import dotenv_values
from pydantic import BaseModel, ValidationError
from pydantic.fields import Field, FieldInfo

from ..errors import SettingsInvalid

PREFIX = "BITGET_PIPELINE_"

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Given:
    """A value somebody wrote, and where: a variable's name, or a line of the settings file."""

    value: Any
    where: str


@dataclass(frozen=True, slots=True)
class Documented:
    """One setting as the manual shows it."""

    field: str
    variable: str
    key: str  # in the settings file; empty where only the environment can set it
    default: str
    description: str


def setting(default: Any, description: str, *, write: str, variable: str = "", shown: str = "", **limits: Any) -> Any:
    """
    Declare a field: its default, what it is, what to write, its variable and its limits.

    `shown` is the default as the manual words it, where the value itself says little.
    """
    about: dict[str, Any] = {"write": write, "variable": variable, "shown": shown}
    return Field(default, description=description, json_schema_extra=about, **limits)


def environment() -> dict[str, str]:
    """The process's environment over a `.env` file of the working directory, if there is one."""
    written = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return {**written, **os.environ}


def variable_of(name: str, field: FieldInfo) -> str:
    """The environment variable of a field."""
    return str(_about(field).get("variable") or PREFIX + name.upper())


def documented(model: type[BaseModel], *, without_file: frozenset[str] = frozenset()) -> Iterator[Documented]:
    """Every setting of a model, in its order."""
    for name, field in model.model_fields.items():
        default = _about(field).get("shown") or ("" if field.default is None else str(field.default))
        yield Documented(
            field=name,
            variable=variable_of(name, field),
            key="" if name in without_file else name,
            default=default,
            description=field.description or "",
        )


def from_environment(model: type[BaseModel], environ: Mapping[str, str]) -> dict[str, Given]:
    """What the environment says about a model's fields; an empty variable counts as not set."""
    given: dict[str, Given] = {}
    for name, field in model.model_fields.items():
        variable = variable_of(name, field)
        if environ.get(variable, "").strip():
            given[name] = Given(environ[variable].strip(), variable)
    return given


def refuse_unknown_variables(environ: Mapping[str, str], known: set[str]) -> None:
    """A misspelt variable would have no effect and nobody would notice. Raises SettingsInvalid."""
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known:
            raise SettingsInvalid(
                f"there is no setting {variable}", where="environment", remedy=_nearest(variable, known)
            )


def read_file(path: Path, *, required: bool) -> dict[str, Given]:
    """The keys of the settings file. Raises SettingsInvalid when it is missing (and required) or not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if not required:
            return {}
        raise SettingsInvalid(
            "the settings file does not exist", where=str(path), remedy="create it, or unset BITGET_PIPELINE_SETTINGS"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"the settings file cannot be read: {error}", where=str(path)) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(error, path, text) from None
    return {key: Given(value, f"{path} line {_line_of(key, text)}") for key, value in values.items()}


def refuse_unknown_keys(given: Mapping[str, Given], known: set[str], variable_only: Mapping[str, str]) -> None:
    """Keys of the settings file that are no settings. Raises SettingsInvalid with the nearest that is."""
    for key, entry in given.items():
        if key in variable_only:
            raise SettingsInvalid(
                f"{key} cannot stand in the settings file",
                where=entry.where,
                remedy=f"set {variable_only[key]} instead",
            )
        if key not in known:
            raise SettingsInvalid(f"there is no setting {key}", where=entry.where, remedy=_nearest(key, known))


def refuse_unknown_names(given: Given, key: str, known: set[str], path: Path, *, what: str) -> None:
    """Tables below a key of the settings file whose names are none. Raises SettingsInvalid with the line, and the nearest."""
    for name in given.value if isinstance(given.value, dict) else ():
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise SettingsInvalid(
                f"there is no {what} {name}", where=place_below(given, key, name, path), remedy=remedy
            )


def place_below(given: Given, key: str, name: str, path: Path, figure: str = "") -> str:
    """Where a table below a key of the settings file stands, or one figure of it, however it is written."""
    table = re.compile(rf"""^\s*\[?\s*({key}\s*\.\s*)?["']?{re.escape(name)}["']?\s*[=.\]]""")
    named = re.compile(rf"""\b{re.escape(figure)}["']?\s*=""")
    lines = path.read_text(encoding="utf-8").splitlines()
    begins = [number for number, text in enumerate(lines, 1) if table.match(text)]
    if not begins:
        return given.where
    found = next((number for number in begins if figure and named.search(lines[number - 1])), 0)
    if figure and not found:
        for number in range(begins[0] + 1, len(lines) + 1):
            if lines[number - 1].lstrip().startswith("["):
                break
            if named.search(lines[number - 1]):
                found = number
                break
    return f"{path} line {found or begins[0]}"


def build(model: type[Model], given: Mapping[str, Given], defaults: Mapping[str, Any]) -> Model:
    """The model with the given values over the defaults. Raises SettingsInvalid for the first that does not fit."""
    values = {**defaults, **{name: entry.value for name, entry in given.items() if name in model.model_fields}}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _as_one_line(model, given, error) from None


def _as_one_line(model: type[BaseModel], given: Mapping[str, Given], error: ValidationError) -> SettingsInvalid:
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    problem = first["msg"].removeprefix("Value error, ")
    field = model.model_fields.get(name)
    if field is None:  # two settings that do not go together: the first that stands in the file is where to look
        what, _, remedy = problem.partition(" — ")
        return SettingsInvalid(what, where=_named_in(what, model, given), remedy=remedy)
    entry = given.get(name)
    variable = variable_of(name, field)
    secret = "Secret" in str(field.annotation)
    shown = f" is {_short(entry.value)}" if entry and not secret else ""
    where = "" if entry is None or entry.where == variable else entry.where
    spelled = name if where else variable
    return SettingsInvalid(f"{spelled}{shown}: {problem}", where=where, remedy=f"write {_about(field)['write']}")


def _named_in(problem: str, model: type[BaseModel], given: Mapping[str, Given]) -> str:
    """The place in the settings file of the setting that is named first; empty when it stands elsewhere."""
    named = [
        (match.start(), given[name].where)
        for name, field in model.model_fields.items()
        if name in given
        and given[name].where != (variable := variable_of(name, field))
        and (match := re.search(rf"\b{re.escape(variable)}\b", problem))
    ]
    return min(named)[1] if named else ""


def _not_toml(error: tomllib.TOMLDecodeError, path: Path, text: str) -> SettingsInvalid:
    """Where the file stops being TOML, by its line and the key that stands there."""
    at = re.search(r" \(at line (\d+), column \d+\)$", str(error))
    lines = text.splitlines() or [""]
    number = int(at[1]) if at else len(lines)
    what = str(error).removesuffix(at[0] if at else " (at end of document)")
    key = re.match(r"""\s*["']?([\w-]+)["']?\s*(=|$)""", lines[min(number, len(lines)) - 1])
    about = f" at {key[1]}" if key else ""
    return SettingsInvalid(
        f"the settings file is not TOML{about}: {what}",
        where=f"{path} line {number}",
        remedy="write one `key = value` a line: texts in quotes, numbers without, lists in brackets",
    )


def _about(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _nearest(word: str, known: set[str]) -> str:
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f"did you mean {near[0]}?" if near else "`bitget-pipeline settings` lists them all"


def _line_of(key: str, text: str) -> int:
    pattern = re.compile(rf"""^\s*\[?["']?{re.escape(key)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)

"""The rules of remediation as an operator sees them: the README's table, the settings, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitget_pipeline.errors import SettingsInvalid
from bitget_pipeline.guard.remedy_rules import Mode
from bitget_pipeline.guard.remedy_table import RULES, as_markdown, changed, changes_in_a_line, parse_changes
from bitget_pipeline.pipeline.watch.failover import FailoverRules
from bitget_pipeline.pipeline.watch.failover_words import as_row, in_words
from bitget_pipeline.settings import Operational, load_boot, load_operational

ROOT = Path(__file__).parents[1]


def load(home: Path, **environ: str) -> Operational:
    """The settings of a home folder and these variables."""
    full = {"BITGET_PIPELINE_HOME": str(home), **environ}
    return load_operational(load_boot(full), full)


def test_the_readme_has_the_table_of_rules() -> None:
    """
    It is printed from the rules themselves (`as_markdown` of guard/remedy_table.py), and its last row from the figures by which
    the failover is decided (`as_row` of pipeline/watch/failover_words.py).
    """
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("<!-- remedies -->\n")[2].partition("<!-- /remedies -->")[0]
    assert table == as_markdown(RULES) + as_row()


def test_the_failover_is_told_by_the_figures_it_is_decided_by() -> None:
    """
    Another steady time, another row: what people read is what is done.
    """
    assert "both signals good for 20 s" in in_words(FailoverRules(steady_for=20.0)).back
    assert "silent for 3 s and 1 of the last 2 probes" in as_row(FailoverRules(silent_after=3.0, probes=2, failing=1))


def test_rules_are_changed_in_the_settings_file_or_by_a_variable(tmp_path: Path) -> None:
    """Tables in the file, one line in the variable; the variable wins. Another figure is another generation."""
    (tmp_path / "settings.toml").write_text("remediation = 'dry_run'\n[remedies.backlog]\nper_hour = 2\n")
    from_file = load(tmp_path)
    assert from_file.remediation is Mode.DRY_RUN
    assert {one.name: one for one in changed(RULES, from_file.remedies)}["backlog"].per_hour == 2
    from_variable = load(tmp_path, BITGET_PIPELINE_REMEDIES="many_parts.hold=60, late_rows.off=true")
    assert from_variable.remedies == {"many_parts": {"hold": 60.0}, "late_rows": {"off": True}}
    assert from_file.generation != from_variable.generation
    assert parse_changes(changes_in_a_line(from_variable.remedies)) == from_variable.remedies


def test_an_unknown_rule_in_the_settings_file_is_refused_with_its_line(tmp_path: Path) -> None:
    """And with the name that was probably meant."""
    (tmp_path / "settings.toml").write_text("books = true\n\n[remedies.many_parts]\nhold = 40\n[remedies.backlogg]\n")
    with pytest.raises(SettingsInvalid, match=r"no rule backlogg .*line 5.*did you mean backlog\?"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("figure", "line", "sentence"),
    [
        ("hold = 500", 6, "backlog: it may act again after 120 s, before anybody can know"),
        ("per_hour = 99", 6, "backlog: its limit of 99 an hour is above the 24"),
        ("patience = 5", 6, "backlog has no figure patience"),
        ("tries = 1.5", 6, "backlog: tries is 1.5"),
        ("per_hour = inf", 6, "backlog: per_hour is inf"),
        ("per_hour = 3\nhold = 500", 7, "backlog: it may act again after 120 s"),
        ("hold = 500\ncool_down = 600\ntries = 9", 8, "backlog: 9 tries are more than its limit"),
    ],
)
def test_a_contradictory_rule_in_the_settings_file_is_refused_with_its_own_line(
    tmp_path: Path, figure: str, line: int, sentence: str
) -> None:
    """Not the line of another rule that stands before it."""
    text = f"books = true\n\n[remedies.many_parts]\nhold = 40\n[remedies.backlog]\n{figure}\n"
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(SettingsInvalid) as raised:
        load(tmp_path)
    assert sentence in str(raised.value)
    assert f"settings.toml line {line})" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("backlog", "not of the form rule.figure=value"),
        ("backlog.hold=soon", "soon is no number"),
        ("backlogs.hold=3", "no rule backlogs"),
        ("backlog.hold=500", "before anybody can know whether it is over"),
        ("backlog.patience=5", "has no figure patience"),
        ("backlog.per_hour=99", "above the 24 of all such rules together"),
    ],
)
def test_what_makes_no_sense_or_contradicts_itself_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """In one line that names the setting."""
    with pytest.raises(SettingsInvalid, match=sentence) as raised:
        load(tmp_path, BITGET_PIPELINE_REMEDIES=text)
    assert "BITGET_PIPELINE_REMEDIES" in str(raised.value)
    assert "\n" not in str(raised.value)

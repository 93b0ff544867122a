"""The Grafana dashboard and the alert rules ask for metrics that exist, by labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from bitget_pipeline.pipeline.metrics.names import PREFIX, SPECS

DOCS = Path(__file__).parents[3] / "docs"
DASHBOARD = json.loads((DOCS / "grafana" / "bitget_pipeline.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((DOCS / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))

_METRIC = re.compile(rf"{PREFIX}(?P<name>\w+)(?:\{{(?P<labels>[^}}]*)\}})?")
_GROUPED = re.compile(r"\b(?:by|on|without) \((?P<labels>[^)]*)\)")


def panels() -> list[dict[str, Any]]:
    """Everything that is drawn."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def questions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the PromQL."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.mark.parametrize(("title", "expr"), list(questions()))
def test_a_question_names_metrics_and_labels_that_exist(title: str, expr: str) -> None:
    """
    A metric that was renamed must not leave an empty panel or an alert that never fires.
    """
    found = list(_METRIC.finditer(expr))
    assert found or expr.startswith("up{"), title
    labels: set[str] = set()
    for match in found:
        spec = SPECS[match["name"]]
        labels.update(spec.labels)
        for named in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", match["labels"] or ""):
            assert named in spec.labels, (title, named)
    for match in _GROUPED.finditer(expr):
        assert {name.strip() for name in match["labels"].split(",")} <= labels, title


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_counter_is_shown_by_its_growth_and_a_gauge_as_it_is(panel: dict[str, Any]) -> None:
    """
    A counter as it is says nothing, and the growth of a gauge is nonsense.
    """
    for target in panel["targets"]:
        for match in _METRIC.finditer(target["expr"]):
            grown = re.search(rf"(rate|increase)\({re.escape(match[0])}\[", target["expr"]) is not None
            assert grown is match["name"].endswith("_total"), target["expr"]


def test_it_can_be_provisioned_anywhere() -> None:
    """
    The source of the data is chosen in Grafana, ids are given once, and no panel lies over another.
    """
    for panel in panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert DASHBOARD["id"] is None
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "market", "symbol"]
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
        assert one["x"] + one["w"] <= 24

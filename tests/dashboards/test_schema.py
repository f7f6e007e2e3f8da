"""The dashboards match the schema that Grafana publishes, for the dashboard and for each type of panel."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from tests.dashboards.asking import DASHBOARDS

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "grafana_schema.json").read_text())
DECODED = [json.loads(text) for text in DASHBOARDS.values()]
# The SDK writes the defaults of a variable of intervals into all, and Grafana ignores them.
OF_INTERVALS = {"auto", "auto_count", "auto_min"}
# The data source Prometheus reads these of an annotation. The schema describes no data source's own fields.
OF_PROMETHEUS = {"expr", "step", "textFormat", "titleFormat"}


def problems(name, value):
    """Return what is wrong with a value, by the schema with that name."""
    validator = jsonschema.Draft7Validator(SCHEMA[name])
    return [f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def without(fields, values):
    return [{name: value for name, value in each.items() if name not in fields} for each in values]


@pytest.mark.parametrize("dashboard", DECODED, ids=lambda dashboard: dashboard["uid"])
def test_a_dashboard_matches_grafanas_schema(dashboard):
    variables, annotations = (dashboard[name].get("list", []) for name in ("templating", "annotations"))
    lists = {
        "templating": {"list": without(OF_INTERVALS, variables)},
        "annotations": {"list": without(OF_PROMETHEUS, annotations)},
    }
    assert not problems("dashboard", {**dashboard, **lists})


@pytest.mark.parametrize("dashboard", DECODED, ids=lambda dashboard: dashboard["uid"])
def test_each_panel_matches_the_schema_of_its_type(dashboard):
    for panel in dashboard["panels"]:
        parts = {"options": panel.get("options"), "custom": panel["fieldConfig"]["defaults"].get("custom")}
        # Grafana has defaults for a part that is missing.
        found = [problems(f"{panel['type']}.{name}", part) for name, part in parts.items() if part]
        assert not any(found), panel["title"]

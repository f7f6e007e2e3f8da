"""The help beside DAGs and tasks: its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from airflow.sdk import DAG

from airflow_provider_forge import DOCUMENTATION
from airflow_provider_forge.operators import help as help_module
from airflow_provider_forge.operators.forge_metrics_coverage import ForgeMetricsCoverageOperator
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator

ROOT = Path(__file__).parent.parent.parent
TEXTS = {name: getattr(help_module, name) for name in help_module.__all__ if name.isupper()}


@pytest.mark.parametrize("name", TEXTS)
def test_its_links_lead_to_headings_of_the_documentation(name):
    links = re.findall(r"\]\((.*?)\)", TEXTS[name])
    assert links
    for link in links:
        page, _, heading = link.removeprefix(DOCUMENTATION).partition("#")
        text = (ROOT / "docs" / page.replace(".html", ".md")).read_text()
        headings = [
            line.strip("# ").lower().replace(" ", "-") for line in text.splitlines() if line[:1] == "#"
        ]
        assert heading in ("", *headings)


def test_the_documentation_is_that_of_the_package():
    assert f'Documentation = "{DOCUMENTATION}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("operator", [ForgeMetricsToOtlpOperator, ForgeMetricsCoverageOperator])
def test_a_task_has_help_unless_its_dag_gives_other(operator):
    assert "https://" in operator(task_id="x").doc_md
    assert operator(task_id="x", doc_md="mine").doc_md == "mine"


@pytest.mark.parametrize("operator", [ForgeMetricsToOtlpOperator, ForgeMetricsCoverageOperator])
def test_the_help_of_the_user_wins_also_among_the_default_args(operator):
    with DAG("mine", schedule=None, default_args={"doc_md": "Ask Ada"}):
        assert operator(task_id="x").doc_md == "Ask Ada"
        assert operator(task_id="y", doc_md="Ask Bob").doc_md == "Ask Bob"
    with DAG("ours", schedule=None, default_args={"doc_md": ""}):
        assert operator(task_id="x").doc_md in TEXTS.values()

from __future__ import annotations

import json

import pytest

from airflow_provider_forge.exceptions import SecretsUnavailable
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.operators.links import CONSOLE, DeveloperConsoleLink

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
OTHER = "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    ("arguments", "extra", "path"),
    [
        ({}, {"app_id": f"ari:cloud:ecosystem::app/{APP}"}, f"{APP}/overview"),
        ({"app_id": OTHER}, {"app_id": APP}, f"{OTHER}/overview"),
        ({"app_id": ""}, {"app_id": APP}, f"{APP}/overview"),
        ({}, {}, ""),
        ({}, {"app_id": "nonsense"}, ""),
        ({"forge_conn_id": "nowhere"}, {"app_id": APP}, ""),
    ],
)
def test_it_leads_to_the_app(monkeypatch, arguments, extra, path):
    connection = {"conn_type": "forge", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_FORGE_DEFAULT", json.dumps(connection))
    task = ForgeMetricsToOtlpOperator(task_id="export", **arguments)
    (link,) = task.operator_extra_links
    assert isinstance(link, DeveloperConsoleLink)
    assert link.get_link(task, ti_key=None) == CONSOLE + path


def test_an_unavailable_secrets_backend_is_no_reason_to_fail(monkeypatch):
    def fail(self):
        raise SecretsUnavailable("away")

    monkeypatch.setattr(ForgeMetricsHook, "app_id", property(fail))
    task = ForgeMetricsToOtlpOperator(task_id="export")
    assert task.operator_extra_links[0].get_link(task, ti_key=None) == CONSOLE

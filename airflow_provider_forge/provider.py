"""The provider's metadata. Airflow imports this module at each start."""

from __future__ import annotations

from airflow_provider_forge.connection_forms import FORGE, OTLP

__all__ = ["PROVIDER_INFO"]

PROVIDER_INFO = {
    "package-name": "airflow-provider-forge",
    "name": "Atlassian Forge",
    "description": "Atlassian Forge app metrics to any OTLP endpoint.",
    "integrations": [
        {
            "integration-name": "Atlassian Forge",
            "external-doc-url": "https://developer.atlassian.com/platform/forge/export-app-metrics/",
            "tags": ["service"],
        },
        {
            "integration-name": "OpenTelemetry Protocol (OTLP)",
            "external-doc-url": "https://opentelemetry.io/docs/specs/otlp/",
            "tags": ["protocol"],
        },
    ],
    "hooks": [
        {"integration-name": "Atlassian Forge", "python-modules": ["airflow_provider_forge.hooks.forge"]},
        {
            "integration-name": "OpenTelemetry Protocol (OTLP)",
            "python-modules": ["airflow_provider_forge.hooks.otlp"],
        },
    ],
    "operators": [
        {
            "integration-name": "Atlassian Forge",
            "python-modules": [
                "airflow_provider_forge.operators.forge_metrics_coverage",
                "airflow_provider_forge.operators.forge_metrics_to_otlp",
                "airflow_provider_forge.operators.forge_usage_to_otlp",
            ],
        }
    ],
    # Airflow 3.2 and later; before, `python -m airflow_provider_forge` is the same.
    "cli": ["airflow_provider_forge.cli.definition.get_forge_cli_commands"],
    "connection-types": [
        {
            "connection-type": "forge",
            "hook-class-name": "airflow_provider_forge.hooks.forge.ForgeMetricsHook",
            "hook-name": "Atlassian Forge",
            "conn-fields": FORGE.conn_fields(),
            "ui-field-behaviour": FORGE.ui_field_behaviour(),
        },
        {
            "connection-type": "otlp",
            "hook-class-name": "airflow_provider_forge.hooks.otlp.OtlpHook",
            "hook-name": "OpenTelemetry Protocol (OTLP)",
            "conn-fields": OTLP.conn_fields(),
            "ui-field-behaviour": OTLP.ui_field_behaviour(),
        },
    ],
}

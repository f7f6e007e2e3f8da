"""Usage through the hook: a Connection in, typed periods out, within a budget of its own."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.files import shared_directory
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.sandbox import SandboxGateway

END = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
START = END - timedelta(days=10)


def test_it_fetches_the_usage_of_an_environment(gateway, sink, connect):
    connect(gateway, sink)
    usage = ForgeMetricsHook().fetch_usage("KVS_READ", START, END, "production", "CONTEXT_ARI")
    at = usage.observed_at
    true = gateway.usage(START, END, resources=["KVS_READ"], environments=["production"], by_site=True, at=at)
    assert [(each.start.date(), each.site, each.amount) for each in usage.periods] == [
        (each.day, each.group, each.amount) for each in true
    ]
    assert all(isinstance(each.amount, Decimal) for each in usage.periods)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("NO_SUCH", START, END), "resource"),
        (("KVS_READ", END, START), "end"),
        (("KVS_READ", START, START), "end"),
        (("KVS_READ", "yesterday", END), "start"),
        (("KVS_READ", START, END.replace(tzinfo=None)), "end"),
        (("KVS_READ", START, END, None, "VERSION"), "group_by"),
        (("KVS_READ", START, END, "no-such"), "environments"),
        (("KVS_READ", START, END, []), "environments"),
    ],
)
def test_bad_input_names_its_field_before_any_call(gateway, sink, connect, arguments, field):
    connect(gateway, sink)
    with pytest.raises(ConfigurationError) as raised:
        ForgeMetricsHook().fetch_usage(*arguments)
    assert raised.value.field == field
    assert [call for call in gateway.calls if call.operation == "appResourceUsage"] == []


def test_usage_and_metrics_have_a_budget_each(sink, connect):
    """Both are used up at the same time, and the gateway counts neither over its limit."""
    limit = {"rate_limit_calls": 2, "rate_limit_seconds": 1.0}
    with SandboxGateway(**limit) as gateway:
        connect(gateway, sink, forge=limit)
        hook = ForgeMetricsHook()
        environments = [next(each.id for each in gateway.environments if each.key == "production")]
        hook.find_environments(environments)  # a call of the first budget
        for _ in range(3):
            hook.fetch_usage("KVS_READ", START, END)
        minute = END - timedelta(minutes=1)
        for _ in range(3):
            hook.fetch(minute, END, environments)
        assert (gateway.violations, gateway.over_limit()) == (0, 0)
        assert sum(call.operation == "appResourceUsage" for call in gateway.calls) == 3
    budgets = [path for path in shared_directory().glob("*.json") if len(path.stem) == 32]
    assert len(budgets) == 2

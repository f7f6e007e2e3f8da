"""Usage through the hook: a Connection in, typed periods out, within a budget of its own."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest

from airflow_provider_forge.exceptions import ConfigurationError, RateLimited
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


def test_usage_is_read_while_metrics_are_fetched_at_the_full_limit(sink, connect):
    """Both use up their budgets at the same time, and the gateway counts neither over its limit."""
    limit = {"rate_limit_calls": 3, "rate_limit_seconds": 1.0}
    with SandboxGateway(**limit) as gateway:
        connect(gateway, sink, forge=limit)
        hook = ForgeMetricsHook()
        production = next(each.id for each in gateway.environments if each.key == "production")
        hook.find_environments([production])  # a call of the budget of metrics

        def fetch(number: int) -> None:
            minute = END - timedelta(minutes=number + 1)
            hook.fetch(minute, minute + timedelta(minutes=1), [production])

        def fetch_usage(_: int) -> None:
            hook.fetch_usage("KVS_READ", START, END)

        with ThreadPoolExecutor() as threads:
            for done in [
                threads.submit(each, number) for number in range(5) for each in (fetch, fetch_usage)
            ]:
                done.result()
        operations = Counter(call.operation for call in gateway.calls)
        assert operations == {"app": 1, "appMetrics": 5, "appResourceUsage": 5}
        assert (gateway.violations, gateway.over_limit()) == (0, 0)
    budgets = [path for path in shared_directory().glob("*.json") if len(path.stem) == 32]
    assert len(budgets) == 2


def test_a_budget_of_usage_that_is_used_up_delays_no_call_for_metrics(gateway, sink, connect):
    connect(gateway, sink, forge={"rate_limit_calls": 2, "rate_limit_seconds": 3600.0})
    hook = ForgeMetricsHook(patience=0.0)
    production = next(each.id for each in gateway.environments if each.key == "production")
    hook.find_environments([production])
    # Two calls at the most, whatever is known of earlier ones.
    with pytest.raises(RateLimited):
        [hook.fetch_usage("KVS_READ", START, END) for _ in range(3)]
    now = datetime.now(timezone.utc)
    assert hook.fetch(now - timedelta(minutes=10), now - timedelta(minutes=9), [production]).waited == 0

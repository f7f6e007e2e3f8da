"""Months of apps whose cost was computed by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_provider_forge.gateway.usage import ResourceUsage, UsagePeriod
from airflow_provider_forge.usage.prices import load_prices

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = {
    "Atlassian's": (
        {
            "FUNCTION_COMPUTE": ("250000", "1.25"),
            "KVS_READ": ("0.15", "0.00275"),
            "SQL_STORAGE": ("694.3", "0"),
            "LLM_INPUT": ("20", "2.00"),
            "LLM_OUTPUT": ("5", "2.50"),
        },
        "5.75275",
    ),
    "below all allowances": (
        {
            "FUNCTION_COMPUTE": ("200000", "0"),
            "KVS_READ": ("0.1", "0"),
            "KVS_WRITE": ("0.099999", "0"),
            "LOGS_WRITE": ("1", "0"),
            "SQL_COMPUTE": ("0.5", "0"),
            "SQL_REQUESTS": ("100000", "0"),
            "SQL_STORAGE": ("730", "0"),
            "OS_REQUESTS": ("5000", "0"),
        },
        "0",
    ),
    # 1,234,567.25 - 200,000 = 1,034,567.25 GB-seconds; 1,034,567.25 * 0.000025 = 25.86418125
    "above one": (
        {"FUNCTION_COMPUTE": ("1234567.25", "25.86418125"), "KVS_WRITE": ("0.05", "0")},
        "25.86418125",
    ),
    # 12.5 * 0.10, 3.25 * 0.50, 744 * 0.07177, 1488 * 0.00786,
    # (2,600,000 - 100,000) * 1.929 / 1,000,000, (7,500 - 5,000) * 0.001353 / 1,000
    "with LLM and containers": (
        {
            "LLM_INPUT": ("12.5", "1.25"),
            "LLM_OUTPUT": ("3.25", "1.625"),
            "CONTAINER_COMPUTE": ("744", "53.39688"),
            "CONTAINER_MEMORY": ("1488", "11.69568"),
            "SQL_REQUESTS": ("2600000", "4.8225"),
            "OS_REQUESTS": ("7500", "0.0033825"),
        },
        "72.7934425",
    ),
}


"""Atlassian's own worked example, and months of three apps: usage and cost by resource, and the total."""


def reading(used: dict[str, str]) -> Callable[..., ResourceUsage]:
    """Return a function in place of `read_usage`: a day of usage, on the first of the running month."""

    def read_usage(client, query, observed_at) -> ResourceUsage:
        first = observed_at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        unit = load_prices().resources[query.resource].unit
        amount = Decimal(used.get(query.resource, "0"))
        period = UsagePeriod(f"{first:%Y-%m-%d}", first, "ONE_DAY", amount, unit)
        return ResourceUsage(query.app_id, query.resource, (period,), observed_at, ("id",))

    return read_usage

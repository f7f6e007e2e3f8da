"""Reads the usage of several resources; one that is refused holds back none of the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    ConfigurationError,
    CredentialsBlocked,
    CredentialsRefused,
    ForgeError,
    QueryRefused,
    RateLimited,
    WindowExpired,
)
from airflow_provider_forge.text import get_logger
from airflow_provider_forge.usage.months import Usage

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from airflow_provider_forge.gateway.usage import ResourceUsage
    from airflow_provider_forge.usage.prices import Prices

__all__ = ["Reading", "read_resources"]

log = get_logger(__name__)


@dataclass
class Reading:
    """The usage of several resources.

    Attributes:
        usages: The usage of each resource that could be read.
        refused: Errors by resource that the account may not read, or that the gateway does not know.
        failed: Other errors by resource; a retry may help.
        calls: Number of calls of the resources that could be read.
    """

    usages: list[Usage] = field(default_factory=list)
    refused: dict[str, ForgeError] = field(default_factory=dict)
    failed: dict[str, ForgeError] = field(default_factory=dict)
    calls: int = 0

    @property
    def left_out(self) -> dict[str, ForgeError]:
        """All errors by resource."""
        return {**self.refused, **self.failed}

    def check(self) -> None:
        """Raise the first error of a resource that failed, or of those refused if all were refused."""
        errors = [*self.failed.values()]
        if not self.usages:
            errors += self.refused.values()
        if errors:
            raise errors[0]


def read_resources(
    fetch: Callable[[str], ResourceUsage], resources: Sequence[str], prices: Prices, start: dt.datetime
) -> Reading:
    """Read the usage of resources, one after the other.

    Args:
        fetch: Fetches the usage of a resource from `start` to the present.
        resources: The resources.
        prices: Prices of all resources.
        start: Start of the time range.

    Raises:
        ConfigurationError: A Connection is wrong.
        CredentialsRefused: The email or the token is wrong, or the token has expired.
        CredentialsBlocked: The gateway has refused them lately.
        RateLimited: The gateway still counts too many calls.
        WindowExpired: `fetch` raises it, because the gateway no longer has the usage of that time.
    """
    reading = Reading()
    for resource in resources:
        try:
            source = fetch(resource)
            usage = Usage(source, prices.resources[resource], start)
        except (
            ConfigurationError,
            CredentialsBlocked,
            CredentialsRefused,
            RateLimited,
            WindowExpired,
        ):
            raise  # the other resources would fail in the same way
        except (AccessForbidden, QueryRefused) as error:
            reading.refused[resource] = error
        except ForgeError as error:
            reading.failed[resource] = error
        else:
            _warn_of_units(usage)
            reading.usages.append(usage)
            reading.calls += len(source.request_ids)
    return reading


def _warn_of_units(usage: Usage) -> None:
    if usage.units:
        log.warning(
            "Atlassian reports %s in %s, but its price is per %s, so its cost is wrong. Set a price for that"
            " unit, and the unit, in the Forge Connection's extra usage_prices",
            usage.resource,
            ", ".join(usage.units),
            usage.price.unit,
        )

"""Age limits of known destinations, by host, and the format of `max_age`.

To add a destination, add an entry to `DESTINATIONS`.
"""

from __future__ import annotations

import datetime as dt
import re
import urllib.parse
from typing import NamedTuple

from airflow_provider_forge.exceptions import ConfigurationError

__all__ = ["DESTINATIONS", "KnownDestination", "age_remedy", "default_max_age", "parse_max_age"]

# The formats people write (90m, 1d12h) and ISO 8601 (PT90M, P1DT12H), in which an M before the T is a month.
_AGE = re.compile(r"(p)?(?:([0-9]+)d)?(?(1)(?:t|$))(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class KnownDestination(NamedTuple):
    """A destination with a documented age limit.

    Attributes:
        domains: The domains of its OTLP endpoints; their subdomains are included.
        max_age: Maximum age of a point that it stores.
        remedy: How to deliver older points, as a sentence without its full stop.
    """

    domains: tuple[str, ...]
    max_age: dt.timedelta
    remedy: str


DESTINATIONS = (
    # https://docs.datadoghq.com/metrics/custom_metrics/historical_metrics/
    KnownDestination(
        ("datadoghq.com", "datadoghq.eu"),
        dt.timedelta(hours=1),
        "Enable Historical Metrics for these metrics in Datadog (Metrics Summary, Configure Metrics), and set"
        " the OTLP Connection's extra max_age to 'none'",
    ),
    # The same page: not available on the government sites.
    KnownDestination(
        ("ddog-gov.com",),
        dt.timedelta(hours=1),
        "Datadog's government sites do not support Historical Metrics: these points cannot be stored there",
    ),
    # https://docs.newrelic.com/docs/data-apis/ingest-apis/metric-api/metric-api-limits-restricted-attributes/
    KnownDestination(
        ("nr-data.net",),
        dt.timedelta(hours=48),
        "New Relic drops older points after answering 200, and has no setting to change that",
    ),
    # https://docs.dynatrace.com/docs/discover-dynatrace/platform/openpipeline/reference/limits
    KnownDestination(
        ("dynatrace.com",),
        dt.timedelta(hours=1),
        "Dynatrace rejects older points, and has no setting to change that",
    ),
)

_DEFAULT_REMEDY = "If the destination stores older points, raise the OTLP Connection's extra max_age"


def default_max_age(url: str) -> dt.timedelta | None:
    """Return the maximum age of a point for the destination of a URL; None if it has no known limit."""
    known = _find(url)
    return known.max_age if known else None


def age_remedy(url: str, max_age: dt.timedelta | None) -> str:
    """Return how to deliver points older than `max_age`, as a sentence without its full stop."""
    known = _find(url)
    return known.remedy if known and known.max_age == max_age else _DEFAULT_REMEDY


def _find(url: str) -> KnownDestination | None:
    host = urllib.parse.urlsplit(url).hostname or ""
    for destination in DESTINATIONS:
        if any(f".{host}".endswith(f".{domain}") for domain in destination.domains):
            return destination
    return None


def parse_max_age(value: object) -> dt.timedelta | None:
    """Parse a maximum age: a number of seconds, or text such as `90m`, `48h`, `14d`, `PT48H`.

    Returns:
        The age; None for `none`, which means no limit.

    Raises:
        ConfigurationError: The value has none of these formats.
    """
    text = str(value).strip()
    if text.lower() == "none":
        return None
    try:
        if _SECONDS.fullmatch(text):
            return dt.timedelta(seconds=float(text))
        found = _AGE.fullmatch(text)
        if found and any(found.groups()[1:]):
            days, hours, minutes, seconds = (int(number or 0) for number in found.groups()[1:])
            return dt.timedelta(days, seconds, minutes=minutes, hours=hours)
    except (ValueError, OverflowError):
        pass  # more digits than a timedelta can hold
    raise ConfigurationError(
        "max_age",
        f"{value!r} is not an age: give a number of seconds, text such as 90m, 48h or 14d, or 'none'",
    )

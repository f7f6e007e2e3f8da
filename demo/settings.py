"""The demo's gateway and receiver: the sandbox, unless the environment configures real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.otlp.environ import endpoint_from_environ

if TYPE_CHECKING:
    from collections.abc import Mapping

# The variables of Atlassian's own command line tool, and the app id.
CREDENTIALS = ("FORGE_EMAIL", "FORGE_API_TOKEN", "FORGE_APP_ID")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
HOURS = "DEMO_HOURS"
MOST_HOURS = 14 * 24 - 1


class SettingsError(Exception):
    """The environment is invalid; the message names the variables to set."""


@dataclass(frozen=True)
class Settings:
    """The demo's settings.

    Args:
        credentials: Email, API token and app id for the real gateway; None for the sandbox.
        collector: OTLP endpoint of a real collector; None for the sandbox.
        otlp_environment: The variables that configure the real collector, if any.
        hours: Start of catchup, in hours before now.
    """

    credentials: tuple[str, str, str] | None
    collector: str | None
    otlp_environment: Mapping[str, str]
    hours: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: Only some of FORGE_* are set, an OTEL_EXPORTER_OTLP_* variable is invalid, or
                DEMO_HOURS is not a number of hours within 14 days.
        """
        missing = [name for name in CREDENTIALS if not environ.get(name)]
        if missing and len(missing) < len(CREDENTIALS):
            raise SettingsError(
                f"{', '.join(missing)} not set. For the real gateway, set all of "
                f"{', '.join(CREDENTIALS)}; for the sandbox gateway, set none of them."
            )
        hours = environ.get(HOURS, "24")
        if not hours.isdecimal() or not 1 <= int(hours) <= MOST_HOURS:
            raise SettingsError(f"{HOURS} must be a whole number from 1 to {MOST_HOURS}, not {hours!r}.")
        collector = next((environ[name] for name in ENDPOINTS if environ.get(name)), None)
        if collector:
            try:
                endpoint_from_environ(environ)
            except ConfigurationError as error:
                raise SettingsError(f"{error}.") from None
        email, api_token, app_id = (environ.get(name, "") for name in CREDENTIALS)
        otlp = {name: value for name, value in environ.items() if name.startswith("OTEL_EXPORTER_OTLP_")}
        return cls(
            credentials=None if missing else (email, api_token, app_id),
            collector=collector,
            otlp_environment=otlp if collector else {},
            hours=int(hours),
        )

    @property
    def name(self) -> str:
        """A directory name that separates demos with different gateways and receivers."""
        gateway = "atlassian" if self.credentials else "sandbox"
        return f"{gateway}-to-{'collector' if self.collector else 'sink'}"

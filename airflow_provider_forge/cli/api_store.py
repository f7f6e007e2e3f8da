"""Airflow's asset state store, reached from outside through the REST API of Airflow 3.3."""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable
from airflow_provider_forge.hooks.ledger import LARGEST
from airflow_provider_forge.http import USER_AGENT, check_url, quote

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.model import Json

__all__ = ["ApiStore"]

TIMEOUT = 30.0
"""Seconds."""

PAGE = 100
"""Entries that Airflow lists at once by default."""


class ApiStore:
    """The rows of one asset.

    The first `get` reads all of them: 14 days are 4,032 entries, a hundred at a time.

    Args:
        url: Of Airflow.
        token: For its REST API.
        asset: The asset's name.

    Raises:
        ConfigurationError: The URL or the token is wrong, or there is no such asset.
        LedgerUnavailable: Airflow does not answer.
    """

    def __init__(self, url: str, token: str, asset: str) -> None:
        check_url("--api-url", url, example="http://localhost:8080")
        self.name = f"the asset {asset} of {httpx.URL(url).host}"
        self.largest: int | None = LARGEST
        self.lasting = True
        self._token = token
        self._base = f"{url.rstrip('/')}/api/v2"
        # What makes a client slow to make; without it one for each request costs nothing to speak of.
        self._tls = httpx.create_ssl_context()
        self._rows = f"/assets/{self._find(asset)}/state-store"
        self._known: dict[str, Json] | None = None

    def get(self, key: str) -> Json | None:
        """Return the value; None where there is none."""
        if self._known is None:
            self._known = self._read_all()
        return self._known.get(key)

    def set(self, key: str, value: Json) -> None:
        """Put a value there."""
        self._ask("PUT", self._row(key), json={"value": value})
        if self._known is not None:
            self._known[key] = value

    def delete(self, key: str) -> None:
        """Take a value away."""
        self._ask("DELETE", self._row(key))
        if self._known is not None:
            self._known.pop(key, None)

    def _row(self, key: str) -> str:
        return f"{self._rows}/{urllib.parse.quote(key)}"

    def _find(self, asset: str) -> int:
        answer = self._ask("GET", "/assets", params={"name_pattern": asset, "limit": PAGE})
        found = [each["id"] for each in answer.get("assets", ()) if each.get("name") == asset]
        if not found:
            raise ConfigurationError(
                "--api-url",
                f"that Airflow has no asset {asset}: check --forge-conn-id and --otlp-conn-id, and whether"
                " the DAG has been parsed",
            )
        return int(found[0])

    def _read_all(self) -> dict[str, Json]:
        values: dict[str, Json] = {}
        while True:
            page = self._ask("GET", self._rows, params={"limit": PAGE, "offset": len(values)})
            rows = page.get("asset_state_store", [])
            values |= {row["key"]: row["value"] for row in rows}
            if not rows or len(values) >= page.get("total_entries", 0):
                return values

    def _ask(self, method: str, path: str, **arguments: Any) -> Json:
        headers = {"Authorization": f"Bearer {self._token}", "User-Agent": USER_AGENT}
        try:
            with httpx.Client(headers=headers, timeout=TIMEOUT, verify=self._tls) as client:
                answer = client.request(method, self._base + path, **arguments)
            if not answer.is_success:
                raise self._failure(answer)
            return dict(answer.json()) if answer.content else {}
        except httpx.RequestError as error:
            raise LedgerUnavailable(
                f"No answer from {httpx.URL(self._base).host} ({type(error).__name__}). Check --api-url, and"
                " whether Airflow's API server runs"
            ) from error
        except json.JSONDecodeError as error:
            raise ConfigurationError("--api-url", "is no Airflow: its answer is not JSON") from error

    def _failure(self, answer: httpx.Response) -> ConfigurationError | LedgerUnavailable:
        said = f"({answer.status_code}: {quote(answer.text, [self._token])})"
        if answer.status_code in (401, 403):
            return ConfigurationError(
                "AIRFLOW_API_TOKEN",
                f"Airflow refuses it {said}. Tokens last a day; POST {self._base.removesuffix('/api/v2')}"
                "/auth/token gives a new one. Its user must be allowed to use assets",
            )
        if answer.status_code == 404:
            return ConfigurationError(
                "--api-url", f"is not an Airflow of 3.3 or later {said}: before, it has no asset state store"
            )
        return LedgerUnavailable(f"Airflow's REST API failed {said}. Look at the API server's log")

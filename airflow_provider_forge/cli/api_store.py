"""Airflow's asset state store, accessed through the REST API of Airflow 3.3 and later."""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_forge.connections.ledger import LARGEST
from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable
from airflow_provider_forge.exchange import ACCEPT_ENCODING, BodyUnreadable, read_body
from airflow_provider_forge.http import USER_AGENT, check_url
from airflow_provider_forge.proxies import Route
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["ApiStore"]

TIMEOUT = 30.0
"""Seconds without data from Airflow."""

PAGE = 100
"""Number of entries per page, which is Airflow's default."""


MOST_BYTES = 4 * 2**20
"""Maximum size of a response. A page of a hundred entries of the maximum size exceeds it, and is halved."""

_NOTHING: Json = {}


class _TooLarge(LedgerUnavailable):
    """A response exceeds `MOST_BYTES`."""


class ApiStore:
    """The asset state store of one asset.

    Args:
        url: URL of Airflow.
        token: Token of its REST API.
        asset: Name of the asset.
        snapshot: Whether the first `get` reads all entries, a hundred at a time, for callers that only read
            and need most of them: 14 days are 4,032 entries. Otherwise each `get` reads from Airflow, because
            tasks may write at the same time.

    Raises:
        ConfigurationError: The URL or the token is wrong, or the asset does not exist.
        LedgerUnavailable: Airflow does not answer.
    """

    def __init__(self, url: str, token: str, asset: str, *, snapshot: bool = False) -> None:
        check_url("--api-url", url, example="http://localhost:8080")
        self.name = f"the asset {asset} of {httpx.URL(url).host}"
        self.largest: int | None = LARGEST
        self.lasting = True
        self._token = token
        self._base = f"{url.rstrip('/')}/api/v2"
        # Slow to make, so it is shared; a client for each request then costs almost nothing.
        self._route = Route(self._base)
        self._rows = f"/assets/{self._find(asset)}/state-store"
        # Airflow before 3.3 answers 404 to this call. Later calls may get a 404 for a missing entry.
        self._ask("GET", self._rows, params={"limit": 1, "offset": 0})
        self._snapshot = snapshot
        self._known: dict[str, Any] | None = None

    def get(self, key: str) -> Json | None:
        """Return the value; None if there is none, and an empty object if it is not an object."""
        value = self._all_rows().get(key) if self._snapshot else self._get_row(key)
        return value if isinstance(value, dict) or value is None else {}

    def set(self, key: str, value: Json) -> None:
        """Store a value."""
        self._ask("PUT", self._row(key), json={"value": value})
        if self._known is not None:
            self._known[key] = value

    def delete(self, key: str) -> None:
        """Delete a value."""
        self._ask("DELETE", self._row(key), default=_NOTHING)
        if self._known is not None:
            self._known.pop(key, None)

    def _get_row(self, key: str) -> Any:
        answer = self._ask("GET", self._row(key), default=_NOTHING)
        # An entry can hold null, which this package never writes.
        return None if answer is _NOTHING else answer.get("value") or {}

    def _all_rows(self) -> dict[str, Any]:
        if self._known is None:
            self._known = self._read_all()
        return self._known

    def _row(self, key: str) -> str:
        return f"{self._rows}/{urllib.parse.quote(key)}"

    def _find(self, asset: str) -> int:
        answer = self._ask("GET", "/assets", params={"name_pattern": asset, "limit": PAGE})
        found = [each["id"] for each in answer.get("assets", ()) if each.get("name") == asset]
        if not found:
            raise ConfigurationError(
                "--api-url",
                f"this Airflow has no asset {asset}: check --forge-conn-id and --otlp-conn-id, and whether"
                " the DAG has been parsed",
            )
        return int(found[0])

    def _read_all(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        limit, offset = PAGE, 0
        while True:
            try:
                page = self._ask("GET", self._rows, params={"limit": limit, "offset": offset})
            except _TooLarge:
                if limit == 1:
                    raise
                limit //= 2
                continue
            rows = page.get("asset_state_store", [])
            values |= {row["key"]: row["value"] for row in rows}
            offset += len(rows)
            if not rows or offset >= page.get("total_entries", 0):
                return values

    def _ask(self, method: str, path: str, *, default: Json | None = None, **arguments: Any) -> Json:
        """Return Airflow's response, or `default` if it is a 404."""
        headers = {
            "Authorization": f"Bearer {self._token}",
            "User-Agent": USER_AGENT,
            "Accept-Encoding": ACCEPT_ENCODING,
        }
        try:
            with (
                self._route.client(headers=headers, timeout=TIMEOUT) as client,
                client.stream(method, self._base + path, **arguments) as answer,
            ):
                content = read_body(answer, limit=MOST_BYTES)
        except httpx.RequestError as error:
            raise self._silence(type(error).__name__) from error
        except BodyUnreadable as error:
            kind = _TooLarge if error.too_large else LedgerUnavailable
            raise kind(f"The response of {self.name} cannot be read: {error.reason}. Try again") from error
        if answer.status_code == httpx.codes.NOT_FOUND and default is not None:
            return default
        if not answer.is_success:
            raise self._failure(answer.status_code, content)
        return _object(content)

    def _silence(self, reason: str) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"No answer from {httpx.URL(self._base).host} ({reason}). Check --api-url, and whether Airflow's"
            " API server is running"
        )

    def _failure(self, status: int, content: bytes) -> ConfigurationError | LedgerUnavailable:
        said = f"({status}: {sanitize(content.decode(errors='replace'), [self._token])})"
        if status in (401, 403):
            return ConfigurationError(
                "AIRFLOW_API_TOKEN",
                f"Airflow refuses it {said}. Tokens last a day; POST {self._base.removesuffix('/api/v2')}"
                "/auth/token gives a new one. Its user must be allowed to use assets",
            )
        if status == 404:
            return ConfigurationError(
                "--api-url",
                f"is not Airflow 3.3 or later {said}: earlier versions have no asset state store",
            )
        return LedgerUnavailable(f"Airflow's REST API failed {said}. Check the API server's log")


def _object(content: bytes) -> Json:
    """Return the JSON object of a response; an empty one if there is no content.

    Raises:
        ConfigurationError: The response is not a JSON object.
    """
    try:
        answer = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("--api-url", "is not Airflow: its response is not JSON") from error
    if not isinstance(answer, dict):
        raise ConfigurationError("--api-url", "is not Airflow: its response is not a JSON object")
    return answer

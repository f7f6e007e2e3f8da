"""Airflow's asset state store, reached from outside through the REST API of Airflow 3.3."""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable
from airflow_provider_forge.exchange import ACCEPT_ENCODING, BodyUnreadable, read_body
from airflow_provider_forge.http import USER_AGENT, check_url, sanitize
from airflow_provider_forge.proxies import Route
from airflow_provider_forge.utils.ledger import LARGEST

if TYPE_CHECKING:
    from airflow_provider_forge.otlp.messages import Json

__all__ = ["ApiStore"]

TIMEOUT = 30.0
"""Seconds."""

PAGE = 100
"""Entries that Airflow lists at once by default."""


MOST_BYTES = 4 * 2**20
"""Of an answer. A hundred entries that are as large as they can be are more, and asked for in halves."""

_NOTHING: Json = {}


class _TooLarge(LedgerUnavailable):
    """An answer has more than `MOST_BYTES`."""


class ApiStore:
    """The rows of one asset.

    Args:
        url: Of Airflow.
        token: For its REST API.
        asset: The asset's name.
        snapshot: Whether the first `get` reads all rows, a hundred at a time, for callers that write nothing
            and want most of them: 14 days are 4,032 entries. Otherwise each `get` asks Airflow, because its
            tasks write as well.

    Raises:
        ConfigurationError: The URL or the token is wrong, or there is no such asset.
        LedgerUnavailable: Airflow does not answer.
    """

    def __init__(self, url: str, token: str, asset: str, *, snapshot: bool = False) -> None:
        check_url("--api-url", url, example="http://localhost:8080")
        self.name = f"the asset {asset} of {httpx.URL(url).host}"
        self.largest: int | None = LARGEST
        self.lasting = True
        self._token = token
        self._base = f"{url.rstrip('/')}/api/v2"
        # What makes a client slow to make; without it one for each request costs nothing to speak of.
        self._route = Route(self._base)
        self._rows = f"/assets/{self._find(asset)}/state-store"
        # An Airflow without this store answers 404, as one does that has no such row.
        self._ask("GET", self._rows, params={"limit": 1, "offset": 0})
        self._snapshot = snapshot
        self._known: dict[str, Any] | None = None

    def get(self, key: str) -> Json | None:
        """Return the value; None where there is none, and an empty object where it is of another form."""
        value = self._all_rows().get(key) if self._snapshot else self._get_row(key)
        return value if isinstance(value, dict) or value is None else {}

    def set(self, key: str, value: Json) -> None:
        """Put a value there."""
        self._ask("PUT", self._row(key), json={"value": value})
        if self._known is not None:
            self._known[key] = value

    def delete(self, key: str) -> None:
        """Take a value away."""
        self._ask("DELETE", self._row(key), absent_is=_NOTHING)
        if self._known is not None:
            self._known.pop(key, None)

    def _get_row(self, key: str) -> Any:
        answer = self._ask("GET", self._row(key), absent_is=_NOTHING)
        # A row can hold null, which is no value of ours.
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
                f"that Airflow has no asset {asset}: check --forge-conn-id and --otlp-conn-id, and whether"
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

    def _ask(self, method: str, path: str, *, absent_is: Json | None = None, **arguments: Any) -> Json:
        """Return what Airflow answers, or `absent_is` if it answers 404."""
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
            raise kind(f"The answer of {self.name} cannot be read: {error.reason}. Try it again") from error
        if answer.status_code == httpx.codes.NOT_FOUND and absent_is is not None:
            return absent_is
        if not answer.is_success:
            raise self._failure(answer.status_code, content)
        return _object(content)

    def _silence(self, reason: str) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"No answer from {httpx.URL(self._base).host} ({reason}). Check --api-url, and whether Airflow's"
            " API server runs"
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
                "--api-url", f"is not an Airflow of 3.3 or later {said}: before, it has no asset state store"
            )
        return LedgerUnavailable(f"Airflow's REST API failed {said}. Look at the API server's log")


def _object(content: bytes) -> Json:
    """Return an answer's JSON object; an empty one for no content.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        answer = json.loads(content or b"{}")
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("--api-url", "is no Airflow: its answer is not JSON") from error
    if not isinstance(answer, dict):
        raise ConfigurationError("--api-url", "is no Airflow: its answer is not a JSON object")
    return answer

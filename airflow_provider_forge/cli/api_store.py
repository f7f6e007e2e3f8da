"""Airflow's asset state store, accessed through the REST API of Airflow 3.3 and later."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - msgspec reads the annotations
import json
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import msgspec

from airflow_provider_forge.connections.ledger import LARGEST
from airflow_provider_forge.exceptions import ConfigurationError, LedgerUnavailable
from airflow_provider_forge.exchange import ACCEPT_ENCODING, BodyUnreadable, Wire, read_body
from airflow_provider_forge.http import USER_AGENT, check_url
from airflow_provider_forge.proxies import Route
from airflow_provider_forge.text import get_logger, is_storable, sanitize
from airflow_provider_forge.windows import LIVE_FOR, MAX_WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_forge.otlp.messages import Json

__all__ = ["ApiStore"]

log = get_logger(__name__)

TIMEOUT = 30.0
"""Seconds without data from Airflow."""

CALL_TIMEOUT = 120.0
"""Maximum duration of a call in seconds, even if data trickles in."""

PAGE = 100
"""Number of entries per page, which is Airflow's default."""

MOST_BYTES = 4 * 2**20
"""Maximum size of a response. A page of a hundred entries of the maximum size exceeds it, and is halved."""

Answer = TypeVar("Answer")


class _Asset(msgspec.Struct):
    id: int
    name: str


class _Assets(msgspec.Struct):
    assets: list[_Asset]


class _Value(msgspec.Struct):
    value: Any = None


class _Row(msgspec.Struct):
    key: str
    value: Any = None


class _Page(msgspec.Struct):
    asset_state_store: list[_Row]
    total_entries: int


class _Dag(msgspec.Struct):
    is_paused: bool
    max_active_runs: int | None = None
    next_dagrun_data_interval_start: dt.datetime | None = None


class _Done(msgspec.Struct):
    """The response to a write: any object, or none."""


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
        clock: Returns the current time in seconds, to limit calls.

    Raises:
        ConfigurationError: The URL or the token is wrong, or the asset does not exist.
        LedgerUnavailable: Airflow does not answer.
    """

    def __init__(
        self,
        url: str,
        token: str,
        asset: str,
        *,
        snapshot: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_url("--api-url", url, example="http://localhost:8080")
        if not (token.isascii() and token.isprintable()) or token != token.strip():
            # An error about its encoding would quote it.
            raise ConfigurationError("AIRFLOW_API_TOKEN", "has characters that a header cannot contain")
        self.name = f"the asset {asset} of {httpx.URL(url).host}"
        self.largest: int | None = LARGEST
        self.lasting = True
        self._token = token
        self._clock = clock
        self._base = f"{url.rstrip('/')}/api/v2"
        # Slow to make, so it is shared; a client for each request then costs almost nothing.
        self._route = Route(self._base)
        self._rows = f"/assets/{self._find(asset)}/state-store"
        # Airflow before 3.3 answers 404 to this call. Later calls may get a 404 for a missing entry.
        self._ask("GET", self._rows, _Page, params={"limit": 1, "offset": 0})
        self._snapshot = snapshot
        self._known: dict[str, Any] | None = None

    def get(self, key: str) -> Json | None:
        """Return the value; None if there is none, and an empty object if it is not an object."""
        value = self._all_rows().get(key) if self._snapshot else self._get_row(key)
        is_intact = value is None or (isinstance(value, dict) and is_storable(value))
        return value if is_intact else {}

    def set(self, key: str, value: Json) -> None:
        """Store a value."""
        self._ask("PUT", self._row(key), _Done, json={"value": value})
        if self._known is not None:
            self._known[key] = value

    def delete(self, key: str) -> None:
        """Delete a value."""
        self._find_or_none("DELETE", self._row(key), _Done)
        if self._known is not None:
            self._known.pop(key, None)

    def find_catchup(self, dag_id: str, now: dt.datetime) -> dt.datetime | None:
        """Return the start of the windows that a catchup is about to deliver; None if there is none.

        Args:
            dag_id: Id of the DAG that exports.
            now: Current time, aware.
        """
        try:
            dag = self._find_or_none("GET", f"/dags/{urllib.parse.quote(dag_id)}", _Dag)
        except ConfigurationError:  # its user may be allowed to read assets only
            return None
        if dag is None:
            log.warning("Airflow has no DAG %s (--dag-id): a catchup that fills gaps is not seen", dag_id)
            return None
        start = None if dag.is_paused else dag.next_dagrun_data_interval_start
        if start is None or start > now - LIVE_FOR:
            return None
        # The active runs deliver the windows before.
        return start - (dag.max_active_runs or 0) * MAX_WINDOW

    def _get_row(self, key: str) -> Any:
        answer = self._find_or_none("GET", self._row(key), _Value)
        # An entry can hold null, which this package never writes.
        return None if answer is None else answer.value or {}

    def _all_rows(self) -> dict[str, Any]:
        if self._known is None:
            self._known = self._read_all()
        return self._known

    def _row(self, key: str) -> str:
        return f"{self._rows}/{urllib.parse.quote(key)}"

    def _find(self, asset: str) -> int:
        answer = self._ask("GET", "/assets", _Assets, params={"name_pattern": asset, "limit": PAGE})
        found = [each.id for each in answer.assets if each.name == asset]
        if not found:
            raise ConfigurationError(
                "--api-url",
                f"this Airflow has no asset {asset}: check --forge-conn-id and --otlp-conn-id, and whether"
                " the DAG has been parsed",
            )
        return found[0]

    def _read_all(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        limit, offset = PAGE, 0
        while True:
            try:
                page = self._ask("GET", self._rows, _Page, params={"limit": limit, "offset": offset})
            except _TooLarge:
                if limit == 1:
                    raise
                limit //= 2
                continue
            rows = page.asset_state_store
            values |= {row.key: row.value for row in rows}
            offset += len(rows)
            if not rows or offset >= page.total_entries:
                return values

    def _ask(self, method: str, path: str, kind: type[Answer], **arguments: Any) -> Answer:
        """Return Airflow's response."""
        return self._read(*self._call(method, path, arguments), kind)

    def _find_or_none(self, method: str, path: str, kind: type[Answer]) -> Answer | None:
        """Return Airflow's response; None if it is a 404."""
        status, content = self._call(method, path, {})
        return None if status == httpx.codes.NOT_FOUND else self._read(status, content, kind)

    def _call(self, method: str, path: str, arguments: dict[str, Any]) -> tuple[int, bytes]:
        """Return the status and the body of Airflow's response."""
        headers = {
            "Authorization": f"Bearer {self._token}",
            "User-Agent": USER_AGENT,
            "Accept-Encoding": ACCEPT_ENCODING,
        }
        wire = Wire(self._clock)
        wire.begin(CALL_TIMEOUT)
        arguments["extensions"] = {"trace": wire.trace}
        try:
            with (
                self._route.client(headers=headers, timeout=TIMEOUT) as client,
                client.stream(method, self._base + path, **arguments) as answer,
            ):
                content = read_body(answer, limit=MOST_BYTES)
        except httpx.RequestError as error:
            reason = f"not within {CALL_TIMEOUT:g} s" if wire.expired else type(error).__name__
            raise self._silence(reason) from error
        except BodyUnreadable as error:
            kind = _TooLarge if error.too_large else LedgerUnavailable
            raise kind(f"The response of {self.name} cannot be read: {error.reason}. Try again") from error
        if answer.is_success and not wire.sent:
            raise self._silence("it responded before all of the request was sent")
        return answer.status_code, content

    def _read(self, status: int, content: bytes, kind: type[Answer]) -> Answer:
        if not httpx.codes.is_success(status):
            raise self._failure(status, content)
        try:
            return msgspec.convert(json.loads(content or b"{}"), kind)
        except (ValueError, RecursionError, msgspec.ValidationError) as error:
            raise ConfigurationError(
                "--api-url",
                f"is not Airflow 3.3 or later: its response is not Airflow's ({sanitize(error)})",
            ) from error

    def _silence(self, reason: str) -> LedgerUnavailable:
        server = httpx.URL(self._base).netloc.decode()
        return LedgerUnavailable(
            f"No answer from {server} ({reason}). Check --api-url, and whether Airflow's API server"
            " is running"
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

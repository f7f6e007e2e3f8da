"""A stand-in for Atlassian's GraphQL gateway, limited to the fields that app metrics and usage need."""

from __future__ import annotations

import base64
import hmac
import json
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from airflow_provider_forge.sandbox import control, encode, schema
from airflow_provider_forge.sandbox.call_log import CallLog, CallRecord
from airflow_provider_forge.sandbox.catalogue import METRICS, Sample
from airflow_provider_forge.sandbox.environments import DEFAULT_APP, Directory, Environment, app_uuid
from airflow_provider_forge.sandbox.fault_replies import apply_fault, apply_to_body, fault_headers
from airflow_provider_forge.sandbox.faults import GATEWAY_KINDS, FaultInjection, FaultPlan
from airflow_provider_forge.sandbox.limits import RateLimiter, over_limit
from airflow_provider_forge.sandbox.points import Point, points_of
from airflow_provider_forge.sandbox.rate_limit_replies import rate_limit_headers
from airflow_provider_forge.sandbox.resolvers import Account, Call
from airflow_provider_forge.sandbox.scenario import Scenario
from airflow_provider_forge.sandbox.schema import InvalidQueryError
from airflow_provider_forge.sandbox.server import LocalServer, Reply, Request
from airflow_provider_forge.sandbox.truth import Truth
from airflow_provider_forge.sandbox.usage import RESOURCES, UsageAmount, UsageTruth
from airflow_provider_forge.sandbox.usage_resolvers import OPERATION, days_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

__all__ = ["SandboxGateway"]

_PATH = "/graphql"
# The default User-Agent headers of HTTP libraries.
_USER_AGENT_OF_A_LIBRARY = re.compile(
    "(python-httpx|python-requests|python-urllib3?|curl|go-http-client|axios|okhttp)/", re.IGNORECASE
)
# Faults that still send the data in full, without errors.
_SERVED_DESPITE = frozenset({"slow", "duplicate_points", "empty"})


class SandboxGateway(FaultInjection, LocalServer):
    """A gateway on a local port that enforces the real schema, headers and limits.

    Args:
        scenario: Properties of the data and behavior of the gateway.
        email: Email of the only account.
        api_token: API token of the account.
        rate_limit_calls: Calls admitted per period; 0 or None for no limit.
        rate_limit_seconds: Length of that period.
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.
        clock: Returns seconds since the epoch; used for limits, windows and visibility.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        email: str = "dev@example.com",
        api_token: str = "sandbox-token",  # noqa: S107 - valid for the sandbox only
        rate_limit_calls: int | None = 5,
        rate_limit_seconds: float = 60.0,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(host, port)
        self.scenario = scenario or Scenario()
        self.email = email
        self.api_token = api_token
        self.rate_limit_calls = rate_limit_calls
        self.rate_limit_seconds = rate_limit_seconds
        self._clock = clock
        fixed = self.scenario.rate_limit_window == "fixed"
        self._limiter = RateLimiter(rate_limit_calls, rate_limit_seconds, fixed=fixed)
        # Usage has a budget of its own, of the same size.
        self._usage_limiter = RateLimiter(rate_limit_calls, rate_limit_seconds, fixed=fixed)
        self._truth = Truth(self.scenario)
        self._usage = UsageTruth(self.scenario)
        self._directory = Directory()
        self._faults = FaultPlan(GATEWAY_KINDS)
        self._account = Account(self.scenario, self._truth, self._usage, self._directory, self._faults)
        self._call_log = CallLog()

    @property
    def url(self) -> str:
        """URL for queries; known once the server has been started."""
        return self.address + _PATH

    @property
    def app_id(self) -> str:
        """ARI of the default app."""
        return f"ari:cloud:ecosystem::app/{DEFAULT_APP}"

    @property
    def environments(self) -> tuple[Environment, ...]:
        """The default app's environments."""
        return self.environments_of()

    def environments_of(self, app_id: str | None = None) -> tuple[Environment, ...]:
        """Return an app's environments, given its ARI or UUID."""
        return self._directory.of(_uuid(app_id))

    def rename_environment(self, environment_id: str, key: str) -> None:
        """Change the key of an environment; its data stays the same."""
        self._directory.rename(environment_id, key)

    @property
    def calls(self) -> list[CallRecord]:
        """All calls to `/graphql` so far, including unauthorized ones."""
        return self._call_log.calls()

    @property
    def violations(self) -> int:
        """Number of calls rejected as over the limit."""
        return sum(call.outcome == "refused" for call in self.calls)

    def over_limit(self, calls: int | None = None, seconds: float | None = None) -> int:
        """Count the periods with more authenticated calls than the limit, by the times of receipt.

        Args:
            calls: The limit; by default the gateway's.
            seconds: Length of a period in seconds; by default the gateway's.
        """
        limit = self.rate_limit_calls if calls is None else calls
        if not limit:
            return 0
        times: dict[bool, list[float]] = {True: [], False: []}  # each of the two budgets
        for call in self.calls:
            if call.outcome != "unauthorized":
                times[call.operation == OPERATION].append(call.received_at)
        return sum(over_limit(each, limit, seconds or self.rate_limit_seconds) for each in times.values())

    def generated(
        self,
        start: datetime,
        end: datetime,
        app_id: str | None = None,
        environments: Iterable[str] | None = None,
        metrics: Iterable[str] | None = None,
    ) -> list[Point]:
        """Return the final form of all points generated for [start, end), whether requested or not.

        Args:
            start: With a time zone.
            end: With a time zone.
            app_id: ARI or UUID; by default the default app.
            environments: UUIDs or keys; all by default.
            metrics: Labels, as in the schema; all by default.
        """
        chosen = self._chosen(app_id, environments)
        labels = _labels(metrics)
        return self._points(self._truth.generated(_uuid(app_id), chosen, labels, start, end))

    def visible(
        self,
        start: datetime,
        end: datetime,
        at: datetime,
        app_id: str | None = None,
        environments: Iterable[str] | None = None,
        metrics: Iterable[str] | None = None,
    ) -> list[Point]:
        """Return the points of [start, end) that are visible at `at`; the rest as for `generated`."""
        chosen = self._chosen(app_id, environments)
        labels = _labels(metrics)
        samples = self._truth.visible(_uuid(app_id), chosen, labels, start, end, at.timestamp())
        return self._points(samples)

    def served(
        self,
        start: datetime,
        end: datetime,
        app_id: str | None = None,
        environments: Iterable[str] | None = None,
        metrics: Iterable[str] | None = None,
    ) -> list[Point]:
        """Return the points of [start, end) in all responses sent in full, as often as they were sent.

        A response counts once the gateway has sent it, even if the client was gone. Responses with both data
        and `errors` do not count.
        """
        app, labels = _uuid(app_id), _labels(metrics)
        identifiers = {environment.id for environment in self._chosen(app_id, environments)}
        return self._points(
            sample
            for sample in self._served_samples(app)
            if start.timestamp() <= sample.minute * 60 < end.timestamp()
            and sample.environment in identifiers
            and sample.label in labels
        )

    def usage(
        self,
        start: datetime,
        end: datetime,
        *,
        app_id: str | None = None,
        environments: Iterable[str] | None = None,
        resources: Iterable[str] | None = None,
        by_site: bool = False,
        at: datetime | None = None,
    ) -> list[UsageAmount]:
        """Return the true usage of the days that begin in [start, end), by environment or by site.

        Args:
            start: With a time zone.
            end: With a time zone.
            app_id: ARI or UUID; by default the default app.
            environments: UUIDs or keys; all by default.
            resources: Labels, as in the schema; all by default.
            by_site: Whether to split it by site instead of by environment.
            at: As visible at this time; None for final amounts.
        """
        chosen = self._chosen(app_id, environments)
        moment = None if at is None else at.timestamp()
        return [
            amount
            for resource in (RESOURCES if resources is None else resources)
            for amount in self._usage.amounts(
                _uuid(app_id), chosen, resource, days_of(start, end), by_site=by_site, at=moment
            )
        ]

    def _served_samples(self, app: str) -> Iterator[Sample]:
        for served in self._call_log.served():
            if served.app == app:
                asked = (served.app, served.environments, served.metrics, served.start, served.end)
                yield from self._truth.answer(*asked, served.at) * served.copies

    def _chosen(self, app_id: str | None, environments: Iterable[str] | None) -> tuple[Environment, ...]:
        every = self.environments_of(app_id)
        if environments is None:
            return every
        wanted = set(environments)
        unknown = wanted - {name for each in every for name in (each.id, each.key)}
        if unknown:
            raise ValueError(f"the app has no environments {sorted(unknown)}")
        return tuple(each for each in every if wanted & {each.id, each.key})

    def _points(self, samples: Iterable[Sample]) -> list[Point]:
        return points_of([encode.to_message(samples, self.scenario.latency_shape)])

    def respond(self, request: Request) -> Reply:
        """Reply to a query, or to a control request."""
        if request.path != _PATH:
            return control.gateway_reply(self, request)
        if request.method != "POST":
            return Reply.of_json({"message": "POST a GraphQL query"}, 405, (("Allow", "POST"),))
        call = Call(self._account, self._clock())
        request_id = uuid.uuid4().hex
        if not self._is_authorized(request):
            call.outcome = "unauthorized"
            payload = {"code": 401, "message": "Unauthorized; scope does not match"}
            reply = self._reply(payload, 401, request_id)
        else:
            limiter = self._usage_limiter if OPERATION.encode() in request.body else self._limiter
            call.now, call.wait = limiter.admit(self._clock)
            refused = call.wait > 0
            reply = self._answer(request, call, request_id)
            if refused:
                call.outcome = "refused"
        self._record(call, request, reply, request_id)
        return reply

    def _is_authorized(self, request: Request) -> bool:
        expected = base64.b64encode(f"{self.email}:{self.api_token}".encode()).decode()
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "basic" and hmac.compare_digest(given.strip().encode(), expected.encode())

    def _answer(self, request: Request, call: Call, request_id: str) -> Reply:
        status = 200
        headers: tuple[tuple[str, str], ...] = ()
        try:
            payload = _executed(request, call)
        except InvalidQueryError as error:
            call.outcome = "invalid" if error.status == 200 else "bad_request"
            payload, status = {"data": None, "errors": error.errors}, error.status
        channel = self.scenario.rate_limit_channel
        if call.wait and not (channel == "query_error" and call.operation == "appMetrics"):
            headers = rate_limit_headers(channel, call.now, call.wait)
            status = 429 if headers else 200
            refusal = schema.refusal("Rate limit exceeded", "RateLimited", "RATE_LIMITED", 429)
            payload = {"data": None, "errors": [refusal]}
        fault = call.fault
        if fault is not None:
            call.outcome = f"fault:{fault.kind}"
            payload = apply_to_body(fault, payload, call.path)
            if fault.kind in {"errors", "errors_with_data"} and fault.status:
                status = fault.status
        elif call.outcome == "ok" and "errors" in payload:
            call.outcome = "errors"
        reply = self._reply(payload, status, request_id, (*headers, *fault_headers(fault)))
        return reply if fault is None else apply_fault(fault, reply)

    def _reply(
        self,
        payload: dict[str, Any],
        status: int,
        request_id: str,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Reply:
        places = self.scenario.request_id_in
        if "body" in places:
            payload = {**payload, "extensions": {"gateway": {"request_id": request_id}}}
        names = sorted(places - {"body"})
        return Reply.of_json(payload, status, (*((name, request_id) for name in names), *headers))

    def _record(self, call: Call, request: Request, reply: Reply, request_id: str) -> None:
        in_full = call.fault is None or call.fault.kind in _SERVED_DESPITE
        record = CallRecord(
            received_at=call.now,
            operation=call.operation,
            app_id=call.app_id,
            start=call.start,
            end=call.end,
            environments=call.environments,
            metrics=call.metrics,
            outcome=call.outcome,
            status=0 if reply.delivery in {"hang", "reset"} else reply.status,
            points=call.points,
            request_id=request_id,
            user_agent=request.headers.get("User-Agent"),
            experimental_api=request.headers.get("X-ExperimentalApi"),
        )
        served = call.served if in_full else None
        self._call_log.add(record, served)


def _executed(request: Request, call: Call) -> dict[str, Any]:
    body = _checked_body(request)
    document = schema.parse_document(body["query"], call.account.scenario.unknown_metrics)
    names = schema.fields_of(document)
    call.operation = next((name for name in ("appMetrics", OPERATION, "app") if name in names), names[0])
    experimental = {"forgeMetrics", "devConsole"}.intersection(names)
    if experimental and request.headers.get("X-ExperimentalApi") != "ForgeMetricsQuery":
        [name, *_] = sorted(experimental)
        message = f"{name} is experimental: send the header X-ExperimentalApi: ForgeMetricsQuery"
        raise InvalidQueryError([schema.refusal(message, "ValidationError", "EXPERIMENTAL_API", 400)])
    payload = schema.execute(document, body.get("variables") or {}, body.get("operationName"), call)
    call.pick_fault()
    return payload


def _checked_body(request: Request) -> dict[str, Any]:
    user_agent = request.headers.get("User-Agent", "")
    if not user_agent.strip() or _USER_AGENT_OF_A_LIBRARY.match(user_agent):
        raise _bad_request(f"send a User-Agent of your own, not {user_agent!r}", "INVALID_USER_AGENT", 400)
    if request.headers.get_content_type() != "application/json":
        raise _bad_request("send Content-Type: application/json", "UNSUPPORTED_MEDIA_TYPE", 415)
    try:
        body = json.loads(request.body)
    except ValueError as error:
        raise _bad_request(f"the body is not JSON: {error}", "BAD_REQUEST", 400) from error
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        raise _bad_request("the body must be an object with a string 'query'", "BAD_REQUEST", 400)
    if not isinstance(body.get("variables") or {}, dict):
        raise _bad_request("'variables' must be an object", "BAD_REQUEST", 400)
    return body


def _bad_request(message: str, error_type: str, status: int) -> InvalidQueryError:
    return InvalidQueryError([schema.refusal(message, "BadRequest", error_type, status)], status)


def _uuid(app_id: str | None) -> str:
    return DEFAULT_APP if app_id is None else app_uuid(app_id) or app_id


def _labels(metrics: Iterable[str] | None) -> Sequence[str]:
    return tuple(METRICS) if metrics is None else tuple(metrics)

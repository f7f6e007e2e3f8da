"""What the gateway can do wrong: nothing is lost, nothing comes twice, and the error says what to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_forge.exceptions import (
    BrokenAnswer,
    CredentialsBlocked,
    GatewayUnavailable,
    RateLimited,
    WindowTooLarge,
)
from airflow_provider_forge.gateway.client import ATTEMPTS, UNKNOWN_ATTEMPTS
from airflow_provider_forge.sandbox import Fault, SandboxGateway, Scenario
from airflow_provider_forge.windows import Window
from tests.faults.lines import FIRST, INTERVAL, LAST, LITTLE_TRAFFIC, MIDDLE, Line


@dataclass(frozen=True)
class Row:
    """A fault, and what the task makes of it.

    Attributes:
        fault: Of the gateway, whenever it is asked for the middle window.
        error: How the try fails.
        says: What its message says.
        answered: Whether an answer came that has a request id.
        calls: How many the try makes.
        new_token: Whether the next try needs another token.
    """

    fault: Fault
    error: type[Exception]
    says: str
    answered: bool = True
    calls: int = 1
    new_token: bool = False


ASKED_AGAIN = r"The gateway failed.*\. See https://developer\.status\.atlassian\.com"
NO_ANSWER = r"^No answer from .*If this persists, check the Forge Connection's host, timeout and network"
CREDENTIALS = r"^Atlassian refused the credentials .*password \(its API token\).*create a new one"
FORBIDDEN = r"^Atlassian does not let this account read this app .*must belong to the account that owns"
TOO_MANY = r"^Atlassian counted too many calls .*Another program with the same account"
CUT_OFF = r"^The gateway's response is cut off or not GraphQL .*check the Connection's host"
UNKNOWN = r"^The gateway failed in a way that this version does not know: .*counts as a refusal"
NULL = r"^The gateway returned null as {}\. If this persists, .*developer console"

ROWS = {
    "reset": Row(Fault("reset"), GatewayUnavailable, NO_ANSWER, answered=False),
    "reset mid-body": Row(Fault("reset_mid_body"), GatewayUnavailable, NO_ANSWER),
    "connection closed mid-body": Row(Fault("truncate"), GatewayUnavailable, NO_ANSWER),
    "truncated JSON": Row(Fault("body", body='{"data":{"ecosystem":{"forg'), BrokenAnswer, CUT_OFF),
    "no body": Row(Fault("body", body=""), BrokenAnswer, CUT_OFF),
    "HTML with 200": Row(Fault("html", status=200), BrokenAnswer, CUT_OFF),
    "HTML with 503": Row(Fault("html", status=503), GatewayUnavailable, ASKED_AGAIN),
    "401": Row(Fault("status", status=401), AirflowFailException, CREDENTIALS, new_token=True),
    "403": Row(Fault("status", status=403), AirflowFailException, FORBIDDEN),
    "404": Row(Fault("status", status=404), AirflowFailException, "Check the Forge Connection's host"),
    "307": Row(Fault("redirect"), AirflowFailException, "Check the Forge Connection's host"),
    "429": Row(Fault("status", status=429), RateLimited, TOO_MANY, calls=ATTEMPTS),
    "500": Row(Fault("status", status=500), GatewayUnavailable, ASKED_AGAIN),
    "503": Row(Fault("status", status=503), GatewayUnavailable, ASKED_AGAIN),
    "errors": Row(Fault("errors"), GatewayUnavailable, ASKED_AGAIN),
    "errors, with 500": Row(Fault("errors", status=500), GatewayUnavailable, ASKED_AGAIN),
    "errors beside the data": Row(Fault("errors_with_data"), GatewayUnavailable, ASKED_AGAIN),
    "errors beside null": Row(Fault("errors_with_data", level="appMetrics"), GatewayUnavailable, ASKED_AGAIN),
    "errors without extensions": Row(Fault("errors", extensions="null"), GatewayUnavailable, ASKED_AGAIN),
    "errors, 400": Row(
        Fault("errors", status_code=400),
        AirflowFailException,
        r"refused the query .*Check the requested metrics",
        # It names no metric, so the published ones are tried alone.
        calls=2,
    ),
    "errors, 401": Row(Fault("errors", status_code=401), AirflowFailException, CREDENTIALS, new_token=True),
    "errors, 403": Row(Fault("errors", status_code=403), AirflowFailException, FORBIDDEN),
    "errors, 429": Row(Fault("errors", status_code=429), RateLimited, TOO_MANY, calls=ATTEMPTS),
    "errors, 429 beside the data": Row(
        Fault("errors_with_data", status_code=429), RateLimited, TOO_MANY, calls=ATTEMPTS
    ),
    "QueryError": Row(Fault("query_error", identifier="x"), GatewayUnavailable, ASKED_AGAIN),
    "QueryError, 401": Row(
        Fault("query_error", status_code=401), AirflowFailException, CREDENTIALS, new_token=True
    ),
    "QueryError, 403": Row(Fault("query_error", status_code=403), AirflowFailException, FORBIDDEN),
    "QueryError, 429": Row(Fault("query_error", status_code=429), RateLimited, TOO_MANY, calls=ATTEMPTS),
    "QueryError without message": Row(
        Fault("query_error", message=None, identifier="x"), GatewayUnavailable, ASKED_AGAIN
    ),
    "QueryError without identifier": Row(Fault("query_error"), GatewayUnavailable, ASKED_AGAIN),
    "QueryError, extensions null": Row(
        Fault("query_error", extensions="null"), GatewayUnavailable, ASKED_AGAIN
    ),
    "QueryError, extensions empty": Row(
        Fault("query_error", extensions="empty"), GatewayUnavailable, ASKED_AGAIN
    ),
    "QueryError without errorType": Row(
        Fault("query_error", error_type=None), GatewayUnavailable, ASKED_AGAIN
    ),
    "QueryError, 429 without errorType": Row(
        Fault("query_error", error_type=None, status_code=429), RateLimited, TOO_MANY, calls=ATTEMPTS
    ),
    # A type that nobody knows, without a status: more likely a refusal than an outage.
    "QueryError without statusCode": Row(
        Fault("query_error", status_code=None), AirflowFailException, UNKNOWN, calls=UNKNOWN_ATTEMPTS
    ),
    "errors of an unknown classification": Row(
        Fault("errors", status_code=None, error_type=None, classification="NewIn2031"),
        AirflowFailException,
        UNKNOWN,
        calls=UNKNOWN_ATTEMPTS,
    ),
    "a token without the scope": Row(
        Fault("errors", status_code=None, error_type=None, classification="InsufficientOAuthScopes"),
        AirflowFailException,
        r"^The API token lacks a scope .*Create a token without scopes at https://id\.",
    ),
    "a page of HTML with 403": Row(
        Fault("html", status=403), GatewayUnavailable, r"^A page of HTML refused .*firewall.*allowlist"
    ),
    "403 of an IP allowlist": Row(
        Fault("status", status=403, body='{"errorMessages": ["Not on the list"]}'),
        AirflowFailException,
        r"^The call was refused before it reached .*Not on the list.*IP allowlist",
    ),
    "QueryError of a type without statusCode": Row(
        Fault("query_error", status_code=None, error_type="UNAUTHENTICATED"),
        AirflowFailException,
        CREDENTIALS,
        new_token=True,
    ),
    "QueryError with nothing at all": Row(
        Fault("query_error", message=None, error_type=None, status_code=None), GatewayUnavailable, ASKED_AGAIN
    ),
    "null data": Row(Fault("null", level="data"), BrokenAnswer, NULL.format("data")),
    "null ecosystem": Row(Fault("null", level="ecosystem"), BrokenAnswer, NULL.format("ecosystem")),
    "null forgeMetrics": Row(Fault("null", level="forgeMetrics"), BrokenAnswer, NULL.format("forgeMetrics")),
    "null appMetrics": Row(Fault("null", level="appMetrics"), BrokenAnswer, NULL.format("appMetrics")),
    "null resourceMetrics": Row(Fault("null", level="resourceMetrics"), GatewayUnavailable, ASKED_AGAIN),
}


def when_asked(fault: Fault, window: Window = MIDDLE) -> Fault:
    """Return the fault for calls that ask for some of a window."""
    return replace(fault, operation="appMetrics", start=window.start, end=window.end)


def part(first: int, last: int) -> Window:
    """Return the minutes from `first` to before `last` of the middle window."""
    return Window(MIDDLE.start + timedelta(minutes=first), MIDDLE.start + timedelta(minutes=last))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_task_fails_with_a_remedy_and_the_next_try_delivers_the_rest(line, row):
    line.gateway.add_fault(when_asked(row.fault))
    with pytest.raises(row.error, match=row.says) as failed:
        line.run()
    # Waiting is Airflow's: a task that asked again itself would use up the account's budget. But for calls
    # that did not count, and which somebody else's calls have cost.
    assert line.asked == [FIRST, *[MIDDLE] * row.calls]
    if row.answered:
        assert str(failed.value).endswith(f"(request id {line.gateway.calls[-1].request_id})")
    assert line.received == line.generated(FIRST)
    line.gateway.clear_faults()
    if row.new_token:
        with pytest.raises(CredentialsBlocked, match="no call is made with them") as blocked:
            line.run()
        assert 0 < blocked.value.retry_after <= 15 * 60
        line.gateway.api_token = "renewed"
        line.connect()
    summary = line.run()
    # It begins with the window that failed, and tells of the whole run.
    assert [window for window in line.asked if window != MIDDLE] == [FIRST, LAST]
    assert (summary["sent"], summary["unchanged"]) == (line.generated().total(), 0)
    assert line.received == line.generated()


@pytest.fixture
def line_to(sink, tmp_path, connect):
    """Return a function that makes a line from another gateway."""

    def line_to(gateway: SandboxGateway, **forge) -> Line:
        made = Line(gateway, sink, tmp_path, connect)
        made.connect(forge=forge)
        return made

    return line_to


@pytest.mark.parametrize(
    ("channel", "least", "most"),
    [
        ("seconds", 300, 300),
        # These name a moment, and what they say is rounded up: to seconds, and to minutes.
        ("http_date", 200, 301),
        ("iso", 200, 361),
        ("reset", 200, 361),
    ],
)
def test_a_refusal_over_the_limit_has_a_retry_after(line_to, channel, least, most):
    with SandboxGateway(replace(LITTLE_TRAFFIC, rate_limit_channel=channel), rate_limit_calls=0) as gateway:
        line = line_to(gateway)
        gateway.add_fault(when_asked(Fault("rate_limited", seconds=300, max_times=1)))
        began = pendulum.now("UTC")
        with pytest.raises(TaskDeferred) as deferred:
            line.run(deferrable=True)
        ended = pendulum.now("UTC")
        # It sleeps for the last minute, once it has a place. When it was refused is known by no more than
        # that it was in between.
        moment = deferred.value.trigger.moment
        assert began.add(seconds=least - 60) <= moment <= ended.add(seconds=most - 60 + 1)
        assert line.received == line.generated(FIRST)


@pytest.mark.parametrize("channel", ["seconds", "query_error", "errors"])
def test_a_short_wait_over_the_limit_costs_no_try(line_to, channel):
    """The last two say nothing of when: then it is the account's own span."""
    with SandboxGateway(replace(LITTLE_TRAFFIC, rate_limit_channel=channel), rate_limit_calls=0) as gateway:
        line = line_to(gateway)
        gateway.add_fault(when_asked(Fault("rate_limited", seconds=1, max_times=1)))
        line.run()
        assert line.asked == [FIRST, MIDDLE, MIDDLE, LAST]
        assert line.received == line.generated()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("status", status=503), GatewayUnavailable),
        (Fault("status", status=401), AirflowFailException),
        (Fault("null", level="app"), AirflowFailException),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else value.__name__,
)
def test_a_failed_look_up_is_repeated_by_the_next_try(line, fault, error):
    line.gateway.add_fault(replace(fault, operation="app"))
    with pytest.raises(error):
        line.run()
    assert line.asked == []
    line.gateway.clear_faults()
    line.gateway.api_token = "renewed"
    line.connect()
    line.run()
    assert line.received == line.generated()


TOO_MUCH = {
    "hang": Fault("hang"),
    "408": Fault("status", status=408),
    "413": Fault("status", status=413),
    "504": Fault("status", status=504),
    "504 in HTML": Fault("html", status=504),
    "complexity": Fault("errors", status_code=400, error_type="QUERY_COMPLEXITY_EXCEEDED"),
    "complexity, by a classification": Fault(
        "errors", status_code=None, error_type=None, classification="ExecutionAborted"
    ),
    "QueryError, 504": Fault("query_error", status_code=504),
    "QueryError, a time-out by its type": Fault("query_error", status_code=None, error_type="TIMEOUT"),
}


def patience_with(fault: Fault) -> dict[str, int]:
    """Return a time-out that a hang has to wait for, and that nothing else comes near, on a busy machine."""
    return {"timeout": 2 if fault.kind == "hang" else 30}


@pytest.mark.parametrize("fault", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_window_that_is_too_large_is_fetched_in_halves(line, fault, caplog):
    line.connect(forge=patience_with(fault))
    line.gateway.add_fault(replace(when_asked(fault), longer_than=7.5 * 60))
    summary = line.run()
    assert line.asked == [FIRST, MIDDLE, part(0, 7), part(7, 15), part(7, 11), part(11, 15), LAST]
    assert line.received == line.generated()
    assert summary["calls"] == 5
    assert caplog.text.count("requesting its two halves instead") == 2
    # It is asked in whole windows now, and what was delivered in parts is known all the same.
    line.gateway.clear_faults()
    line.assert_nothing_left()


def test_the_halves_of_a_window_keep_to_the_rate_limit(line_to):
    # The Connection's span is the longer one: the gateway counts arrivals, and this machine may be busy.
    with SandboxGateway(LITTLE_TRAFFIC, rate_limit_calls=10, rate_limit_seconds=0.3) as gateway:
        line = line_to(gateway, rate_limit_calls=10, rate_limit_seconds=1.2)
        gateway.add_fault(replace(when_asked(Fault("status", status=504)), longer_than=60))
        summary = line.run(MIDDLE)
        minutes = [part(minute, minute + 1) for minute in range(15)]
        assert [window for window in line.asked if window in minutes] == minutes
        assert summary["calls"] == 15
        assert (gateway.violations, gateway.over_limit()) == (0, 0)
        assert line.received == line.generated(MIDDLE)


@pytest.mark.parametrize(
    ("fault", "interval"),
    # Each hang takes as long as the time-out.
    [(Fault("status", status=504), INTERVAL), (Fault("hang"), part(12, 15))],
    ids=["504", "hang"],
)
def test_a_minute_that_is_too_large_fails_the_try_but_not_earlier_windows(line, fault, interval):
    line.connect(forge=patience_with(fault))
    line.gateway.add_fault(when_asked(fault, part(13, 14)))
    with pytest.raises(WindowTooLarge, match=r"even a minute is too large, fetch fewer environments"):
        line.run(interval)
    assert line.asked[-1] == part(13, 14)
    assert line.received == line.generated(Window(interval.start, part(13, 14).start))
    line.gateway.clear_faults()
    line.run()
    assert line.received == line.generated()


ODDITIES = ("inclusive_ends", "points_outside_window", "unaligned_points", "exact_duplicates")


@pytest.mark.parametrize("odd", [*([name] for name in ODDITIES), ODDITIES], ids="+".join)
def test_a_point_that_several_parts_hold_is_sent_once(line_to, odd):
    scenario = replace(LITTLE_TRAFFIC, **dict.fromkeys(odd, True))
    with SandboxGateway(scenario, rate_limit_calls=0) as gateway:
        line = line_to(gateway)
        gateway.add_fault(replace(when_asked(Fault("status", status=504)), longer_than=240))
        line.run()
        minute = timedelta(minutes=1)
        around = line.generated(Window(INTERVAL.start - minute, INTERVAL.end + minute))
        assert line.generated() <= line.received <= around
        gateway.clear_faults()
        line.assert_nothing_left()


def test_points_missing_from_a_response_are_sent_once_they_arrive(line):
    line.gateway.add_fault(when_asked(Fault("empty")))
    assert line.run()["empty"] == 1
    line.gateway.clear_faults()
    assert line.run()["sent"] == line.generated(MIDDLE).total()
    assert line.received == line.generated()


def test_every_copy_of_a_point_that_was_served_is_sent_once(line):
    line.gateway.add_fault(when_asked(Fault("duplicate_points")))
    line.run()
    served = line.generated() + line.generated(MIDDLE)
    assert line.received == served
    line.assert_nothing_left()
    line.gateway.clear_faults()
    line.assert_nothing_left()


def test_a_copy_that_is_served_later_is_sent_then(line):
    line.run()
    line.gateway.add_fault(when_asked(Fault("duplicate_points")))
    summary = line.run()
    assert summary["sent"] == line.generated(MIDDLE).total()
    assert line.received == line.generated() + line.generated(MIDDLE)
    line.assert_nothing_left()


def test_points_that_really_repeat_are_sent_as_often_as_they_are_served(line_to):
    label = "CONTAINER_CPU_USAGE_PERCENTAGE"
    with SandboxGateway(Scenario(repeated_container_points=True), rate_limit_calls=0) as gateway:
        line = line_to(gateway, metrics=[label])
        line.run(MIDDLE)
        assert line.received == line.generated(MIDDLE, metrics=[label])
        series = {(point.attributes, point.time) for point in line.received}
        assert line.received.total() == 4 * len(series)
        line.assert_nothing_left(MIDDLE)

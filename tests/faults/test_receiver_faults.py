"""What the receiver can do wrong: nothing is lost, and twice comes only what it stored without saying so."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_forge.exceptions import ReceiverUnavailable
from airflow_provider_forge.sandbox import Fault, SandboxGateway
from tests.faults.lines import FIRST, LAST, LITTLE_TRAFFIC, MIDDLE, Line


@dataclass(frozen=True)
class Row:
    """A fault, and what the task makes of it.

    Attributes:
        fault: Of the receiver, from the middle window on.
        error: How the try fails.
        says: What its message says.
        retry_after: What the receiver said of when to come back.
        unknown: Whether the points may have been stored, as far as the task can know.
        stored: Whether they were.
        otlp: Extras of the OTLP Connection.
    """

    fault: Fault
    error: type[Exception]
    says: str
    retry_after: float | None = None
    unknown: bool = False
    stored: bool = False
    otlp: dict[str, Any] = field(default_factory=dict)


NO_ANSWER = r"^No answer from .*\. If this persists, check the OTLP Connection's host"
BUSY = r" answered {}(?! to )"
FORBIDDEN = r" answered {}.*, a status that OTLP forbids retrying: .*{}"
NOT_KNOWN = "sent before, and it is not known whether they arrived"


def silent(kind: str, *, stored: bool = False, **otlp: Any) -> Row:
    return Row(Fault(kind), ReceiverUnavailable, NO_ANSWER, unknown=True, stored=stored, otlp=otlp)


def busy(status: int, *, retry_after: str | None = None, unknown: bool = False) -> Row:
    fault = Fault("status", status=status, retry_after=retry_after)
    seconds = None if retry_after is None else float(retry_after)
    return Row(fault, ReceiverUnavailable, BUSY.format(status), seconds, unknown=unknown)


def refused(status: int, remedy: str, *, kind: str = "status", unknown: bool = False) -> Row:
    says = FORBIDDEN.format(status, remedy)
    return Row(Fault(kind, status=status), AirflowFailException, says, unknown=unknown)


ROWS = {
    "hang": silent("hang", timeout=1),
    "hang after it stored": silent("hang_after", stored=True, timeout=1),
    "reset before": silent("reset_before"),
    "reset after it stored": silent("reset_after", stored=True),
    "302": refused(
        302, "the receiver has moved: set the OTLP Connection's host to its new URL", kind="redirect"
    ),
    "400": refused(400, "try the other protocol, or check the receiver's log"),
    "401": refused(401, "check the OTLP Connection's password and its extra auth_header"),
    "403": refused(403, "check the OTLP Connection's password and its extra auth_header"),
    "404": refused(404, "check the path in the OTLP Connection's host: /v1/metrics is added"),
    "405": refused(405, "check the path in the OTLP Connection's host: /v1/metrics is added"),
    "413": Row(
        Fault("status", status=413),
        AirflowFailException,
        r" answered 413 .*if even single points are too large, raise the receiver's limit",
    ),
    "415": refused(415, "set the OTLP Connection's extra protocol"),
    "429": busy(429),
    "429 with Retry-After": busy(429, retry_after="7"),
    "500": refused(500, "check the receiver's log", unknown=True),
    "502": busy(502, unknown=True),
    "502 in HTML": Row(Fault("html", status=502), ReceiverUnavailable, BUSY.format(502), unknown=True),
    "503": busy(503),
    "503 with Retry-After": busy(503, retry_after="7"),
    "504": busy(504, unknown=True),
    "200 with HTML": Row(
        Fault("html", status=200),
        AirflowFailException,
        "page of HTML or XML, not an OTLP response, so the points may not have been stored: check",
        unknown=True,
    ),
}


def from_the_middle_on(fault: Fault) -> Fault:
    return replace(fault, calls=frozenset(range(2, 10_000)))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_task_fails_with_a_remedy_and_the_next_try_delivers_the_rest(line, row, caplog):
    middle = line.generated(MIDDLE)
    line.connect(otlp=row.otlp)
    line.sink.add_fault(from_the_middle_on(row.fault))
    with pytest.raises(row.error, match=row.says) as failed:
        line.run()
    if row.error is ReceiverUnavailable:
        assert failed.value.retry_after == row.retry_after
    stored = middle if row.stored else type(middle)()
    assert line.received == line.generated(FIRST) + stored
    line.sink.clear_faults()
    caplog.clear()
    summary = line.run()
    assert line.received == line.generated() + stored
    # A retry goes on where the try before it ended, and its summary has the points of both.
    assert summary["sent"] + summary["unchanged"] == line.generated().total()
    assert summary["ambiguous"] == (middle.total() if row.unknown else 0)
    warned = f"{middle.total()} points were {NOT_KNOWN}: sent again, so one duplicate of each is possible"
    assert (warned in caplog.text) is row.unknown
    line.assert_nothing_left()


class GatewayWithAnEar(SandboxGateway):
    """Says when it is asked."""

    def respond(self, request):
        reply = super().respond(request)
        self.asked(len([call for call in self.calls if call.operation == "appMetrics"]))
        return reply


def test_a_refused_connection_is_tried_again_and_leaves_nothing_in_doubt(sink, tmp_path, connect):
    with GatewayWithAnEar(LITTLE_TRAFFIC, rate_limit_calls=0) as gateway:
        gateway.asked = lambda count: sink.stop() if count == 2 else None
        line = Line(gateway, sink, tmp_path, connect)
        line.connect()
        with pytest.raises(ReceiverUnavailable, match=NO_ANSWER):
            line.run()
        assert line.received == line.generated(FIRST)
        sink.start()
        summary = line.run()
        assert summary["ambiguous"] == 0
        assert line.received == line.generated()


@pytest.mark.parametrize("kind", ["truncate", "reset_mid_body"])
def test_a_success_is_given_with_its_status_line(line, kind, caplog):
    # In JSON, because the protobuf of a full success has no bytes to cut off.
    line.connect(otlp={"protocol": "http/json"})
    line.sink.add_fault(from_the_middle_on(Fault(kind)))
    assert line.run()["warnings"] == 2
    assert "the body of its response cannot be read" in caplog.text
    assert line.received == line.generated()
    line.assert_nothing_left()


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
@pytest.mark.parametrize(
    "fault",
    [Fault("empty"), Fault("body", body="\n\x00"), Fault("body", body='{"partialSuccess":null}')],
    ids=["nothing", "empty message", "null"],
)
def test_every_success_in_the_wild_is_one(line, fault, protocol):
    line.connect(otlp={"protocol": protocol})
    line.sink.add_fault(from_the_middle_on(fault))
    line.run()
    assert line.received == line.generated()
    line.assert_nothing_left()


@pytest.mark.parametrize(
    "row",
    [silent("reset_before"), silent("reset_after", stored=True), ROWS["500"]],
    ids=["reset before", "reset after it stored", "500"],
)
def test_ambiguous_points_are_sent_again_only_if_configured(line, row):
    middle = line.generated(MIDDLE)
    line.connect(otlp=row.otlp)
    line.sink.add_fault(from_the_middle_on(row.fault))
    with pytest.raises(row.error):
        line.run()
    line.sink.clear_faults()
    before = line.received
    says = f"^{middle.total()} points were {NOT_KNOWN}.*on_ambiguous='resend' or resend=True"
    # Twice: a try that fails for good must not forget what was in doubt.
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=says):
            line.run(on_ambiguous="fail")
        assert line.received == before + line.generated(LAST)
    summary = line.run(MIDDLE, resend=True)
    assert summary["sent"] == middle.total()
    assert line.received == before + line.generated(LAST) + middle
    line.assert_nothing_left()


def test_doubt_outlives_a_refusal(line):
    middle = line.generated(MIDDLE).total()
    for fault in (Fault("reset_after"), Fault("status", status=503), Fault("status", status=401)):
        line.sink.add_fault(fault)
        with pytest.raises((ReceiverUnavailable, AirflowFailException)):
            line.run(MIDDLE)
        line.sink.clear_faults()
    assert line.run(MIDDLE)["ambiguous"] == middle
    line.assert_nothing_left(MIDDLE)


def test_rejected_points_fail_the_task_and_are_not_sent_again(line):
    line.sink.add_fault(Fault("partial_success", rejected=3, message="too old", calls=frozenset({2})))
    middle = line.generated(MIDDLE).total()
    with pytest.raises(AirflowFailException, match=rf"rejected 3 of {middle} points \(too old\).*forbids"):
        line.run()
    assert line.received <= line.generated()
    assert line.received.total() == line.generated().total() - 3
    line.assert_nothing_left()


def test_rejected_points_are_sent_again_on_request(line):
    line.sink.add_fault(Fault("partial_success", rejected=3, calls=frozenset({1})))
    with pytest.raises(AirflowFailException, match="rejected 3 of"):
        line.run(MIDDLE)
    line.sink.clear()
    assert line.run(MIDDLE, resend=True)["sent"] == line.generated(MIDDLE).total()
    assert line.received == line.generated(MIDDLE)


def test_a_receiver_that_accepted_all_points_may_add_a_message(line, caplog):
    line.sink.add_fault(Fault("partial_success", rejected=0, message="deprecated"))
    summary = line.run()
    assert (summary["rejected"], summary["warnings"]) == (0, 3)
    assert "reported no number of rejected points, and added: deprecated" in caplog.text
    assert line.received == line.generated()


@pytest.fixture
def patience(monkeypatch) -> list[float]:
    """A task that waits for a receiver for a minute, in which no time passes; the waits."""
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(waits), sleep=waits.append)
    monkeypatch.setattr("airflow_provider_forge.delivery.attempts.time", clock)
    monkeypatch.setattr("airflow_provider_forge.delivery.attempts.PATIENCE", 60.0)
    return waits


BLIPS = {
    "429": (Fault("status", status=429), 1),
    "502": (Fault("status", status=502), 1),
    "502 in HTML": (Fault("html", status=502), 1),
    "503": (Fault("status", status=503), 1),
    "503 with Retry-After": (Fault("status", status=503, retry_after="7"), 7),
    "504": (Fault("status", status=504), 1),
}


@pytest.mark.parametrize(("fault", "wait"), BLIPS.values(), ids=BLIPS)
def test_a_blip_costs_neither_a_try_of_the_task_nor_a_call(line, patience, fault, wait):
    line.sink.add_fault(replace(fault, calls=frozenset({2})))
    summary = line.run()
    assert len(patience) == 1
    assert wait / 2 <= patience[0] <= wait * 1.1
    assert line.asked == [FIRST, MIDDLE, LAST]
    assert line.received == line.generated()
    in_doubt = fault.status in (502, 504)
    assert summary["ambiguous"] == (line.generated(MIDDLE).total() if in_doubt else 0)
    line.assert_nothing_left()


def test_points_in_doubt_are_not_sent_again_within_the_task_either(line, patience):
    line.sink.add_fault(Fault("status", status=502, calls=frozenset({2})))
    with pytest.raises(ReceiverUnavailable):
        line.run(on_ambiguous="fail")
    assert patience == []
    assert line.received == line.generated(FIRST)


@pytest.mark.parametrize("kind", ["reset_before", "reset_after"])
def test_a_lost_response_is_left_to_airflows_retries(line, patience, kind):
    line.sink.add_fault(from_the_middle_on(Fault(kind)))
    with pytest.raises(ReceiverUnavailable):
        line.run()
    assert patience == []


def test_a_receiver_that_restarts_is_waited_for(sink, tmp_path, connect, patience):
    with GatewayWithAnEar(LITTLE_TRAFFIC, rate_limit_calls=0) as gateway:
        gateway.asked = lambda count: sink.stop() if count == 2 else None
        line = Line(gateway, sink, tmp_path, connect)
        line.connect()
        patience_of = patience.append

        def comes_back(seconds: float) -> None:
            patience_of(seconds)
            if len(patience) == 2:
                sink.start()

        line_time = SimpleNamespace(monotonic=lambda: sum(patience), sleep=comes_back)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("airflow_provider_forge.delivery.attempts.time", line_time)
            summary = line.run()
        assert len(patience) == 2
        assert summary["ambiguous"] == 0
        assert line.received == line.generated()


def test_a_receiver_that_stays_away_is_airflows_turn_after_a_minute(line, patience):
    line.sink.add_fault(from_the_middle_on(Fault("status", status=503, retry_after="25")))
    with pytest.raises(ReceiverUnavailable) as failed:
        line.run()
    assert failed.value.retry_after == 25
    assert len(patience) == 2
    line.sink.clear_faults()
    assert line.run()["ambiguous"] == 0
    assert line.received == line.generated()

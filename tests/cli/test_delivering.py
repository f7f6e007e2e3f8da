"""The commands that need the ledger: send and coverage."""

from __future__ import annotations

import csv
import re
from collections import Counter

import pendulum
import pytest

from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import Fault
from airflow_provider_forge.sandbox.server import Reply
from airflow_provider_forge.windows import Window
from tests.cli.airflow_api import AirflowApi

JWT = "c4n4ry-jwt"
# Two windows of yesterday.
HALF_HOUR = Window(
    pendulum.yesterday("UTC").add(hours=10), pendulum.yesterday("UTC").add(hours=10, minutes=30)
)
INTERVAL = f"--start {HALF_HOUR.start.isoformat()} --end {HALF_HOUR.end.isoformat()}"


@pytest.fixture
def recorded(shell, tmp_path):
    """The shell, with a record in a directory."""
    shell.connections["OTLP_DEFAULT"]["extra"]["ledger_url"] = f"file://{tmp_path}/ledger"
    return shell


@pytest.fixture
def airflow(shell):
    with AirflowApi(JWT) as airflow:
        shell.variables |= {"AIRFLOW_API_URL": airflow.address, "AIRFLOW_API_TOKEN": JWT}
        yield airflow


def generated(gateway):
    options = {"environments": ["production"], "metrics": DEFAULT_METRICS}
    return Counter(gateway.generated(HALF_HOUR.start, HALF_HOUR.end, **options))


def test_send_delivers_each_point_once(recorded, gateway, sink):
    first, again = recorded(f"send {INTERVAL}"), recorded(f"send {INTERVAL} --json")
    assert (first.status, again.status) == (0, 0)
    assert Counter(sink.points) == generated(gateway)
    assert first.rows[0][:4] == ["WINDOW", "POINTS", "SENT", "UNCHANGED"]
    assert [row[0] for row in first.rows[1:]] == [str(window) for window in HALF_HOUR.split()]
    assert [(window["sent"], window["unchanged"]) for window in again.json["windows"]] == [
        (0, int(row[1])) for row in first.rows[1:]
    ]
    assert again.json["dry_run"] is False
    points = sum(int(row[1]) for row in first.rows[1:])
    assert first.err == f"2 of 2 windows: {points:,} points, {points:,} sent\n"


def test_send_resends_on_purpose(recorded, gateway, sink):
    recorded(f"send {INTERVAL}")
    again = recorded(f"send {INTERVAL} --resend")
    assert again.status == 0
    assert Counter(sink.points) == generated(gateway) + generated(gateway)
    points = f"{len(sink.points) // 2:,}"
    counts = f"{points} points, {points} sent, {points} of them delivered before"
    assert again.err == f"2 of 2 windows: {counts}\n"


def test_a_dry_run_sends_nothing_and_records_nothing(recorded, gateway, sink, tmp_path):
    recorded.connections["OTLP_DEFAULT"]["extra"]["max_body_bytes"] = 20_000
    done = recorded(f"send {INTERVAL} --dry-run --json")
    assert done.status == 0
    assert sink.summary()["requests"] == 0
    assert not (tmp_path / "ledger").exists()
    windows = done.json["windows"]
    for window in windows:
        assert sum(request["points"] for request in window["requests"]) == window["points"]
        assert all(request["bytes"] <= 20_000 > request["bytes_sent"] for request in window["requests"])
        assert len(window["requests"]) == window["batches"]
    assert max(len(window["requests"]) for window in windows) > 1
    recorded(f"send {INTERVAL}")
    assert sink.summary()["requests"] == sum(len(window["requests"]) for window in windows)


def test_a_dry_run_omits_delivered_points(recorded):
    recorded(f"send {INTERVAL}")
    done = recorded(f"send {INTERVAL} --dry-run")
    assert {row[2] for row in done.rows[1:3]} == {"0"}
    assert len(done.rows) == 3
    assert done.rows[0][2] == "TO SEND"
    totals, note = done.err.splitlines()
    assert re.search(" points, 0 to send, [0-9,]+ unchanged$", totals)
    assert note.startswith("Nothing was sent")


def test_send_needs_a_ledger_unless_no_ledger_is_given(shell, gateway, sink):
    refused = shell(f"send {INTERVAL}")
    assert refused.status == 2
    assert "no ledger is named" in refused.err
    assert "or --no-ledger to send" in refused.err
    assert "--no-ledger" not in shell("coverage").err
    assert gateway.calls == []
    for _ in range(2):
        assert shell(f"send {INTERVAL} --no-ledger").status == 0
    assert Counter(sink.points) == generated(gateway) + generated(gateway)


@pytest.mark.parametrize("options", ["", "--dry-run", "--no-ledger"])
@pytest.mark.parametrize("ahead", [-4, 0, 15])
def test_send_refuses_an_interval_that_has_not_settled(recorded, gateway, ahead, options, tmp_path):
    """Once on record as delivered, nobody would ask for what comes later."""
    now = pendulum.now("UTC")
    end = now.add(minutes=ahead)
    done = recorded(f"send --start {end.subtract(minutes=15).isoformat()} --end {end.isoformat()} {options}")
    assert (done.status, done.out) == (2, "")
    problem = f"{end:%Y-%m-%d %H:%M} UTC is in the future"
    if ahead <= 0:
        problem = f"{end:%Y-%m-%dT%H:%M:%SZ} is less than 5 minutes ago"
    assert done.err.startswith(f"--end: {problem}")
    latest = pendulum.parse(re.search(r"give (\S+) or earlier", done.err)[1])
    assert now.subtract(minutes=20) < latest <= pendulum.now("UTC").subtract(minutes=5)
    assert gateway.calls == []
    assert not (tmp_path / "ledger").exists()
    start = latest.subtract(minutes=15)
    again = recorded(f"send --start {start.isoformat()} --end {latest.isoformat()} --dry-run")
    assert again.status == 0


def test_send_fails_as_the_dag_would_and_reports_the_delivered_points(recorded, gateway, sink):
    sink.add_fault(Fault("status", status=401, calls={2}))
    done = recorded(f"send {INTERVAL} --json")
    assert done.status == 3
    assert len(done.json["windows"]) == 1
    assert done.json["error"]["kind"] == "ExportRefused"


def test_send_reports_rejections(recorded, sink):
    sink.add_fault(Fault("partial_success", rejected=1, first=1))
    done = recorded(f"send {INTERVAL}")
    assert done.status == 1
    assert done.err.count("rejected 1 of") == 1


def test_send_reports_rejections_of_a_window_that_then_fails(recorded, sink):
    recorded.connections["OTLP_DEFAULT"]["extra"]["max_body_bytes"] = 20_000
    sink.add_fault(Fault("partial_success", rejected=1, first=1))
    sink.add_fault(Fault("status", status=401, calls={2}))
    done = recorded(f"send {INTERVAL}")
    assert done.status == 3
    assert done.err.count("rejected 1 of") == 1


def test_coverage_shows_missing_windows_and_how_to_heal_them(recorded):
    recorded(f"send {INTERVAL}")
    done = recorded("coverage")
    assert done.status == 1
    day = next(line for line in done.out.splitlines() if line.startswith(f"{HALF_HOUR.start:%Y-%m-%d}"))
    # Half of the hour from ten is missing, as are all others.
    assert set(day.split()[1:]) == {"x"}
    # The oldest hours are soon lost.
    assert set(done.out.splitlines()[2].split()[1:]) == {"X"}
    assert "\nRun one at a time, and pause forge_metrics while each is created:" in done.out
    assert re.search(
        r"1,34[0-4] windows of 15 minutes: \d pending, 0 empty, 2 delivered, 0 rejected", done.out
    )
    first, second = [line.strip() for line in done.out.splitlines() if "airflow backfill create" in line]
    assert f"--to-date {HALF_HOUR.start.subtract(minutes=15):%Y-%m-%dT%H:%M:%SZ} " in first
    assert f"--from-date {HALF_HOUR.end:%Y-%m-%dT%H:%M:%SZ} " in second
    assert "--dag-id forge_metrics " in first
    assert "expiring soon" in done.out


def test_coverage_for_programs(recorded):
    recorded(f"send {INTERVAL}")
    answer = recorded("coverage --json --dag-id mine --alert-before 0.001h").json
    assert answer["windows"]["delivered"] == 2
    assert answer["environments"] == ["production"]
    # Those that expire within half an hour of the first delivery are no part of it.
    assert len(answer["cells"]) in (1341, 1342)
    assert answer["cells"].count("d") == 2
    assert [gap["start"] for gap in answer["gaps"]][1] == f"{HALF_HOUR.end:%Y-%m-%dT%H:%M:%SZ}"
    assert not answer["gaps"][1]["expiring_soon"]
    assert answer["cells"].islower()
    assert "--dag-id mine" in answer["gaps"][0]["backfill"]
    # The first gap expires within three quarters of an hour, the second in 12 days.
    answer = recorded("coverage --json --alert-before 1h").json
    assert [gap["expiring_soon"] for gap in answer["gaps"]] == [True, False]


def test_coverage_as_a_table(recorded):
    recorded(f"send {INTERVAL}")
    done = recorded("coverage --format csv")
    header, *rows = csv.reader(done.out.splitlines())
    assert done.status == 1
    assert header == ["WINDOW", "STATUS", "POINTS", "ATTEMPTS", "DELIVERED", "EXPIRES"]
    assert len(rows) in (1341, 1342)
    delivered = [row for row in rows if row[1] == "delivered"]
    assert [row[0] for row in delivered] == [str(quarter) for quarter in HALF_HOUR.split()]
    assert all(
        int(points) > 0 and attempts == "1" and at and not expires
        for _, _, points, attempts, at, expires in delivered
    )
    assert rows[0][1:5] == ["missing", "0", "0", ""]
    assert pendulum.parse(rows[0][5]) == pendulum.parse(rows[0][0].split("/")[0]).add(days=14)


def test_coverage_on_a_terminal_is_coloured(recorded):
    recorded(f"send {INTERVAL}")
    done = recorded.on_a_terminal("coverage")
    assert done.status == 1
    assert "\x1b[31mx" in done.out
    assert "\x1b[1;31mX" in done.out


def test_coverage_without_a_ledger(recorded):
    done = recorded("coverage")
    assert done.status == 2
    assert "has no ledger of this app and destination" in done.err


def test_the_ledger_in_airflow(shell, airflow, gateway, sink):
    assert shell(f"send {INTERVAL}").status == 0
    assert Counter(sink.points) == generated(gateway)
    # Half an hour of five-minute entries; a point on the edge makes one more.
    entries = [key for key in airflow.values if re.search(r"/[0-9]{8}T[0-9]{4}Z$", key)]
    assert len(entries) >= 6
    assert any(key.endswith("/head") for key in airflow.values)
    assert shell(f"send {INTERVAL} --json").json["windows"][0]["sent"] == 0
    assert shell("coverage --json").json["windows"]["delivered"] == 2


@pytest.mark.parametrize(
    ("dag", "pending"),
    [
        ({"is_paused": False}, True),
        ({"is_paused": False, "max_active_runs": None, "more": 1}, True),
        ({"is_paused": True}, False),
        (None, False),
        ("forbidden", False),
    ],
)
def test_windows_to_which_a_catchup_has_yet_to_come_are_pending(shell, airflow, dag, pending):
    """Airflow's API says where its schedule is; a user who may read the asset only sees them as missing."""
    assert shell(f"send {INTERVAL}").status == 0
    start = pendulum.now("UTC").subtract(days=10).start_of("hour")
    next_start = {"max_active_runs": 8, "next_dagrun_data_interval_start": start.isoformat()}
    if dag == "forbidden":
        airflow.dag = Reply.of_json({"detail": "no"}, 403)
    elif dag:
        airflow.dag = Reply.of_json({**next_start, **dag})
    done = shell("coverage --json")
    found, statuses = done.json, done.json["cells"]
    assert ("Airflow has no DAG forge_metrics (--dag-id)" in done.err) is (dag is None)
    assert (statuses.count("p") > 900) is pending
    assert bool(found["catchup"]) is pending
    assert ("m" in statuses or "M" in statuses) or pending


def test_the_default_dag_is_that_of_the_default_connections(shell, airflow):
    """Else another export's catchup would hide the gaps of this one."""
    shell.connections["OTLP_OTHER"] = shell.connections["OTLP_DEFAULT"]
    airflow.asset = "forge_metrics:forge_default:otlp_other"
    start = pendulum.now("UTC").subtract(days=10).isoformat()
    airflow.dag = Reply.of_json({"is_paused": False, "next_dagrun_data_interval_start": start})
    assert shell(f"send {INTERVAL} --otlp-conn-id otlp_other").status == 0
    done = shell("coverage --json --otlp-conn-id otlp_other")
    assert (done.json["catchup"], "give --dag-id" in done.err) == (None, True)
    done = shell("coverage --json --otlp-conn-id otlp_other --dag-id other")
    assert (bool(done.json["catchup"]), done.err) == (True, "")


def test_a_token_is_needed_for_it(shell, airflow):
    del shell.variables["AIRFLOW_API_TOKEN"]
    done = shell("coverage")
    assert done.status == 2
    assert done.err.splitlines()[-1].startswith("AIRFLOW_API_TOKEN: is not set")


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("coverage --ledger-url bucket", 2, "--ledger-url: 'bucket' is not a URL"),
        (f"send {INTERVAL} --ledger-url s3://a:{JWT}@b", 2, "--ledger-url: contains a password"),
        (
            f"send {INTERVAL} --ledger-url nosuch://b/c",
            2,
            "^--ledger-url: this Airflow cannot open nosuch://",
        ),
        ("coverage --alert-before 48", 2, "--alert-before: '48' has no unit; give 48m, 48h or 48d"),
        *(
            (
                f"coverage --alert-before={text}",
                2,
                f"--alert-before: '{text}' is not a length of time up to 14 d",
            )
            for text in ("nan", "-5h", "0h", "soon")
        ),
        ("send --end 2026-11-22T10:00:00Z", 2, "--start: is missing; or give --last"),
        ("send", 2, "--start: is missing; or give --last, such as --last 2h"),
        ("send --last 2h --start 2026-11-22T10:00:00Z", 2, "--last: cannot be combined with --start"),
        ("send --start 2020-01-01T00:00:00Z --end 2020-01-01T01:00:00Z --no-ledger", 3, "14 days"),
        (
            "send --start 2026-01-01T02:00:00Z --end 2026-01-01T01:00:00Z --no-ledger",
            2,
            "^--end: .* not after",
        ),
    ],
)
def test_errors(shell, line, status, said):
    done = shell(line)
    assert (done.status, done.out) == (status, "")
    assert re.search(said, done.err)
    assert JWT not in done.err

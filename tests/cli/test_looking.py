"""The commands that change nothing: check, environments, fetch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.parse
from datetime import timedelta

import pytest

from airflow_provider_forge import __version__
from airflow_provider_forge.otlp.messages import data_points
from airflow_provider_forge.sandbox import Fault

COLOUR = "\x1b["


@pytest.fixture
def window():
    """Five minutes of yesterday, whenever that is."""
    import pendulum

    start = pendulum.yesterday("UTC").add(hours=10)
    return f"--start {start.isoformat()} --end {start.add(minutes=5).isoformat()}"


def test_check_tries_both_ends(shell, gateway, sink):
    done = shell("check")
    assert done.status == 0
    forge, otlp = done.out.splitlines()
    assert forge.startswith("✓ forge_default: Atlassian accepts the credentials. The app is Sandbox app")
    assert otlp.startswith("✓ otlp_default: 127.0.0.1:")
    assert (len(gateway.calls), len(sink.requests)) == (1, 1)


def test_check_fails_if_one_end_does(shell):
    shell.connections["FORGE_DEFAULT"]["password"] = "another-token"
    done = shell("check")
    assert done.status == 1
    assert done.out.startswith("✗ forge_default: Atlassian refused the credentials")
    assert "✓ otlp_default" in done.out
    answer = shell("check --json")
    assert answer.status == 1
    assert {conn_id: each["ok"] for conn_id, each in answer.json.items()} == {
        "forge_default": False,
        "otlp_default": True,
    }


def test_check_on_a_terminal_is_coloured(shell):
    done = shell.on_a_terminal("check")
    assert done.status == 0
    assert "✓ forge_default" in done.out
    assert COLOUR in done.out


def test_other_connections_and_another_app(shell):
    shell.connections["MINE"] = shell.connections.pop("FORGE_DEFAULT")
    shell.connections["MINE"]["extra"].pop("app_id")
    done = shell("environments --forge-conn-id mine --app-id 11111111-2222-4333-8444-555555555555")
    assert done.status == 0
    assert "production" in done.out


def test_environments(shell, gateway):
    done = shell("environments")
    assert done.status == 0
    assert done.rows[0] == ["NAME", "ID"]
    assert dict(done.rows[1:])["production"] == gateway.environments[2].id
    answer = shell("environments --json")
    assert [[each["name"], each["id"]] for each in answer.json] == done.rows[1:]


def test_fetch_is_a_table_in_a_pipe(shell, gateway, sink, window):
    done = shell(f"fetch {window}")
    assert done.status == 0
    assert done.rows[0] == ["METRIC", "TYPE", "UNIT", "POINTS", "SERIES"]
    table = {row[0]: row for row in done.rows[1:]}
    assert table["forge_backend_invocation_count"][1:3] == ["sum", "s"]
    assert sum(int(row[3]) for row in done.rows[1:]) == gateway.calls[-1].points
    assert re.search(r"points in .* waiting for the rate limit \(request id [0-9a-f]+\)", done.err)
    assert done.err.splitlines()[0].startswith("UNIT is Atlassian's own, which is s for counts")
    assert sink.summary()["requests"] == 0


def test_fetch_on_a_terminal_is_aligned(shell, window):
    done = shell.on_a_terminal(f"fetch {window}")
    assert done.status == 0
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in done.out.splitlines()]
    (header,) = [line for line in lines if line.endswith("SERIES")]
    rows = [line for line in lines if line.startswith("forge_")]
    assert len(rows) >= 4
    assert {len(line) for line in rows} == {len(header)}
    assert "\t" not in done.out


def test_fetch_prints_atlassians_response(shell, gateway, window):
    done = shell(f"fetch --json {window}")
    metrics = done.json["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
    assert "forge_api_request_count" in {metric["name"] for metric in metrics}


def test_fetch_counts_series_and_values(shell, window):
    done = shell(f"fetch --cardinality {window} --metrics FORGE_API_REQUEST_COUNT")
    assert done.rows[0] == ["METRIC", "SERIES", "POINTS", "VALUES BY ATTRIBUTE"]
    name, series, points, values = done.rows[1]
    assert (name, done.rows[2]) == ("forge_api_request_count", ["total", series, points, ""])
    assert "appId 1" in values.split(", ")
    answer = shell(f"fetch --cardinality --json {window} --metrics FORGE_API_REQUEST_COUNT").json
    assert answer["series"] == int(series)
    assert answer["metrics"][0]["attributes"]["appId"] == 1
    assert len(set(answer["request_ids"])) == 1


def test_fetch_returns_every_request_id(shell, window):
    longer = window.replace("T10:05", "T10:20")
    assert len(set(shell(f"fetch --cardinality --json {longer}").json["request_ids"])) == 2


def test_fetch_asks_for_longer_intervals_in_pieces(shell, gateway, window):
    start = re.search(r"--start (\S+)", window)[1]
    end = start.replace("T10:00", "T10:40")
    done = shell(f"fetch --start {start} --end {end}")
    assert done.status == 0
    assert [call.end - call.start for call in gateway.calls[1:]] == [
        timedelta(minutes=minutes) for minutes in (15, 15, 10)
    ]
    assert sum(int(row[3]) for row in done.rows[1:]) == sum(call.points for call in gateway.calls[1:])
    assert re.search("10:00\N{EN DASH}10:40 UTC: .* points in .* [(]3 calls[)]", done.err)
    metrics = shell(f"fetch --json --start {start} --end {end}").json["resourceMetrics"]
    assert sum(1 for _ in data_points(metrics)) == sum(call.points for call in gateway.calls[4:])


def test_fetch_without_times_takes_the_last_settled_window(shell, gateway):
    assert shell("fetch").status == 0
    call = gateway.calls[-1]
    assert (call.end - call.start).total_seconds() == 900
    assert call.start.minute % 15 == 0


def test_fetch_takes_environments_and_metrics(shell, gateway, window):
    assert shell(f"fetch {window} --environments staging --metrics FORGE_API_REQUEST_COUNT").status == 0
    assert gateway.calls[-1].metrics == ("FORGE_API_REQUEST_COUNT",)
    assert len(gateway.calls[-1].environments) == 1


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("check --otlp-conn-id forge_default", 2, "--otlp-conn-id: is the same as --forge-conn-id"),
        ("fetch --start soon", 2, "--start: 'soon' is not a time"),
        ("fetch --end 2026-11-22T10:00:00Z", 2, "--start: is missing; or give --last"),
        ("fetch --start 2020-01-01T00:00:00Z", 3, "Atlassian keeps metrics for 14 days"),
        ("fetch --start 0001-01-01T00:00:00Z --end now", 3, "Atlassian keeps metrics for 14 days"),
        ("fetch --start today --end 9999-12-31T23:59:59Z", 2, "--end: 9999-12-31 23:59 UTC is in the future"),
        ("environments --app-id x", 2, "^--app-id: 'x' is neither"),
        (
            "environments --forge-conn-id nowhere",
            2,
            "there is no Connection 'nowhere': .*AIRFLOW_CONN_NOWHERE",
        ),
        ("fetch --metrics NO_SUCH", 3, "refused the query"),
        ("--last 2h", 2, "^the command is missing before '--last'. There are: check, "),
        ("dance", 2, "there is no command 'dance'. There are: check, "),
        ("fech", 2, "there is no command 'fech'. Did you mean 'fetch'?"),
        ("usage --by sites", 2, "--by: 'sites' is not one of environment, site. Did you mean 'site'?"),
        ("archive lst", 2, "'lst' is not one of ls, verify, prune. Did you mean 'ls'?"),
        ("fetch --format josn", 2, "'josn' is not one of table, json, csv, markdown. Did you mean 'json'?"),
        ("fetch --metric-labels x", 2, "there is no argument '--metric-labels'. Did you mean '--metrics'?"),
        ("fetch --environments prod", 2, "^--environments: there is no 'prod'. Did you mean 'production'?"),
        ("fetch --environments ,", 2, "^--environments: is empty"),
        (
            "fetch --metrics forge_api_request_count",
            2,
            "^--metrics: .*Did you mean 'FORGE_API_REQUEST_COUNT'?",
        ),
        ("fetch --start 2100-01-01T00:00:00Z", 2, "--start: 2100-01-01 00:00 UTC is in the future"),
        ("fetch --json --format csv", 2, "--json: contradicts --format csv"),
        ("", 2, r"^the command is missing. There are: check, .* \(see .* --help\)\n$"),
    ],
)
def test_an_error_is_one_line_and_a_status(shell, line, status, said):
    done = shell(line)
    assert (done.status, done.out) == (status, "")
    assert re.search(said, done.err)
    assert done.err.count("\n") == 1


def test_a_failure_that_may_pass_has_a_status_of_its_own(shell, gateway):
    gateway.add_fault(Fault("status", status=503))
    done = shell("environments --json")
    assert done.status == 4
    assert done.json["error"]["kind"] == "GatewayUnavailable"


def test_a_reader_may_close_the_pipe(shell, window):
    line = " ".join(shell.command(f"fetch --json {window}"))
    run = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} | head -c 1"],
        env=shell.environment(),
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert (run.stdout, run.returncode) == ("{", 0)
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("line", ["check", "fetch", "fetch --cardinality", "environments --json"])
def test_a_closed_pipe_is_not_a_failure(shell, line):
    unread, written = os.pipe()
    os.close(unread)
    with os.fdopen(written, "wb") as pipe:
        run = subprocess.run(
            shell.command(line),
            env=shell.environment(),
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )
    assert run.returncode == 0
    assert "Traceback" not in run.stderr


def test_the_version(shell):
    assert shell("--version").out == f"forge-metrics {__version__}\n"


def test_airflows_own_command_line_has_the_same_commands(shell, window):
    from airflow.cli import cli_parser

    if "forge" not in cli_parser.ALL_COMMANDS_DICT:
        pytest.skip("Airflow before 3.2 has no commands of providers")
    shell.program = ("airflow", "forge")
    done = shell("environments --json")
    assert done.status == 0
    assert {"name": "production", "id": "8cb293d5-be08-47ae-a75c-95b89da5ad1d"} in json.loads(done.out)
    assert shell("environments --app-id x").status == 2


def test_connections_in_airflows_database_are_found(shell, redis_server):
    """Those that are named by the command, and the one that these name."""
    forge = shell.connections.pop("FORGE_DEFAULT")
    # A Redis that knows of no call may have lost some, so the first waits for that long.
    forge["extra"] |= {"rate_limit_store": "redis_conn:limiter", "rate_limit_seconds": 0.1}
    parts = urllib.parse.urlsplit(redis_server.url)
    redis = {"conn_type": "redis", "host": parts.hostname, "port": parts.port, "password": parts.password}
    airflow = [*shell.command("")[:2], "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=shell.environment(), check=True, capture_output=True)
    for conn_id, fields in {"forge_default": forge, "limiter": redis}.items():
        add = [*airflow, "connections", "add", conn_id, "--conn-json", json.dumps(fields)]
        subprocess.run(add, env=shell.environment(), check=True, capture_output=True)
    assert "production" in shell("environments").out

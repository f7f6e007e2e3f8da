from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import httpx
import pytest

from airflow_provider_forge.sandbox.__main__ import _parser, _servers
from tests.sandbox.asking import export_request

COMMAND = [sys.executable, "-m", "airflow_provider_forge.sandbox"]


@pytest.fixture
def start(tmp_path):
    processes = []

    def start(*options):
        ready = tmp_path / "ready.json"
        process = subprocess.Popen(
            [*COMMAND, "--ready-file", str(ready), *options], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return process, json.loads(ready.read_text())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_it_is_stopped_and_prints_totals(start, http, number):
    process, about = start("--rate-limit-calls", "1")
    for _ in range(2):
        http.post(about["gateway_url"], auth=(about["email"], about["api_token"]), json={})
    http.post(
        f"{about['sink_url']}/v1/metrics",
        content=export_request(points=3).SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    )
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert output.splitlines()[-1] == (
        "2 calls, 1 over the limit; 1 OTLP requests, 3 points kept, 0 rejected"
    )
    for name in ("gateway_url", "sink_url", "email", "api_token", "app_id"):
        assert str(about[name]) in output
    assert all(f"{key} " in output and each in output for key, each in about["environments"].items())
    assert "export AIRFLOW_CONN_FORGE_DEFAULT='{" in output
    with pytest.raises(httpx.ConnectError):
        http.get(about["sink_url"])


@pytest.mark.parametrize("options", [(), ("--print-json",)])
def test_a_token_from_the_environment_is_required_and_never_shown(start, http, monkeypatch, options):
    monkeypatch.setenv("FORGE_SANDBOX_TOKEN", "canary")
    process, about = start(*options)
    statuses = {
        token: http.post(about["gateway_url"], auth=(about["email"], token), json={}).status_code
        for token in ("canary", "sandbox-token")
    }
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert statuses["canary"] != 401 == statuses["sandbox-token"]
    assert "canary" not in output + json.dumps(about)
    assert "<FORGE_SANDBOX_TOKEN>" in output


def test_the_connections_are_ready_to_paste(start):
    process, about = start("--print-json", "--rate-limit-calls", "9", "--rate-limit-seconds", "3")
    assert json.loads(process.stdout.readline()) == about
    forge = json.loads(about["connections"]["AIRFLOW_CONN_FORGE_DEFAULT"])
    assert forge == {
        "conn_type": "forge",
        "host": about["gateway_url"],
        "login": "dev@example.com",
        "password": "sandbox-token",
        "extra": {
            "app_id": about["app_id"],
            "environments": "production",
            "rate_limit_calls": 9,
            "rate_limit_seconds": 3.0,
        },
    }
    assert json.loads(about["connections"]["AIRFLOW_CONN_OTLP_DEFAULT"]) == {
        "conn_type": "otlp",
        "host": about["sink_url"],
    }


def test_without_a_limit_the_hook_accepts_the_connection(start, monkeypatch):
    from airflow_provider_forge.hooks.forge import ForgeMetricsHook

    _, about = start("--rate-limit-calls", "0")
    monkeypatch.setenv("AIRFLOW_CONN_FORGE_DEFAULT", about["connections"]["AIRFLOW_CONN_FORGE_DEFAULT"])
    hook = ForgeMetricsHook()
    for _ in range(12):
        assert hook.get_conn().environments(hook.app_id)


def test_every_option_reaches_the_scenario():
    options = _parser().parse_args(
        [
            *("--seed", "7", "--traffic", "2", "--latency-shape", "summary", "--environment-ids", "ari"),
            *("--rate-limit-channel", "reset", "--rate-limit-window", "fixed", "--large-app", "--lateness"),
            *("--email", "me@example.com", "--unaligned-points"),
        ]
    )
    gateway, _ = _servers(options)
    scenario = gateway.scenario
    assert (scenario.seed, scenario.traffic, scenario.latency_shape) == (7, 2.0, "summary")
    assert (scenario.environment_ids, scenario.rate_limit_channel) == ("ari", "reset")
    assert scenario.rate_limit_window == "fixed"
    assert scenario.large_app
    assert scenario.lateness
    assert scenario.unaligned_points
    assert not scenario.outage
    assert gateway.email == "me@example.com"


def test_each_option_is_explained():
    assert [action.dest for action in _parser()._actions if not action.help] == []

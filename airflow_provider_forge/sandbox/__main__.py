"""Run the sandbox gateway and the OTLP sink until a signal stops them.

`python -m airflow_provider_forge.sandbox --help` lists the options. To use an API token of your own, set the
environment variable FORGE_SANDBOX_TOKEN. It is never printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway, Scenario
from airflow_provider_forge.sandbox.scenario import LatencyShape, RateLimitChannel

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKEN = "FORGE_SANDBOX_TOKEN"  # noqa: S105 - a variable's name
"""Environment variable for the required API token: a command line would be visible to every user."""

DEFAULT_TOKEN = "sandbox-token"  # noqa: S105 - valid for the sandbox only
"""The API token that the gateway requires without that variable."""

UNLIMITED = 10_000
"""Calls per period for a gateway without a limit: more than it ever gets."""

# The scenario's boolean switches, and their help. Each is an option of the same name.
_SWITCHES = {
    "large_app": "about 20,000 points per 15 minutes in the busy hours of a weekday",
    "unnormalised_url": "one URL contains issue keys, so that each is a series",
    "lateness": "points become visible late: most within 3 minutes, some after hours",
    "outage": "the points of 05:20 to 06:00 UTC become visible at 07:00",
    "inclusive_ends": "a window also returns the points of its first moment",
    "unaligned_points": "some points are not at whole minutes",
    "points_outside_window": "a response also contains points next to its window",
    "exact_duplicates": "some points exist twice",
    "repeated_container_points": "container gauges come as four equal points",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both servers until SIGINT or SIGTERM, then print totals."""
    options = _parser().parse_args(arguments)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    gateway, sink = _servers(options)
    with gateway, sink:
        description = _description(gateway, sink)
        print(json.dumps(description) if options.print_json else _text(description), flush=True)
        if options.ready_file is not None:
            _write_whole(options.ready_file, json.dumps(description))
        stopped.wait()
    print(_totals(gateway, sink), flush=True)
    return 0


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of each option that has one; a switch has none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_forge.sandbox",
        description="Run a stand-in for Atlassian's gateway, and a sink for OTLP metrics, on this machine.",
        formatter_class=_Formatter,
        epilog=f"The API token is the value of the environment variable {TOKEN}, or else {DEFAULT_TOKEN}.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--gateway-port", type=int, default=0, help="0 for a free port")
    parser.add_argument("--sink-port", type=int, default=0, help="0 for a free port")
    parser.add_argument("--email", default="dev@example.com", help="the account's email")
    parser.add_argument("--rate-limit-calls", type=int, default=5, help="0 for no limit")
    parser.add_argument("--rate-limit-seconds", type=float, default=60.0, help="length of the limit's period")
    parser.add_argument(
        "--rate-limit-channel",
        choices=get_args(RateLimitChannel),
        default="seconds",
        help="form in which a refused call learns when to retry",
    )
    parser.add_argument(
        "--rate-limit-window", choices=("sliding", "fixed"), default="sliding", help="how calls are counted"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of all generated data")
    parser.add_argument("--traffic", type=float, default=1.0, help="factor for the number of invocations")
    parser.add_argument(
        "--latency-shape", choices=get_args(LatencyShape), default="histogram", help="type of latency metrics"
    )
    parser.add_argument(
        "--environment-ids", choices=("uuid", "ari"), default="uuid", help="format of the environments' ids"
    )
    for name, words in _SWITCHES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=words)
    parser.add_argument("--print-json", action="store_true", help="describe both servers in one line of JSON")
    parser.add_argument(
        "--ready-file", type=Path, help="file for the same JSON, written once both servers are listening"
    )
    return parser


def _servers(options: argparse.Namespace) -> tuple[SandboxGateway, OtlpSink]:
    scenario = Scenario(
        seed=options.seed,
        traffic=options.traffic,
        latency_shape=options.latency_shape,
        environment_ids=options.environment_ids,
        rate_limit_channel=options.rate_limit_channel,
        rate_limit_window=options.rate_limit_window,
        **{name: getattr(options, name) for name in _SWITCHES},
    )
    gateway = SandboxGateway(
        scenario,
        email=options.email,
        api_token=os.environ.get(TOKEN) or DEFAULT_TOKEN,
        rate_limit_calls=options.rate_limit_calls,
        rate_limit_seconds=options.rate_limit_seconds,
        host=options.host,
        port=options.gateway_port,
    )
    return gateway, OtlpSink(host=options.host, port=options.sink_port)


def _description(gateway: SandboxGateway, sink: OtlpSink) -> dict[str, Any]:
    # A token that the user has set may be a real one.
    token = DEFAULT_TOKEN if gateway.api_token == DEFAULT_TOKEN else f"<{TOKEN}>"
    extra = {
        "app_id": gateway.app_id,
        "environments": "production",
        # A Connection cannot express the absence of a limit, so it gets one that is never reached.
        "rate_limit_calls": gateway.rate_limit_calls or UNLIMITED,
        "rate_limit_seconds": gateway.rate_limit_seconds,
    }
    forge = {
        "conn_type": "forge",
        "host": gateway.url,
        "login": gateway.email,
        "password": token,
        "extra": extra,
    }
    return {
        "gateway_url": gateway.url,
        "sink_url": sink.url,
        "email": gateway.email,
        "api_token": token,
        "app_id": gateway.app_id,
        "environments": {each.key: each.id for each in gateway.environments},
        "connections": {
            "AIRFLOW_CONN_FORGE_DEFAULT": json.dumps(forge),
            "AIRFLOW_CONN_OTLP_DEFAULT": json.dumps({"conn_type": "otlp", "host": sink.url}),
        },
        "pid": os.getpid(),
    }


def _text(description: dict[str, Any]) -> str:
    lines = [
        f"Gateway       {description['gateway_url']}",
        f"OTLP sink     {description['sink_url']}",
        f"Received      {description['sink_url']}/sandbox/summary",
        f"Email         {description['email']}",
        f"API token     {description['api_token']}",
        f"App id        {description['app_id']}",
        *(f"Environment   {key:<12} {each}" for key, each in description["environments"].items()),
        "",
        *(f"export {name}={shlex.quote(value)}" for name, value in description["connections"].items()),
        "",
        "Stop with Ctrl-C.",
    ]
    return "\n".join(lines)


def _write_whole(path: Path, text: str) -> None:
    # A process that waits for the file must never read half of it.
    draft = path.with_name(path.name + ".draft")
    draft.write_text(text, "utf-8")
    draft.replace(path)


def _totals(gateway: SandboxGateway, sink: OtlpSink) -> str:
    summary = sink.summary()
    return (
        f"{len(gateway.calls)} calls, {gateway.violations} over the limit; "
        f"{summary['requests']} OTLP requests, "
        f"{summary['points']} points kept, {summary['rejected']} rejected"
    )


if __name__ == "__main__":
    raise SystemExit(main())

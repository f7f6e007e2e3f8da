"""The time that `forge-metrics` takes, as a multiple of `python -c "import airflow"`.

Each command is a process of its own, with both Connections in the environment, against the sandbox. The CPU
time of the best of several runs is compared, so that the load of the machine has little effect.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway

__all__ = ["measure"]

RUNS = 3
PROGRAM = ("-m", "airflow_provider_forge")
COMMANDS = {
    "forge-metrics --help": ("--help",),
    "forge-metrics fech (no such command)": ("fech",),
    "forge-metrics fetch --start soon (no time)": ("fetch", "--start", "soon"),
    "forge-metrics check (a call to each end)": ("check",),
    "forge-metrics fetch (a call, and one for the environments)": ("fetch",),
}
LIMITS = {
    "forge-metrics fech (no such command)": 0.25,
    "forge-metrics fetch --start soon (no time)": 0.25,
    "forge-metrics check (a call to each end)": 0.6,
    "forge-metrics fetch (a call, and one for the environments)": 0.6,
}
"""Upper limits, as multiples of the import of Airflow, which takes about 1.6 seconds."""


def measure() -> list[str]:
    """Print the times of the commands; return those that miss their limit."""
    missed = []
    with (
        SandboxGateway(rate_limit_calls=None) as gateway,
        OtlpSink() as sink,
        tempfile.TemporaryDirectory() as home,
    ):
        environment = {**os.environ, **_connections(gateway, sink), "AIRFLOW_HOME": home, "TMPDIR": home}
        base = _seconds(("-c", "import airflow"), environment)
        print(f"\n{'python -c ' + chr(34) + 'import airflow' + chr(34):60} {base:6.2f} s")
        for name, arguments in COMMANDS.items():
            taken = _seconds((*PROGRAM, *arguments), environment)
            limit = LIMITS.get(name)
            note = "" if limit is None else f"  (limit {limit})"
            print(f"{name:60} {taken:6.2f} s  x {taken / base:5.2f}{note}")
            if limit is not None and taken / base > limit:
                missed.append(name)
    return missed


def _connections(gateway: SandboxGateway, sink: OtlpSink) -> dict[str, str]:
    forge = {
        "conn_type": "forge",
        "host": gateway.url,
        "login": gateway.email,
        "password": gateway.api_token,
        "extra": {"app_id": gateway.app_id, "rate_limit_calls": 1000},
    }
    otlp = {"conn_type": "otlp", "host": sink.url}
    return {"AIRFLOW_CONN_FORGE_DEFAULT": json.dumps(forge), "AIRFLOW_CONN_OTLP_DEFAULT": json.dumps(otlp)}


def _seconds(arguments: tuple[str, ...], environment: dict[str, str]) -> float:
    """Return the CPU time of a process in seconds, the best of several."""
    taken = []
    for _ in range(RUNS):
        before = _children()
        subprocess.run([sys.executable, *arguments], env=environment, capture_output=True)
        taken.append(_children() - before)
    return min(taken)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(f"Missed: {', '.join(found)}" if (found := measure()) else None)

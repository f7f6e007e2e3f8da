"""`make demo`: export metrics with a local Airflow until Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.text import Text

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from demo.airflow import StandaloneAirflow
from demo.dagfile import DAG_ID, SHIPPED, USAGE_DAG_ID, install_dag
from demo.progress import Progress, ProgressMeter
from demo.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import TextIO

EMAIL, API_TOKEN = "dev@example.com", "sandbox-token"
# The real gateway allows 5 calls a minute; at that rate, a day takes twenty minutes.
SANDBOX_RATE = {"rate_limit_calls": 5, "rate_limit_seconds": 3}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(directory: Path) -> int:
    """Run the demo with its files in `directory` and return the exit status."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        settings = Settings.from_environment(os.environ)
        lock = take_lock(directory)
    except SettingsError as error:
        console.print(str(error), style="red")
        return 2
    for signum in SIGNALS:
        signal.signal(signum, interrupt)
    home = directory / settings.name
    progress, status = Progress(), 0
    with lock, ExitStack() as stack:
        try:
            for progress in run(settings, home, stack, console):  # noqa: B007 - the last value is the total
                pass
        except KeyboardInterrupt:
            console.print("Stopping Airflow…")
        except (httpx.HTTPError, RuntimeError, TimeoutError) as error:
            console.print(f"The demo has failed: {error}", style="red")
            status = 1
    console.print(f"{progress}. Everything has ended; logs are in {home}.")
    return status


def take_lock(directory: Path) -> TextIO:
    """Lock the directory for this process: a second demo would delete the files of the first."""
    directory.mkdir(exist_ok=True)
    lock = (directory / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise SettingsError(f"Another demo is running in {directory}; end it first.") from None
    return lock


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Interrupt the demo once: a second Ctrl-C must not interrupt the cleanup."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(settings: Settings, home: Path, stack: ExitStack, console: Console) -> Iterator[Progress]:
    """Start everything on `stack`, and yield the progress until interrupted."""
    gateway = sink = None
    if not settings.credentials:
        gateway = stack.enter_context(SandboxGateway(email=EMAIL, api_token=API_TOKEN, **SANDBOX_RATE))
    if not settings.collector:
        sink = stack.enter_context(OtlpSink())
        # With a real collector, the next demo resumes where this one ends, and sends nothing twice.
        shutil.rmtree(home, ignore_errors=True)
    install_dag(home / "dags", retention=timedelta(hours=settings.hours))
    shutil.copy(SHIPPED.with_name(f"{USAGE_DAG_ID}.py"), home / "dags")
    console.print("Starting Airflow, which takes about 30 seconds…")
    connections = {
        "AIRFLOW_CONN_FORGE_DEFAULT": json.dumps(forge_connection(settings, gateway)),
        "AIRFLOW_CONN_OTLP_DEFAULT": json.dumps({"conn_type": "otlp", "host": sink.url if sink else ""}),
    }
    airflow = stack.enter_context(StandaloneAirflow(home, **settings.otlp_environment, **connections))
    airflow.wait_for_dag(DAG_ID)
    airflow.api.pause(DAG_ID, paused=False)
    for name, value in facts(settings, airflow).items():
        console.print(f"{name:<15}{value}")
    yield from watch(ProgressMeter(airflow.api, sink), console)


def forge_connection(settings: Settings, gateway: SandboxGateway | None) -> dict[str, Any]:
    """Return the Connection `forge_default`."""
    if gateway:
        account = {"login": EMAIL, "password": API_TOKEN, "host": gateway.url}
        return {"conn_type": "forge", **account, "extra": {"app_id": gateway.app_id, **SANDBOX_RATE}}
    email, api_token, app_id = settings.credentials
    return {"conn_type": "forge", "login": email, "password": api_token, "extra": {"app_id": app_id}}


def facts(settings: Settings, airflow: StandaloneAirflow) -> dict[str, str]:
    """Return the addresses and settings to print."""
    sandbox = "sandbox, {rate_limit_calls} calls per {rate_limit_seconds} s".format(**SANDBOX_RATE)
    return {
        "Airflow": airflow.api.get("version")["version"],
        "Open": f"{airflow.url}/dags/{DAG_ID}",
        "Log in as": f"{airflow.username}, password {airflow.password}",
        "Gateway": "Atlassian, 5 calls per 60 s" if settings.credentials else sandbox,
        "Metrics go to": settings.collector or "sandbox, which counts them",
        "Windows": f"last {settings.hours} hours (by default: 14 days), then every 15 minutes",
        "Usage": f"{airflow.url}/dags/{USAGE_DAG_ID}, once you trigger it",
        "Stop with": "Ctrl-C",
    }


def watch(meter: ProgressMeter, console: Console) -> Iterator[Progress]:
    """Show the progress: in place on a terminal, otherwise one line per step."""
    shown = ()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            progress = meter.read()
            if console.is_terminal:
                live.update(Text("\n".join(progress.parts), style="bold"), refresh=True)
            elif shown != progress.steps:
                console.print(str(progress))
            shown = progress.steps
            yield progress
            time.sleep(1)


if __name__ == "__main__":
    # Airflow does not accept relative paths.
    sys.exit(main(Path(*sys.argv[1:2] or [".demo"]).resolve()))

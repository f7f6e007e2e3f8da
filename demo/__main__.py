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
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway
from airflow_provider_forge.windows import MAX_WINDOW, ceil
from demo.airflow import PASSWORDS, StandaloneAirflow
from demo.dagfile import COVERAGE_DAG_ID, DAG_ID, SHIPPED, USAGE_DAG_ID, install_dag
from demo.progress import Progress, ProgressMeter
from demo.screen import Screen
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
    screen = Screen()
    try:
        settings = Settings.from_environment(os.environ)
        lock = take_lock(directory)
    except SettingsError as error:
        screen.line(str(error), style="red")
        return 2
    for signum in SIGNALS:
        signal.signal(signum, interrupt)
    home = directory / settings.name
    progress, status = Progress(), 0
    with lock, ExitStack() as stack:
        try:
            airflow, sink = start(settings, home, stack, screen)
            for progress in watch(airflow, sink, screen):  # noqa: B007 - the last value is the total
                pass
        except KeyboardInterrupt:
            screen.line("Stopping Airflow…")
        except (httpx.HTTPError, RuntimeError, TimeoutError) as error:
            screen.line(f"The demo has failed: {error}", style="red")
            status = 1
    screen.line(f"{progress}.")
    screen.line(f"Everything has ended after {screen.elapsed}. Logs are in {home}.")
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


def start(
    settings: Settings, home: Path, stack: ExitStack, screen: Screen
) -> tuple[StandaloneAirflow, OtlpSink | None]:
    """Start all servers on `stack`, unpause the DAG, and print the addresses."""
    gateway = sink = None
    if not settings.credentials:
        with screen.step("Starting the sandbox: Atlassian's gateway"):
            gateway = stack.enter_context(SandboxGateway(email=EMAIL, api_token=API_TOKEN, **SANDBOX_RATE))
    if not settings.collector:
        with screen.step("Starting the sandbox: an OTLP receiver"):
            sink = stack.enter_context(OtlpSink())
        # With a real collector, the next demo resumes where this one ends, and sends nothing twice.
        shutil.rmtree(home, ignore_errors=True)
    began = datetime.now(timezone.utc)
    first = ceil(began - timedelta(hours=settings.hours), MAX_WINDOW)
    install_dag(home / "dags", start=first)
    for name in (COVERAGE_DAG_ID, USAGE_DAG_ID):
        shutil.copy(SHIPPED.with_name(f"{name}.py"), home / "dags")
    fix_login(home)
    connections = {
        "AIRFLOW_CONN_FORGE_DEFAULT": json.dumps(forge_connection(settings, gateway)),
        "AIRFLOW_CONN_OTLP_DEFAULT": json.dumps(otlp_connection(sink, began - first)),
    }
    with screen.step("Starting Airflow", expected="0:30"):
        airflow = stack.enter_context(StandaloneAirflow(home, **settings.otlp_environment, **connections))
    with screen.step("Reading the DAGs"):
        airflow.wait_for_dag(DAG_ID)
    airflow.api.pause(DAG_ID, paused=False)
    screen.table(facts(settings, airflow))
    return airflow, sink


def fix_login(home: Path) -> None:
    """Make the password equal to the username, in the file where Airflow would store a generated one."""
    username = StandaloneAirflow.username
    (home / PASSWORDS).write_text(json.dumps({username: username}) + "\n")


def forge_connection(settings: Settings, gateway: SandboxGateway | None) -> dict[str, Any]:
    """Return the Connection `forge_default`."""
    if gateway:
        account = {"login": EMAIL, "password": API_TOKEN, "host": gateway.url}
        return {"conn_type": "forge", **account, "extra": {"app_id": gateway.app_id, **SANDBOX_RATE}}
    email, api_token, app_id = settings.credentials
    return {"conn_type": "forge", "login": email, "password": api_token, "extra": {"app_id": app_id}}


def otlp_connection(sink: OtlpSink | None, history: timedelta) -> dict[str, Any]:
    """Return the Connection `otlp_default`.

    Args:
        sink: The sink. None with a real collector, which the environment configures.
        history: Age of the first window when the demo starts.
    """
    if not sink:
        return {"conn_type": "otlp", "host": ""}
    # Coverage looks back for as long as the destination keeps points. Less than a window more than the
    # history, so that it does not miss the window before it.
    keep = history + MAX_WINDOW - timedelta(minutes=1)
    return {"conn_type": "otlp", "host": sink.url, "extra": {"max_age": int(keep.total_seconds())}}


def facts(settings: Settings, airflow: StandaloneAirflow) -> dict[str, str]:
    """Return the addresses and settings to print."""
    sandbox = "sandbox, {rate_limit_calls} calls per {rate_limit_seconds} s".format(**SANDBOX_RATE)
    return {
        "Airflow": airflow.api.get("version")["version"],
        "Open": f"{airflow.url}/dags/{DAG_ID}",
        "Log in as": f"{airflow.username}, password {airflow.password} (reachable from this machine only)",
        "Gateway": "Atlassian, 5 calls per 60 s" if settings.credentials else sandbox,
        "Metrics go to": settings.collector or "sandbox, which counts them",
        "Windows": f"the newest, then the last {settings.hours} hours (DEMO_HOURS changes it)",
        "Stop with": "Ctrl-C",
    }


def watch(airflow: StandaloneAirflow, sink: OtlpSink | None, screen: Screen) -> Iterator[Progress]:
    """Show and yield the progress until interrupted, and suggestions once all windows are delivered."""
    meter, told = ProgressMeter(airflow.api, sink), False
    with screen.bar() as show:
        while True:
            progress = meter.read()
            show(progress)
            yield progress
            if progress.is_complete and not told:
                told = True
                if sink:
                    airflow.api.pause(COVERAGE_DAG_ID, paused=False)
                screen.line(ending(progress, airflow.url, screen.elapsed))
            time.sleep(1)


def ending(progress: Progress, url: str, elapsed: str) -> str:
    """Return the report of a complete delivery, with three suggestions."""
    delivered = "All" if not progress.failed else f"{progress.delivered} of the"
    return f"""\
{delivered} {progress.due} windows are delivered, {elapsed} after the start.
The next one is {progress.following}. Try these three:

1. See all windows on one page:
   {url}/plugin/forge
2. Deliver one twice: in the grid, clear a green square. Its log says that
   every point was delivered before, and nothing is sent.
3. See the app's usage and cost: trigger this DAG, and open its log.
   {url}/dags/{USAGE_DAG_ID}
"""


if __name__ == "__main__":
    # Airflow does not accept relative paths.
    sys.exit(main(Path(*sys.argv[1:2] or [".demo"]).resolve()))

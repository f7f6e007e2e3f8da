"""One try of a task, in a process that may be killed at any moment."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from airflow.sdk.exceptions import AirflowRuntimeError  # noqa: F401 - so that no try has to import it

from airflow_provider_forge.delivery import exporter as exporter_module
from airflow_provider_forge.exceptions import RetryableError
from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator
from airflow_provider_forge.otlp.client import OtlpClient
from airflow_provider_forge.utils import secrets
from tests.storms.plans import APP
from tests.storms.servers import user_agent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from random import Random

    from tests.storms.journal import Journal
    from tests.storms.plans import Plan, Run

__all__ = ["CALM", "DEFERRED", "FAILED", "FINAL", "SUCCESS", "Place", "attempt", "fork_attempt"]

CALM = "calm"
"""Name of the run that has no bad luck."""

SUCCESS, FAILED, FINAL, DEFERRED, UNFORESEEN = 0, 10, 11, 12, 13

# What a process can be killed at: before it does any of this.
_STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "fcntl.flock", "socket.connect"}
_LIKELY_STEPS = 150


@dataclass(frozen=True)
class Place:
    """Where a storm is.

    Attributes:
        directory: For everything that it keeps.
        gateway: URL.
        receiver: URL.
    """

    directory: Path
    gateway: str
    receiver: str


class SharedRows:
    """Rows that all processes share: Airflow's own store, which writes with no look at what was there.

    It lets a writer erase what another one wrote after the first has read it, and says whom that befell.

    Args:
        directory: For a file for each.
        who: Reads and writes.
        erased: Called with a key, and who wrote what this one has erased unseen.
    """

    def __init__(
        self, directory: Path, who: str = "", erased: Callable[[str, list[str]], None] = lambda *_: None
    ) -> None:
        self._directory = directory
        self._who = who
        self._erased = erased
        self._seen: dict[str, int] = {}
        directory.mkdir(exist_ok=True)

    def get(self, key: str) -> Any:
        """Return the value; None where there is none."""
        row = self._read(key)
        self._seen[key] = len(row["writers"])
        return row["value"]

    def set(self, key: str, value: Any) -> None:
        """Put a value there, whatever is there."""
        with self._locked(key):
            writers = self._read(key)["writers"]
            self._write(key, {"writers": [*writers, self._who], "value": value})
        if unseen := set(writers[self._seen.get(key, 0) :]) - {self._who}:
            self._erased(key, sorted(unseen))
        self._seen[key] = len(writers) + 1

    def delete(self, key: str) -> None:
        """Take a value away."""
        self._path(key).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        with self._path(f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self, key: str) -> Any:
        try:
            return json.loads(self._path(key).read_text())
        except FileNotFoundError:
            return {"writers": [], "value": None}

    def _write(self, key: str, row: Any) -> None:
        draft = self._path(f"{key}.draft")
        draft.write_text(json.dumps(row))
        draft.replace(self._path(key))

    def _path(self, key: str) -> Path:
        return self._directory / quote(key, safe="")


class UnreliableRows:
    """The same, where the API server is away at times, before it did something or after it.

    Args:
        rows: Where they are kept.
        draw: Random numbers.
        rate: Part of calls that fail.
        failed: Called with what has failed.
    """

    def __init__(self, rows: SharedRows, draw: Random, rate: float, failed: Callable[[str], None]) -> None:
        self._rows = rows
        self._draw = draw
        self._rate = rate
        self._failed = failed

    def __getitem__(self, _: Any) -> UnreliableRows:
        return self

    def get(self, key: str) -> Any:
        return self._try("get", key)

    def set(self, key: str, value: Any) -> None:
        self._try("set", key, value)

    def delete(self, key: str) -> None:
        self._try("delete", key)

    def _try(self, verb: str, *arguments: Any) -> Any:
        fate = self._draw.random()
        if fate < self._rate / 2:
            self._failed(f"before {verb} of {arguments[0]}")
            raise OSError("the API server is away")
        result = getattr(self._rows, verb)(*arguments)
        if fate < self._rate:
            self._failed(f"after {verb} of {arguments[0]}")
            raise OSError("the API server has gone away")
        return result


class _Reporter(logging.Handler):
    """Writes down what a try says to people."""

    def __init__(self, say: Callable[..., None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say("warned", text=record.getMessage())


def attempt(
    plan: Plan, place: Place, run: Run, number: int, journal: Journal, left: dict[str, Any] | None = None
) -> tuple[int, Any]:
    """Do one try in this process; return how it ended, and the summary or what is left to resume.

    Args:
        plan: Of the storm.
        place: Where it is.
        run: Whose try it is.
        number: Of the try, from 1.
        journal: For what happens.
        left: What the deferral before has left.
    """
    who = f"{run.name}/{number}"

    def say(what: str, **details: Any) -> None:
        journal.write(who, what, **details)

    with _connected(plan, place, run, who), _watched(say):
        context = _context(plan, place, run, number, say)
        operator = ForgeMetricsToOtlpOperator(task_id="export", **{"telemetry": False, **run.arguments})
        say("began", start=str(plan.moment(run.start)), end=str(plan.moment(run.end)))
        try:
            result = operator.execute_complete(context, None, **left) if left else operator.execute(context)
        except TaskDeferred as deferred:
            say("deferred", why=str(deferred.kwargs))
            return DEFERRED, deferred.kwargs
        except (AirflowFailException, RetryableError) as error:
            say("failed", error=f"{type(error).__name__}: {error}")
            return (FINAL if isinstance(error, AirflowFailException) else FAILED), None
        summary = {
            name: result[name]
            for name in ("points", "sent", "unchanged", "changed", "ambiguous", "contended")
        }
        say("succeeded", **summary)
        return SUCCESS, result


def fork_attempt(
    plan: Plan, place: Place, run: Run, number: int, journal: Journal, left: dict[str, Any] | None
) -> int:
    """Do one try in a process of its own, which is killed where the plan says so; return its id."""
    if pid := os.fork():
        return pid
    code = UNFORESEEN
    try:
        silence()
        # What is collected here was made by the parent, and costs a copy of its memory.
        gc.disable()
        draw = plan.random("kill", run.name, number)
        if number <= 4 and run.name != CALM and draw.random() < plan.kill_rate:
            _die_at(1 + int(draw.random() ** 1.5 * _LIKELY_STEPS), journal, f"{run.name}/{number}")
        code, result = attempt(plan, place, run, number, journal, left)
        left_behind(place, run).write_text(json.dumps(result))
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
        journal.write(f"{run.name}/{number}", "unforeseen", error=traceback.format_exc())
    finally:
        os._exit(code)


def left_behind(place: Place, run: Run) -> Path:
    """Return the file in which a try leaves its result for the director."""
    return place.directory / f"left-{run.name}"


def silence() -> None:
    """Let Airflow print nothing in this process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _die_at(step: int, journal: Journal, who: str) -> None:
    """Kill this process before its nth step, whatever code of the product does it."""
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in _STEPS:
            count += 1
            if count == step:
                journal.write(who, "dies", before=event, of=str(arguments[0]))
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@contextlib.contextmanager
def _connected(plan: Plan, place: Place, run: Run, who: str) -> Iterator[None]:
    """Set Connections, Variables and the machine's directory, for this process and the rest of its life."""
    extra = {
        "headers": {"User-Agent": user_agent(who)},
        "protocol": plan.protocol,
        "max_body_bytes": plan.max_body_bytes,
        "timeout": 20,
    }
    if plan.in_files:
        extra["ledger_url"] = (place.directory / "ledger").as_uri()
    forge = {"app_id": APP, "rate_limit_calls": 10000, "rate_limit_seconds": 0.1, "timeout": 20}
    connections = {
        "FORGE_DEFAULT": {
            "conn_type": "forge",
            "host": place.gateway,
            "login": "a@b.c",
            "password": "storm",
            "extra": forge,
        },
        "OTLP_DEFAULT": {"conn_type": "otlp", "host": place.receiver, "extra": extra},
    }
    for name, connection in connections.items():
        os.environ[f"AIRFLOW_CONN_{name}"] = json.dumps(connection)
    machine = place.directory / f"machine{run.machine}"
    machine.mkdir(exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(machine)
    variables = SharedRows(place.directory / "variables")
    secrets.Variable.get = staticmethod(lambda key, default=None: variables.get(key) or default)
    secrets.Variable.set = staticmethod(lambda key, value, **_: variables.set(key, value))
    yield


@contextlib.contextmanager
def _watched(say: Callable[..., None]) -> Iterator[None]:
    """Write down windows, requests and what is said about them."""
    logger = logging.getLogger("airflow_provider_forge")
    handler = _Reporter(say)
    logger.addHandler(handler)
    logger.propagate = False
    deliver, export = exporter_module.deliver, OtlpClient.export

    def watched_deliver(
        metrics: Any, payload: Any, destination: Any, policy: Any, stats: Any, *more: Any
    ) -> Any:
        say("opened", window=f"{metrics.window.start:%H:%M:%S}-{metrics.window.end:%H:%M:%S}")
        try:
            return deliver(metrics, payload, destination, policy, stats, *more)
        finally:
            numbers = {name: value for name, value in vars(stats).items() if name != "problems" and value}
            say("closed", **numbers, problems=[str(problem) for problem in stats.problems])

    def watched_export(client: OtlpClient, request: Any, **more: Any) -> Any:
        say("posts", points=request.points)
        try:
            result = export(client, request, **more)
        except Exception as error:
            say(
                "no success",
                error=f"{type(error).__name__}: {error}",
                stored=getattr(error, "maybe_stored", None),
            )
            raise
        say("acknowledged")
        return result

    exporter_module.deliver, OtlpClient.export = watched_deliver, watched_export
    try:
        yield
    finally:
        exporter_module.deliver, OtlpClient.export = deliver, export
        logger.removeHandler(handler)


def _context(plan: Plan, place: Place, run: Run, number: int, say: Callable[..., None]) -> dict[str, Any]:
    context: dict[str, Any] = {
        "data_interval_start": plan.moment(run.start),
        "data_interval_end": plan.moment(run.end),
        "dag_run": SimpleNamespace(start_date=None, run_type="scheduled", run_after=plan.moment(run.end)),
    }
    if not plan.in_files:
        rate = plan.fault_rate / 8 if number <= 4 and run.name != CALM else 0.0
        context["asset_state_store"] = UnreliableRows(
            SharedRows(
                place.directory / "rows",
                f"{run.name}/{number}",
                lambda key, victims: say("erases", key=key, victims=victims),
            ),
            plan.random("rows", run.name, number),
            rate,
            lambda what: say("no record", failed=what),
        )
    return context

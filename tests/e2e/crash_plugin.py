"""A plugin for Airflow that kills a task's process at a chosen step of its way.

A run says in its `conf` at which step which try dies: `{"crashes": ["after the call"]}` is the first try;
with `"with_supervisor": true` the process dies together with the one that watches over it.
"""

from __future__ import annotations

import functools
import os
import signal
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


@dataclass(frozen=True)
class Step:
    """A moment right before or after a call of a method; `call` counts from 1."""

    moment: str
    owner: str
    method: str
    call: int = 1


_FETCH = ("airflow_provider_forge.hooks.forge:ForgeMetricsHook", "fetch")
_POST = ("airflow_provider_forge.otlp.client:OtlpClient", "export")
_RECORD = ("airflow_provider_forge.delivery.session:LedgerSession", "save")
_CELL = ("airflow_provider_forge.delivery.record_store:RecordStore", "save")
_END = ("airflow_provider_forge.delivery.session:LedgerSession", "prune")

STEPS = {
    "before the call": Step("before", *_FETCH),
    "after the call": Step("after", *_FETCH),
    "within the first intent": Step("after", *_CELL),
    "after the intent": Step("after", *_RECORD),
    "after the post and before the record": Step("after", *_POST),
    "between batches": Step("before", *_POST, call=2),
    "after the second post and before the record": Step("after", *_POST, call=2),
    "after the record": Step("before", *_END),
}


class CrashListener:
    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """Set the trap; called in the task's own process, once all that Airflow prepares is done."""
        conf = task_instance.get_template_context()["dag_run"].conf or {}
        crashes = dict(enumerate(conf.get("crashes", ()), start=1))
        if name := crashes.get(task_instance.try_number):
            _set_trap(STEPS[name], with_supervisor=conf.get("with_supervisor", False))


def _set_trap(step: Step, *, with_supervisor: bool) -> None:
    # Resolved here, in the task: Airflow loads this file in all its processes.
    owner = resolve_name(step.owner)
    method = getattr(owner, step.method)
    calls = 0

    @functools.wraps(method)
    def trapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step.call and step.moment == "before":
            _die(with_supervisor)
        result = method(*args, **kwargs)
        if calls == step.call and step.moment == "after":
            _die(with_supervisor)
        return result

    setattr(owner, step.method, trapped)


def _die(with_supervisor: bool) -> None:
    if with_supervisor:
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


class CrashPlugin(AirflowPlugin):
    name = "crash"
    listeners = [CrashListener()]  # noqa: RUF012 - as the base class has it

"""`python -m benchmarks.hops`: the code that one window passes through, from `execute` to the POST.

Runs the operator once, on one settled window, between the sandbox's gateway and sink, and traces every call
into the package. Prints the number of modules and functions entered, and the call stack when the request to
the receiver is sent. `--list` prints the names as well.
"""

from __future__ import annotations

import datetime as dt
import inspect
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway

if TYPE_CHECKING:
    from types import FrameType

PACKAGE = "airflow_provider_forge"
AIMS = {"modules": 30, "depth": 9}
"""Maximum number of modules entered, and of calls from `execute` to the POST."""

POST = ("httpx._client", "stream")
"""httpx's function that sends a request."""

_PART_OF_A_FUNCTION = {"<lambda>", "<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"}


class Hops(NamedTuple):
    """The code that one window passes through.

    Attributes:
        modules: Names of the modules entered.
        functions: Qualified names of the functions entered, in the order of their first calls.
        stack: Qualified names of the package's functions on the stack at the POST, `execute` first.
    """

    modules: set[str]
    functions: list[str]
    stack: list[str]


def main() -> None:
    """Print the figures; exit with status 1 if one exceeds its aim."""
    hops = measure()
    figures = {"modules": len(hops.modules), "depth": len(hops.stack)}
    print(f"modules entered    {figures['modules']:4}  (at most {AIMS['modules']})")
    print(f"functions entered  {len(hops.functions):4}")
    print(f"calls to the POST  {figures['depth']:4}  (at most {AIMS['depth']})")
    print(*(f"  {'  ' * depth}{name}" for depth, name in enumerate(hops.stack)), sep="\n")
    if sys.argv[1:] == ["--list"]:
        print(*sorted(hops.modules), "", *hops.functions, sep="\n")
    missed = [name for name, most in AIMS.items() if figures[name] > most]
    sys.exit(f"Missed: {', '.join(missed)}" if missed else None)


def measure() -> Hops:
    """Run the operator for one window and return the code it passes through."""
    with tempfile.TemporaryDirectory() as directory, SandboxGateway() as gateway, OtlpSink() as sink:
        os.environ |= settings(Path(directory), gateway, sink)
        # Airflow reads its environment at import.
        from airflow_provider_forge.operators.forge_metrics_to_otlp import ForgeMetricsToOtlpOperator

        end = dt.datetime.now(dt.timezone.utc).replace(minute=0, second=0, microsecond=0) - dt.timedelta(
            hours=3
        )
        operator = ForgeMetricsToOtlpOperator(
            task_id="deliver", interval_start=end - dt.timedelta(minutes=15), interval_end=end
        )
        recorder = CallRecorder()
        sys.setprofile(recorder)
        try:
            operator.execute({})
        finally:
            sys.setprofile(None)
        if not sink.points:
            sys.exit("The sink received no points, so nothing was measured")
    return Hops(recorder.modules, list(recorder.functions), recorder.stack)


def settings(directory: Path, gateway: SandboxGateway, sink: OtlpSink) -> dict[str, str]:
    """Return the environment of a task, with both Connections and a new ledger."""
    forge = {
        "conn_type": "forge",
        "host": gateway.url,
        "login": gateway.email,
        "password": gateway.api_token,
        "extra": {"app_id": gateway.app_id},
    }
    otlp = {
        "conn_type": "otlp",
        "host": sink.url,
        "extra": {"ledger_url": directory.joinpath("ledger").as_uri()},
    }
    return {
        "AIRFLOW_HOME": str(directory),
        "TMPDIR": str(directory),
        "AIRFLOW_CONN_FORGE_DEFAULT": json.dumps(forge),
        "AIRFLOW_CONN_OTLP_DEFAULT": json.dumps(otlp),
    }


class CallRecorder:
    """A profile function that records the calls into the package.

    Attributes:
        modules: As in `Hops`.
        functions: Likewise.
        stack: Likewise.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.functions: dict[str, None] = {}
        self.stack: list[str] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        if is_ours(frame):
            self.modules.add(frame.f_globals["__name__"])
            self.functions[name_of(frame)] = None
        elif not self.stack and is_post(frame):
            self.stack = stack_of(frame)


def is_post(frame: FrameType) -> bool:
    """Return whether httpx is about to send a request to the receiver."""
    function = frame.f_globals.get("__name__"), frame.f_code.co_name
    return function == POST and str(frame.f_locals["url"]).endswith("/v1/metrics")


def is_ours(frame: FrameType) -> bool:
    """Return whether a frame is a function of the package, and not of the sandbox."""
    name, code = frame.f_globals.get("__name__", ""), frame.f_code
    return bool(
        name.startswith(f"{PACKAGE}.")
        and not name.startswith(f"{PACKAGE}.sandbox")
        and code.co_name not in _PART_OF_A_FUNCTION
        # Not modules, class bodies and generated methods of dataclasses.
        and code.co_flags & inspect.CO_OPTIMIZED
        and code.co_filename != "<string>"
        and "__create_fn__" not in name_of(frame)
    )


def name_of(frame: FrameType) -> str:
    """Return the module, without the package, and the qualified name of a frame's function."""
    # Python 3.10 has no qualified names of code objects.
    name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
    return f"{frame.f_globals['__name__'].removeprefix(PACKAGE + '.')}:{name}"


def stack_of(frame: FrameType | None) -> list[str]:
    """Return the package's functions on the stack, the outermost first."""
    names = []
    while frame is not None:
        if is_ours(frame):
            names.append(name_of(frame))
        frame = frame.f_back
    return names[::-1]


if __name__ == "__main__":
    main()

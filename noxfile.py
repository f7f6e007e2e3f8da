"""The tests on every Airflow that is supported: `nox`, or `nox -s 'airflow(3.0)'` for one of them.

An environment is made anew each time, which takes seconds: uv keeps what it installs in its cache, by
version, outside the repository and for all clones.
"""

from __future__ import annotations

from typing import NamedTuple

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"


class Airflow(NamedTuple):
    """A release that the tests run on.

    Attributes:
        version: The newest patch of its minor.
        until: The libraries beside it are the newest before that day, as its constraints file would have
            them: no release works for long with those that come after it. None for today's.
        more: What else is installed.
        skips: Reasons, as regular expressions, for which a test may be skipped: what it does not have.
    """

    version: str
    until: str | None = None
    more: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()


NO_COMMANDS = "Airflow before 3.2 has no commands of providers"
NO_RETRY_POLICIES = "could not import 'airflow.sdk.definitions.retry_policy'"
NO_STATE_STORE = "Airflow has an asset state store as of 3.3"
NO_LIST_OF_VARIABLES = "Airflow lists Variables as of 3.3"
ERRORS_OF_THE_API = "Airflow 3.0 raises what the API server says"
BEFORE_3_3 = (NO_RETRY_POLICIES, NO_STATE_STORE, NO_LIST_OF_VARIABLES)

# Before 3.2, Airflow shows fields of a provider's only where wtforms is installed.
AIRFLOWS = {
    "3.0": Airflow("3.0.6", "2025-09-05", ("wtforms",), (ERRORS_OF_THE_API, NO_COMMANDS, *BEFORE_3_3)),
    "3.1": Airflow("3.1.8", "2026-03-20", ("wtforms",), (NO_COMMANDS, *BEFORE_3_3)),
    "3.2": Airflow("3.2.2", "2026-06-01", (), BEFORE_3_3),
    "3.3": Airflow("3.3.2"),
}

# Of the receivers, Redis and others: .venv runs those tests too, where nothing may be skipped.
NO_PROGRAM = r"the program .* is missing"

# The one library whose newer version we ask for beside an old Airflow.
SHIM = "apache-airflow-providers-common-compat"

TOOLS = ("hypothesis>=6.100", "pyte>=0.8", "pytest>=8.3", "pytest-timeout>=2.3", "pytest-xdist>=3.7")

# What is different from one Airflow to another: discovery, the forms both ways, the timetable, `dag.test()`.
QUICK = (
    "tests/test_coverage_dag.py",
    "tests/test_dag.py",
    "tests/test_forms.py",
    "tests/test_priority.py",
    "tests/test_provider.py",
    "tests/test_timetables.py",
    "tests/hooks",
    "tests/operators",
    "tests/delivery/test_stores.py",
    "tests/cli/test_commands.py",
)

# What needs a whole deployment, and what an Airflow has no part in.
LEFT_OUT = (
    "tests/cli/test_terminal.py",
    "tests/dashboards",
    "tests/deploy",
    "tests/e2e",
    "tests/sandbox",
    "tests/test_fuzz.py",
    "tests/test_import_cost.py",
    "tests/test_wheel.py",
)


@nox.session
@nox.parametrize("name", list(AIRFLOWS), ids=list(AIRFLOWS))
def airflow(session: nox.Session, name: str) -> None:
    """Run the unit tests and `dag.test()`; with the argument `quick`, of the former a part."""
    release = AIRFLOWS[name]
    libraries = (
        ("--exclude-newer", release.until, "--exclude-newer-package", f"{SHIM}=false")
        if release.until
        else ()
    )
    session.install(
        *libraries,
        *("--editable", ".[fast,redis,sandbox]", f"apache-airflow=={release.version}"),
        *(*TOOLS, *release.more),
    )
    quick = session.posargs == ["quick"]
    units = QUICK if quick else ("tests", *(f"--ignore={path}" for path in LEFT_OUT))
    for paths in (units, ("tests/e2e/test_dag_test.py",)):
        session.run(
            *("python", "-m", "pytest", "-m", "not long", "-p", "no:cacheprovider"),
            *("--numprocesses", "2", "--dist", "loadfile"),
            # What an old release warns of is not ours to mend.
            *("-W", "default", "--disable-warnings"),
            *paths,
            # No test may vanish in silence, but for what the release does not have.
            env={
                "FORGE_TESTS_NO_SKIP": "1",
                "FORGE_TESTS_ALLOWED_SKIPS": "|".join((NO_PROGRAM, *release.skips)),
            },
        )

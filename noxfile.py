"""Run the tests on every supported Airflow: `nox`, or `nox -s 'airflow(3.0)'` for one version.

Each run creates its environment from scratch. This takes seconds, because uv caches downloads by version,
outside the repository and for all clones.
"""

from __future__ import annotations

from typing import NamedTuple

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv"


class Airflow(NamedTuple):
    """An Airflow release to test on.

    Attributes:
        version: The newest patch release of its minor version.
        until: Date before which all other libraries were released, to approximate the release's constraints
            file: later libraries eventually break a release. None for the current libraries.
        more: Additional packages to install.
        skips: Permitted reasons for skipped tests, as regular expressions: features that the release lacks.
        upcoming: Whether it is a beta: its failures are shown, but fail nothing.
        whole: Tests that start all of its components.
    """

    version: str
    until: str | None = None
    more: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()
    upcoming: bool = False
    whole: tuple[str, ...] = ()


NO_COMMANDS = "Airflow before 3.2 has no commands of providers"
NO_RETRY_POLICIES = "could not import 'airflow.sdk.definitions.retry_policy'"
NO_STATE_STORE = "Airflow has an asset state store as of 3.3"
NO_PAGES = "Airflow has pages of plugins as of 3.1"
NO_LIST_OF_VARIABLES = "Airflow lists Variables as of 3.3"
ERRORS_OF_THE_API = "Airflow 3.0 raises what the API server says"
BEFORE_3_3 = (NO_RETRY_POLICIES, NO_STATE_STORE, NO_LIST_OF_VARIABLES)

# Before 3.2, Airflow shows a provider's form fields only if wtforms is installed.
AIRFLOWS = {
    "3.0": Airflow(
        "3.0.6", "2025-09-05", ("wtforms",), (ERRORS_OF_THE_API, NO_COMMANDS, NO_PAGES, *BEFORE_3_3)
    ),
    "3.1": Airflow("3.1.8", "2026-03-20", ("wtforms",), (NO_COMMANDS, *BEFORE_3_3)),
    "3.2": Airflow("3.2.2", "2026-06-01", (), BEFORE_3_3),
    "3.3": Airflow("3.3.2"),
    "3.4": Airflow(
        "3.4.0b2", upcoming=True, whole=("tests/e2e/test_outage.py", "tests/e2e/test_standalone.py")
    ),
}

# `make test-long` opens a browser on the current one.
OTHERS = [name for name, release in AIRFLOWS.items() if release.until or release.upcoming]

# For the receivers, Redis and others: .venv runs these tests as well, where none may be skipped.
NO_PROGRAM = r"the program .* is missing"

# These must be newer than an old Airflow: a library, and what builds the package.
NEWER = ("apache-airflow-providers-common-compat", "hatchling")

TOOLS = ("hypothesis>=6.100", "pyte>=0.8", "pytest>=8.3", "pytest-timeout>=2.3", "pytest-xdist>=3.7")

# For a whole Airflow: PostgreSQL's drivers, and the client with which it sends its own metrics.
FOR_WHOLE = ("asyncpg>=0.30", "psycopg2-binary>=2.9", "statsd>=4")

# Drives a browser.
BROWSER = ("pillow>=10", "playwright>=1.50")

# Tests of the differences between releases: discovery, both kinds of forms, the timetable, `dag.test()`.
QUICK = (
    "tests/test_coverage_dag.py",
    "tests/test_dag.py",
    "tests/test_connection_forms.py",
    "tests/test_priority.py",
    "tests/test_provider.py",
    "tests/test_timetables.py",
    "tests/hooks",
    "tests/connections",
    "tests/utils/test_dag_runs.py",
    "tests/utils/test_ledger.py",
    "tests/utils/test_run_interval.py",
    "tests/operators",
    "tests/page/test_files.py",
    "tests/delivery/test_stores.py",
    "tests/cli/test_commands.py",
)

# Tests that need a complete deployment, and tests that do not depend on Airflow.
LEFT_OUT = (
    "tests/archive/test_formats.py",
    "tests/benchmarks",
    "tests/cli/test_terminal.py",
    "tests/compose",
    "tests/dashboards",
    "tests/deploy",
    "tests/e2e",
    "tests/page/test_in_browser.py",
    "tests/sandbox",
    "tests/test_distribution.py",
    "tests/test_fuzz.py",
    "tests/test_import_cost.py",
    "tests/test_repository.py",
    "tests/test_site.py",
)


@nox.session
@nox.parametrize("name", list(AIRFLOWS), ids=list(AIRFLOWS))
def airflow(session: nox.Session, name: str) -> None:
    """Run the unit tests, `dag.test()` and the tests of a whole Airflow.

    With the argument `quick`, run a subset of the unit tests and `dag.test()`; with `whole`, only the last.
    """
    release = AIRFLOWS[name]
    install(session, release, *(FOR_WHOLE if release.whole else ()))
    for marks, paths in chosen(release, session.posargs):
        test(session, release, "-m", marks, "--numprocesses", "2", "--dist", "loadfile", *paths)


@nox.session
@nox.parametrize("name", OTHERS, ids=OTHERS)
def page(session: nox.Session, name: str) -> None:
    """Open the page *Forge* of a whole Airflow in a browser, and heal a gap there."""
    release = AIRFLOWS[name]
    install(session, release, *FOR_WHOLE, *BROWSER)
    test(session, release, "-m", "long", "tests/e2e/test_page.py")


def install(session: nox.Session, release: Airflow, *more: str) -> None:
    """Install the package with an Airflow and the tests' tools."""
    libraries = (
        ("--exclude-newer", release.until, *(f"--exclude-newer-package={name}=false" for name in NEWER))
        if release.until
        else ()
    )
    session.install(
        *libraries,
        *("--editable", ".[fast,redis,sandbox]", f"apache-airflow=={release.version}"),
        *(*TOOLS, *more, *release.more),
    )


def test(session: nox.Session, release: Airflow, *arguments: str) -> None:
    """Run pytest with these arguments."""
    session.run(
        *("python", "-m", "pytest", "-p", "no:cacheprovider"),
        # Warnings of an old release cannot be fixed here.
        *("-W", "default", "--disable-warnings"),
        *arguments,
        success_codes=(0, 1) if release.upcoming else (0,),
        # No test may be skipped silently, except for features that the release lacks.
        env={
            "FORGE_TESTS_NO_SKIP": "1",
            "FORGE_TESTS_ALLOWED_SKIPS": "|".join((NO_PROGRAM, *release.skips)),
        },
    )


def chosen(release: Airflow, arguments: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the runs of pytest, each as an expression of marks and paths."""
    quick = ("not long", QUICK)
    units = ("not long", ("tests", *(f"--ignore={path}" for path in LEFT_OUT)))
    dag_test = ("not long", ("tests/e2e/test_dag_test.py",))
    whole = [("", release.whole)] if release.whole else []
    if arguments == ["whole"]:
        return whole
    return [quick, dag_test] if arguments == ["quick"] else [units, dag_test, *whole]

"""A PostgreSQL of its own for one Airflow: SQLite refuses a backfill while other runs are going on."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.processes import ManagedProcess, clean_environment, free_ports
from demo.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian keeps the server's programs out of PATH.
DEBIAN = Path("/usr/lib/postgresql")
# PostgreSQL refuses to run as root.
INSTEAD_OF_ROOT = "nobody"
# Read before a test sets its own, which is closed to other users.
TEMPORARY = tempfile.gettempdir()


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL server and yield SQLAlchemy's URL of an empty database."""
    for module in ("psycopg2", "asyncpg"):
        pytest.importorskip(
            module, reason=f"the module {module} is missing, with which Airflow uses PostgreSQL"
        )
    initdb, server = program("initdb"), program("postgres")
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="forge-postgres-", dir=TEMPORARY) as name:
        directory = Path(name)
        user = None
        if os.geteuid() == 0:
            user = INSTEAD_OF_ROOT
            account = pwd.getpwnam(user)
            os.chown(directory, account.pw_uid, account.pw_gid)
        make = [
            initdb,
            "--pgdata",
            "data",
            "--username=airflow",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-sync",
        ]
        subprocess.run(make, cwd=directory, user=user, check=True, capture_output=True)
        options = {
            "fsync": "off",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": port,
        }
        run = [server, "-D", str(directory / "data")]
        run += [text for name, value in options.items() for text in ("-c", f"{name}={value}")]
        log_file = directory / "postgres.log"
        with ManagedProcess(run, env=clean_environment(), log_file=log_file, user=user) as process:
            wait_for(lambda: "ready to accept connections" in process.log(), timeout=30, what="PostgreSQL")
            yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"


def program(name: str) -> str:
    """Return the path of one of the server's programs; skip the test if it is missing."""
    places = [os.environ.get("PATH", os.defpath), *(str(path) for path in sorted(DEBIAN.glob("*/bin")))]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        pytest.skip(f"the program {name} is missing (Debian package postgresql)")
    return found

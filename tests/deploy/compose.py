"""docker-compose.yaml as `docker compose` understands it."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

from tests.receivers.programs import program

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "docker-compose.yaml"
EXAMPLE = ROOT / ".env.example"
# The values that a user has to fill in.
REQUIRED = re.findall(r"^(\w+)=$", EXAMPLE.read_text(), re.MULTILINE)
SANDBOX = {
    "COMPOSE_PROFILES": "sandbox",
    "FORGE_GATEWAY_URL": "http://sandbox:8080/graphql",
    "FORGE_ALLOW_CLEARTEXT": "true",
}

Json = dict[str, Any]


def filled_in() -> dict[str, str]:
    """Return a unique value for each name that a user has to fill in."""
    values = {name: secrets.token_hex(12) for name in REQUIRED}
    return {**values, "AIRFLOW_FERNET_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode()}


def read(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Read the file with only these variables."""
    # A developer's own .env must have no effect.
    env = {**variables, "COMPOSE_DISABLE_ENV_FILE": "1"}
    command = [program("compose-config"), str(FILE)]
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True)


def project(**variables: str) -> Json:
    """Return the project with all required values filled in.

    Args:
        variables: Additional values, which take precedence.
    """
    done = read({**filled_in(), **variables})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

"""Nothing of ours that is heavy is imported when a DAG file is parsed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

DAGS = Path(__file__).parent.parent / "dags"

# Airflow imports some of these itself, so what counts is who asks for them.
PROGRAM = """
import builtins, json, runpy, sys

HEAVY = {"google", "graphql", "httpx", "isal", "msgspec", "opentelemetry", "redis"}
asked, real = set(), builtins.__import__

def watched(name, globals=None, *arguments, **options):
    asker = (globals or {}).get("__name__") or ""
    if asker.split(".")[0] == "airflow_provider_forge" and name.split(".")[0] in HEAVY:
        asked.add((asker, name))
    return real(name, globals, *arguments, **options)

builtins.__import__ = watched
for file in sys.argv[1:]:
    runpy.run_path(file)
import airflow_provider_forge.hooks.forge, airflow_provider_forge.hooks.otlp, airflow_provider_forge.plugin
ours = [name for name in sys.modules if name.startswith("airflow_provider_forge.")]
print(json.dumps([sorted(asked), ours]))
"""


def test_parsing_the_dags_imports_neither_msgspec_nor_protobuf_nor_httpx():
    run = subprocess.run([sys.executable, "-c", PROGRAM, *DAGS.glob("*.py")], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    asked, ours = json.loads(run.stdout.splitlines()[-1])
    assert asked == []
    for operator in ("forge_metrics_to_otlp", "forge_metrics_coverage"):
        assert f"airflow_provider_forge.operators.{operator}" in ours
    assert not [name for name in ours if name.split(".")[1] in ("delivery", "otlp", "sandbox")]

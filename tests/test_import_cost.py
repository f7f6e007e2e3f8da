"""Nothing of ours that is heavy is imported when a DAG file is parsed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

DAG = Path(__file__).parent.parent / "dags" / "forge_metrics.py"

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
runpy.run_path(sys.argv[1])
import airflow_provider_forge.hooks.forge, airflow_provider_forge.hooks.otlp, airflow_provider_forge.plugin
ours = [name for name in sys.modules if name.startswith("airflow_provider_forge.")]
print(json.dumps([sorted(asked), ours]))
"""


def test_parsing_the_dag_imports_neither_msgspec_nor_protobuf_nor_httpx():
    run = subprocess.run([sys.executable, "-c", PROGRAM, DAG], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    asked, ours = json.loads(run.stdout.splitlines()[-1])
    assert asked == []
    assert "airflow_provider_forge.operators.forge_metrics_to_otlp" in ours
    assert not [name for name in ours if name.split(".")[1] in ("delivery", "otlp", "sandbox")]

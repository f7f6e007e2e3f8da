"""`python -m airflow_provider_forge`."""

from __future__ import annotations

import sys

from airflow_provider_forge.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())

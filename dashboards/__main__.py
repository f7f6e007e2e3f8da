"""Write the dashboards that Grafana reads: `python -m dashboards [directory]`."""

from __future__ import annotations

import sys
from pathlib import Path

from dashboards.generate import DIRECTORY, generated


def main() -> None:
    """Write all dashboards."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY
    for name, text in generated().items():
        (directory / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

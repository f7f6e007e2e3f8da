"""An OpenTelemetry Collector, made by its own builder, with the configuration files that users get."""

from __future__ import annotations

from pathlib import Path

from demo.processes import free_ports
from tests.receivers.receiver import Receiver

CONFIGURATIONS = Path(__file__).parent.parent.parent / "deploy" / "collector"
SIDECAR = CONFIGURATIONS / "destinations" / "sidecar.yaml"


class Collector(Receiver):
    """A Collector that passes metrics on, without a queue: what it took, the next one has.

    Args:
        directory: For its files.
        *files: Its configuration; each adds to the one before, and wins.
        **variables: What the files take from the environment, but for where it listens.
    """

    def __init__(self, directory: Path, *files: Path, **variables: str) -> None:
        [port] = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        super().__init__(
            "otelcol",
            [text for file in files for text in ("--config", str(file))],
            directory=directory,
            url=url,
            health=url,
            variables={"OTLP_LISTEN": f"127.0.0.1:{port}", **variables},
        )

"""An OpenTelemetry Collector, made by its own builder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.processes import free_ports
from tests.receivers.receiver import Receiver

if TYPE_CHECKING:
    from pathlib import Path

# Without a queue, it answers when the next one has answered: what it took, that one has.
CONFIGURATION = """\
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{port}
exporters:
  otlp_http:
    endpoint: {next_url}
    sending_queue:
      enabled: false
    retry_on_failure:
      enabled: false
  debug: {{}}
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    metrics:
      receivers: [otlp]
      exporters: [otlp_http, debug]
"""


class Collector(Receiver):
    """A Collector that passes metrics on.

    Args:
        directory: For its files.
        next_url: Base URL of the OTLP receiver that it passes them on to.
    """

    def __init__(self, directory: Path, next_url: str) -> None:
        [port] = free_ports(1)
        configuration = directory / "collector.yaml"
        configuration.write_text(CONFIGURATION.format(port=port, next_url=next_url))
        url = f"http://127.0.0.1:{port}"
        super().__init__(
            "otelcol", ["--config", str(configuration)], directory=directory, url=url, health=url
        )

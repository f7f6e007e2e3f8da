"""The Collector's reader of files that nobody here has written, configured as documented, over an archive."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pendulum
import pytest

from airflow_provider_forge.archive.archive import Archive
from airflow_provider_forge.archive.storage import Storage
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.hooks.forge import ForgeMetricsHook
from airflow_provider_forge.windows import Window
from demo.processes import ManagedProcess, clean_environment
from demo.waiting import wait_for
from tests.receivers.programs import program

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "archive.md"
PIPELINE = """
exporters:
  otlphttp:
    endpoint: {url}
service:
  telemetry:
    metrics:
      level: none
  pipelines:
    metrics:
      receivers: [otlpjsonfile]
      exporters: [otlphttp]
"""


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_documented_receiver_reads_each_archived_point_once(
    tmp_path: Path, gateway: SandboxGateway, sink: OtlpSink, connect: Callable[..., None]
) -> None:
    connect(gateway, sink)
    # Over midnight: in the directories of two days.
    midnight = pendulum.now("UTC").start_of("day").subtract(days=1)
    interval = Window(midnight.subtract(minutes=30), midnight.add(minutes=30))
    hook, archive = ForgeMetricsHook(), Archive(Storage(tmp_path / "archive"))
    for window in interval.split():
        archive.write(hook.fetch(window.start, window.end))
    points = gateway.generated(
        interval.start, interval.end, environments=["production"], metrics=DEFAULT_METRICS
    )
    configuration = tmp_path / "otelcol.yaml"
    configuration.write_text(documented(tmp_path) + PIPELINE.format(url=sink.url))
    command = [program("otelcol-jsonfile"), "--config", str(configuration)]
    log_file = tmp_path / "otelcol.log"
    with ManagedProcess(command, env=clean_environment(), log_file=log_file):
        wait_for(
            lambda: len(sink.points) >= len(points), timeout=120, what=f"{len(points)} points, see {log_file}"
        )
    assert Counter(sink.points) == Counter(points)


def documented(directory: Path) -> str:
    """Return the documentation's configuration of the receiver, for an archive in a directory."""
    [block] = re.findall(r"```yaml\n(receivers:\n.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    assert block.count("/archive/*/2026/11/*/*.json.gz") == 1
    return block.replace("/archive/*/2026/11/*/", f"{directory}/archive/*/*/*/*/")

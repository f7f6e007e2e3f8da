"""A single VictoriaMetrics: as it comes, without deduplication, it adds up what is sent twice."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import httpx

from demo.processes import free_ports
from tests.receivers.receiver import Receiver
from tests.receivers.totals import OWN, Total, Totals

if TYPE_CHECKING:
    from pathlib import Path


class VictoriaMetrics(Receiver):
    """A VictoriaMetrics that keeps a month.

    Args:
        directory: For its files.
        more: More of its options.
    """

    def __init__(self, directory: Path, *more: str) -> None:
        [port] = free_ports(1)
        self._address = f"http://127.0.0.1:{port}"
        options = [
            f"-storageDataPath={directory / 'victoria-metrics'}",
            f"-httpListenAddr=127.0.0.1:{port}",
            "-retentionPeriod=1",
            # For seconds, this cache hides series that have come after a search.
            "-storage.cacheSizeIndexDBTagFilters=1",
            *more,
        ]
        url, health = f"{self._address}/opentelemetry", f"{self._address}/health"
        super().__init__("victoria-metrics", options, directory=directory, url=url, health=health)

    def totals(self, *, own: bool = False) -> Totals:
        """Return the totals of the app's metrics that it holds, or of the exporter's own."""
        values: defaultdict[str, list[float]] = defaultdict(list)
        for series in self._exported():
            if (name := series["metric"]["__name__"]).startswith(OWN) == own:
                values[name] += series["values"]
        return {name: Total(len(numbers), sum(numbers)) for name, numbers in values.items()}

    def _exported(self) -> list[dict]:
        # What has just been taken cannot be read before it is flushed.
        httpx.get(f"{self._address}/internal/force_flush", trust_env=False).raise_for_status()
        # Without an end, it leaves out what is younger than the last whole second.
        everything = {"match[]": '{__name__!=""}', "start": "0", "end": str(time.time() + 60)}
        answer = httpx.get(f"{self._address}/api/v1/export", params=everything, trust_env=False)
        assert answer.is_success, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

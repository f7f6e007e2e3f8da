"""A Prometheus that takes OTLP, set up as the README says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from demo.processes import free_ports
from tests.receivers.receiver import Receiver
from tests.receivers.totals import OWN, Total, Totals

if TYPE_CHECKING:
    from pathlib import Path

CONFIGURATION = """\
storage:
  tsdb:
    out_of_order_time_window: 15d
"""
RANGE = "15d"


class Prometheus(Receiver):
    """A Prometheus that takes delta sums and histograms as they are.

    Args:
        directory: For its files.
        configuration: Its configuration file; by default, one with a window for a backfill.
    """

    def __init__(self, directory: Path, configuration: Path | None = None) -> None:
        [port] = free_ports(1)
        if configuration is None:
            configuration = directory / "prometheus.yml"
            configuration.write_text(CONFIGURATION)
        self._address = f"http://127.0.0.1:{port}"
        options = [
            f"--config.file={configuration}",
            f"--storage.tsdb.path={directory / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-otlp-receiver",
            "--enable-feature=otlp-native-delta-ingestion",
        ]
        url, health = f"{self._address}/api/v1/otlp", f"{self._address}/-/ready"
        super().__init__("prometheus", options, directory=directory, url=url, health=health)

    @staticmethod
    def name_of(metric: str) -> str:
        """Return its name for one of our metrics: it adds units, but none in braces, and marks counters."""
        return metric + ("_milliseconds" if metric.endswith("_latency") else "_total")

    def totals(self, *, own: bool = False) -> Totals:
        """Return the totals of the app's metrics that it holds, or of the exporter's own."""
        names = set(self.ask("label/__name__/values")) - {"target_info"}
        names = {name for name in names if name.startswith(OWN) == own}
        return {name: Total(int(self._total("count", name)), self._total("sum", name)) for name in names}

    def series(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each series with that name."""
        return self.ask("series", **{"match[]": name})

    def _total(self, function: str, name: str) -> float:
        [answer] = self.ask("query", query=f"sum({function}_over_time({name}[{RANGE}]))")["result"]
        _, value = answer["value"]
        return float(value)

    def ask(self, what: str, **parameters: str | float) -> Any:
        """Return the data of a response of its HTTP API, given the path below `/api/v1/`."""
        # A query over a day takes seconds on a busy machine.
        url = f"{self._address}/api/v1/{what}"
        answer = httpx.get(url, params=parameters, timeout=60.0, trust_env=False)
        assert answer.is_success, answer.text
        return answer.json()["data"]

"""A payload that is sent unchanged: only its syntax and its times are read."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import whole_nanoseconds
from airflow_provider_forge.otlp.requests import ExportRequest, json_chunks
from airflow_provider_forge.payload.anomalies import Anomalies
from airflow_provider_forge.payload.assembly import EncodedPoints
from airflow_provider_forge.payload.fingerprints import KEY_BYTES, VALUE_BYTES, Fingerprint, minute_of
from airflow_provider_forge.payload.repeats import check_repeats
from airflow_provider_forge.payload.salvage import LeftOut
from airflow_provider_forge.payload.structs import decode_structs, metric_structs, scan_times

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_forge.payload.source import GatewayPayload

__all__ = ["PassthroughPayload"]


class PassthroughPayload:
    """An answer that is passed through: it is JSON, its points have times, and that is all that is known.

    Without a record, nothing depends on what tells one point from another, so no point counts as any other.

    Attributes:
        anomalies: None, as nobody has looked.
        left_out: None: what is no OTLP is no usual shape either.

    Raises:
        Exception: It is in an unusual shape; one of `typed.REFUSALS`.
    """

    anomalies = Anomalies()
    left_out: LeftOut = LeftOut()

    def __init__(self, source: GatewayPayload) -> None:
        self._source = source
        self._metrics = [
            (metric.name, metric.data.dataPoints) for metric in metric_structs(scan_times(source.text))
        ]
        for start in {point.startTimeUnixNano for _, points in self._metrics for point in points}:
            whole_nanoseconds(start, "startTimeUnixNano")
        times = {point.timeUnixNano for _, points in self._metrics for point in points}
        self._nanoseconds = {time: whole_nanoseconds(time, "timeUnixNano") for time in times}
        self.count = sum(len(points) for _, points in self._metrics)

    @cached_property
    def fingerprints(self) -> list[Fingerprint]:
        """Stand-ins for fingerprints, each unlike all others of a task."""
        window = self._source.minute.to_bytes(KEY_BYTES // 2, "big") + bytes(VALUE_BYTES)
        minutes = {text: minute_of(time, self._source.minute) for text, time in self._nanoseconds.items()}
        named = ((name, point.timeUnixNano) for name, points in self._metrics for point in points)
        return [
            Fingerprint(name, minutes[time], number.to_bytes(KEY_BYTES // 2, "big") + window)
            for number, (name, time) in enumerate(named)
        ]

    def build_request(self, numbers: Collection[int]) -> ExportRequest:
        """Make one request of these points, of bytes that are cut out of the answer."""
        if len(numbers) < self.count:
            return self._encoded_points.build_request(numbers)
        names = tuple(dict.fromkeys(name for name, _ in self._metrics))
        times = self._nanoseconds.values()
        start, end = min(times, default=0), max(times, default=0)
        return ExportRequest(json_chunks(self._source.text), HTTP_JSON, self.count, names, start, end)

    @cached_property
    def _encoded_points(self) -> EncodedPoints:
        encoded = EncodedPoints(self._source, decode_structs(self._source.text))
        filled = size = 0
        for number, metric in enumerate(metric_structs(encoded.resources)):
            texts, metric.data.dataPoints = metric.data.dataPoints, []
            encoded.points += texts
            encoded.slot_of += [encoded.new_slot(number, (None, None))] * len(texts)
            filled += bool(texts)
            size += sum(map(len, texts)) + max(len(texts) - 1, 0)
        # Whole, the text is sent as it is; in parts, the points of the first of two fields would be lost.
        check_repeats(self._source.text, encoded.resources, filled, size)
        times = (point.timeUnixNano for _, points in self._metrics for point in points)
        encoded.times = [self._nanoseconds[time] for time in times]
        return encoded

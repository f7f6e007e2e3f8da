"""A payload that is sent unchanged: only its syntax and its times are read."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import parse_nanoseconds
from airflow_provider_forge.otlp.requests import ExportRequest, json_chunks
from airflow_provider_forge.payload.anomalies import Anomalies
from airflow_provider_forge.payload.assembly import EncodedPoints
from airflow_provider_forge.payload.fingerprints import KEY_BYTES, VALUE_BYTES, Fingerprint, minute_of
from airflow_provider_forge.payload.salvage import LeftOut
from airflow_provider_forge.payload.skeleton import decode_usual
from airflow_provider_forge.payload.structs import metric_structs, scan_times

if TYPE_CHECKING:
    from collections.abc import Collection

    from msgspec import Raw

    from airflow_provider_forge.payload.payload import ReadOptions

__all__ = ["PassthroughPayload"]


class PassthroughPayload:
    """A payload of which only the times of points are decoded. The rest is only checked to be JSON.

    Without a ledger, points need not be recognized again, so each gets a unique fingerprint.

    Args:
        text: JSON text of an array of `ResourceMetrics`.
        options: The options that decide how it is read.

    Attributes:
        anomalies: Always empty, because points are not compared.
        count: Number of points.
        left_out: Always empty, because a payload with an invalid point is not read by this class.

    Raises:
        Exception: The payload has an unusual shape; one of `structs.REFUSALS`.
    """

    anomalies = Anomalies()
    left_out: LeftOut = LeftOut()

    def __init__(self, text: bytes | Raw, options: ReadOptions) -> None:
        self._text = text
        self._options = options
        self._metrics = [
            (metric.name, metric.data.data_points) for metric in metric_structs(scan_times(text))
        ]
        for start in {point.start_time_unix_nano for _, points in self._metrics for point in points}:
            parse_nanoseconds(start, "startTimeUnixNano")
        times = {point.time_unix_nano for _, points in self._metrics for point in points}
        self._nanoseconds = {time: parse_nanoseconds(time, "timeUnixNano") for time in times}
        self.count = sum(len(points) for _, points in self._metrics)

    @cached_property
    def fingerprints(self) -> list[Fingerprint]:
        """Placeholders for fingerprints, unique within a task."""
        window = self._options.minute.to_bytes(KEY_BYTES // 2, "big") + bytes(VALUE_BYTES)
        minutes = {text: minute_of(time, self._options.minute) for text, time in self._nanoseconds.items()}
        named = ((name, point.time_unix_nano) for name, points in self._metrics for point in points)
        return [
            Fingerprint(name, minutes[time], number.to_bytes(KEY_BYTES // 2, "big") + window)
            for number, (name, time) in enumerate(named)
        ]

    def build_request(self, numbers: Collection[int]) -> ExportRequest:
        """Return one request with these points, as slices of the payload's bytes."""
        if len(numbers) < self.count:
            return self._encoded_points.build_request(numbers)
        names = tuple(dict.fromkeys(name for name, _ in self._metrics))
        times = self._nanoseconds.values()
        start, end = min(times, default=0), max(times, default=0)
        return ExportRequest(json_chunks(self._text), HTTP_JSON, self.count, names, start, end)

    @cached_property
    def _encoded_points(self) -> EncodedPoints:
        # Whole, the text is sent as it is; in parts, the points of the first of two fields would be lost.
        usual = decode_usual(self._text)
        encoded = EncodedPoints(self._text, self._options, usual.resources)
        for number, texts in enumerate(usual.points):
            encoded.points += texts
            encoded.bundle_of += [encoded.new_bundle(number, (None, None))] * len(texts)
        times = (point.time_unix_nano for _, points in self._metrics for point in points)
        encoded.times = [self._nanoseconds[time] for time in times]
        return encoded

"""Reads single points that the structs do not support: with nulls, exemplars or unknown fields.

The results are those of `DictPayload`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from google.protobuf.json_format import ParseDict
from msgspec import Raw

from airflow_provider_forge.otlp.endpoint import HTTP_JSON
from airflow_provider_forge.otlp.messages import Json, attribute, nanoseconds
from airflow_provider_forge.otlp.requests import known_fields, with_base64_ids
from airflow_provider_forge.payload import protobuf, structs
from airflow_provider_forge.payload.assembly import encode_message, encode_point
from airflow_provider_forge.payload.conform import point_source
from airflow_provider_forge.payload.fingerprints import Fingerprint, fingerprint_point
from airflow_provider_forge.payload.repair import Repairer
from airflow_provider_forge.payload.salvage import FIELDS_BESIDE_VALUE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from airflow_provider_forge.payload.conform import PointSource
    from airflow_provider_forge.payload.payload import ReadOptions
    from airflow_provider_forge.payload.salvage import Salvager

__all__ = ["UnusualPoint", "UnusualPoints"]


class UnusualPoint(NamedTuple):
    """Results of a point.

    Attributes:
        start: Start of the point, in nanoseconds since the epoch; 0 if it has none.
        time: Time of the point, in nanoseconds since the epoch; 0 if it has none.
        point_source: The app and environment of the point.
        fingerprint: Fingerprint of the point.
        encoded: The point in a request.
    """

    start: int
    time: int
    point_source: PointSource
    fingerprint: Fingerprint
    encoded: bytes | Raw


class UnusualPoints:
    """Reads the unusual points of one payload.

    Args:
        options: The options that decide how the payload is read.
        salvager: Repairs points, and counts those that are left out.

    Attributes:
        unknown: Names of the points' fields that protobuf does not have.
    """

    def __init__(self, options: ReadOptions, salvager: Salvager) -> None:
        self.unknown: set[str] = set()
        self._environments = ",".join(sorted(options.environments)).encode()
        self._minute = options.minute
        self._conform = options.identity is not None
        self._protobuf = options.protocol != HTTP_JSON
        self._salvager = salvager

    def content(self, metric: Json, kind: str, text: Raw) -> Json | None:
        """Return a point in OTLP/JSON; None if it is left out."""
        content: Json | None = self._salvager.read_point(msgspec.json.decode(text), kind, metric)
        return content

    def read(
        self, metric: Json, kind: str, text: Raw, attributes: Mapping[bytes, Any]
    ) -> UnusualPoint | None:
        """Return a point's results; None if it is left out.

        Args:
            metric: The metric of the point.
            kind: The field of the metric that holds the point.
            text: The point.
            attributes: Encoded attributes by their text.

        Raises:
            Exception: Only the payload as a whole can be salvaged; one of `structs.REFUSALS`.
        """
        given = msgspec.json.decode(text)
        if isinstance(given, list):
            raise structs.UnsupportedShape("an array in an array of points")
        encoded = self._encode_usual_part(kind, given, attributes) if isinstance(given, dict) else None
        content = given if encoded else self._salvager.read_point(given, kind, metric)
        if content is None:
            return None
        if not self._protobuf:
            encoded = text if content is given else msgspec.json.encode(content)
        source: PointSource = (None, None)
        if self._conform:
            source = point_source(attribute(content, "appId"), attribute(content, "environmentId"))
        return UnusualPoint(
            nanoseconds(content, "startTimeUnixNano"),
            nanoseconds(content, "timeUnixNano"),
            source,
            fingerprint_point(metric, content, self._environments, self._minute),
            encoded or encode_message(self._message(kind, content)),
        )

    def _encode_usual_part(self, kind: str, given: Json, attributes: Mapping[bytes, Any]) -> bytes | None:
        """Return an encoded point if the fields that have a value are usual, or unknown to protobuf."""
        names = protobuf.POINT_FIELDS[kind]
        usual = {name: value for name, value in given.items() if name in names and value is not None}
        unknown = given.keys() - names
        if unknown and usual.keys() <= FIELDS_BESIDE_VALUE:
            return None
        exemplars = usual.pop("exemplars", None)
        try:
            point = structs.point_decoder(kind)(Raw(msgspec.json.encode(usual)))
            point.normalize()
            times = protobuf.times_fields(
                nanoseconds(usual, "startTimeUnixNano"), nanoseconds(usual, "timeUnixNano")
            )
            others = attributes[bytes(point.attributes)].field + self._encode_exemplars(kind, exemplars)
            encoded = encode_point(times, protobuf.value_fields(kind, point), others)
        except structs.REFUSALS:
            return None
        self.unknown.update(f"{protobuf.POINT_MESSAGES[kind].DESCRIPTOR.name}.{name}" for name in unknown)
        return encoded

    def _encode_exemplars(self, kind: str, exemplars: Any) -> bytes:
        if exemplars in (None, []):
            return b""
        given = {"exemplars": exemplars}
        if Repairer().message(given, protobuf.POINT_MESSAGES[kind].DESCRIPTOR, kind) is not given:
            raise structs.UnsupportedShape("exemplars to be repaired")
        return self._message(kind, given).SerializeToString()

    def _message(self, kind: str, content: Json) -> Message:
        message = protobuf.POINT_MESSAGES[kind]()
        known = with_base64_ids(known_fields(content, message.DESCRIPTOR, self.unknown))
        parsed: Message = ParseDict(known, message, max_recursion_depth=protobuf.MAX_DEPTH)
        return parsed

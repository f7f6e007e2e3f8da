"""OTLP/JSON to test with: small pieces by hand, and everything that OTLP allows by hypothesis."""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

from google.protobuf.json_format import ParseDict
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

exhaustively = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
"""The same examples on every machine and in every run, however busy the machine is."""

KINDS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
PRODUCTION = "8cb293d5-be08-47ae-a75c-95b89da5ad1d"
STAGING = "6f5f56e9-55c0-4551-9247-ee1484340f64"


def text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def point(*, app: str | None = APP, environment: str | None = PRODUCTION, **fields: Any) -> dict[str, Any]:
    """Return a data point that names its app and environment, unless they are None."""
    origin = {"appId": app, "environmentId": environment}
    attributes = [text(key, value) for key, value in origin.items() if value is not None]
    return {"attributes": attributes, **fields}


def metric(name: str, *points: dict[str, Any], unit: str = "s", **data: Any) -> dict[str, Any]:
    """Return a delta sum, as Atlassian's counts are."""
    data = {"aggregationTemporality": 1, **data, "dataPoints": list(points)}
    return {"name": name, "unit": unit, "sum": data}


def gauge(name: str, *points: dict[str, Any], unit: str = "s") -> dict[str, Any]:
    return {"name": name, "unit": unit, "gauge": {"dataPoints": list(points)}}


def entry(*metrics: dict[str, Any], **scope_metrics: Any) -> dict[str, Any]:
    """Return `ResourceMetrics` of the shape that Atlassian sends: an empty resource and no scope."""
    return {"resource": {}, "scopeMetrics": [{**scope_metrics, "metrics": list(metrics)}]}


def usual(value: Any) -> Any:
    """Return it as exporters write it: named, without nulls, without the exemplars that Atlassian has not."""
    if isinstance(value, list):
        return [usual(each) for each in value]
    if not isinstance(value, dict):
        return 0.1 if value == "0.1" else value
    left = {key: usual(each) for key, each in value.items() if each is not None and key != "exemplars"}
    is_metric = any(isinstance(left.get(kind), dict) for kind in KINDS)
    return {"name": "n", **left} if is_metric else left


def reference(resource_metrics: list[dict[str, Any]]) -> ExportMetricsServiceRequest:
    """Return what protobuf's own JSON reader makes of OTLP/JSON, whose trace and span ids are in hex."""
    return ParseDict({"resourceMetrics": _with_base64_ids(resource_metrics)}, ExportMetricsServiceRequest())


def _with_base64_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_base64_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(each)).decode()
        if key in ("traceId", "spanId") and each is not None
        else _with_base64_ids(each)
        for key, each in value.items()
    }


def protobuf_points(message: ExportMetricsServiceRequest) -> Counter[tuple[str, str | None, int, bytes]]:
    """Return every data point whole, with attributes and times, and as often as it is there."""
    return Counter(
        (
            metric.name,
            kind,
            getattr(getattr(metric, kind), "aggregation_temporality", 0),
            data_point.SerializeToString(deterministic=True),
        )
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if (kind := metric.WhichOneof("data"))
        for data_point in getattr(metric, kind).data_points
    )


def _nullable(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(strategy, strategy, strategy, st.none())


def _message(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Each field may be there, left out, or null."""
    return _short(
        st.fixed_dictionaries({}, optional={name: _nullable(each) for name, each in fields.items()})
    )


def _short(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy with a short `repr`: hypothesis warns of those that go on for pages."""

    @st.composite
    def opaque(draw: st.DrawFn) -> Any:
        return draw(strategy)

    return opaque()


def _few(strategy: st.SearchStrategy[Any], size: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(strategy, max_size=size)


def _holding(
    field: str, entries: st.SearchStrategy[Any], rest: st.SearchStrategy[dict[str, Any]]
) -> st.SearchStrategy[dict[str, Any]]:
    """Return messages with a field that leads to the points: seldom empty or null, so that there are some."""
    some = st.lists(entries, min_size=1, max_size=2)
    none = st.sampled_from(([], None))
    return _short(st.builds(lambda rest, held: {**rest, field: held}, rest, st.one_of(*[some] * 7, none)))


def _integers(low: int, high: int) -> st.SearchStrategy[int | str]:
    """As a number or as a decimal string, often at an edge."""
    numbers = st.one_of(st.sampled_from((low, high, 0)), st.integers(low, high))
    return st.one_of(numbers, numbers.map(str))


_texts = st.text(st.characters(codec="utf-8"), max_size=6)
_int64 = _integers(-(2**63), 2**63 - 1)
_uint64 = _integers(0, 2**64 - 1)
_int32 = st.integers(-(2**31), 2**31 - 1)
_doubles = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(("NaN", "Infinity", "-Infinity", "0.1", -0.0, 5e-324)),
    st.integers(-(2**53), 2**53),
)


def _keyed(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"key": _texts}, optional={"value": _nullable(values)})


_any_values = _short(
    st.recursive(
        st.one_of(
            st.just({}),
            st.builds(dict, stringValue=_texts),
            st.builds(dict, boolValue=st.booleans()),
            st.builds(dict, intValue=_int64),
            st.builds(dict, doubleValue=_doubles),
            st.builds(
                dict, bytesValue=st.binary(max_size=4).map(lambda data: base64.b64encode(data).decode())
            ),
        ),
        lambda inner: st.one_of(
            st.builds(dict, arrayValue=_message(values=_few(inner))),
            st.builds(dict, kvlistValue=_message(values=_few(_keyed(inner)))),
        ),
        max_leaves=4,
    )
)
_attributes = st.lists(_keyed(_any_values), max_size=2, unique_by=lambda attribute: attribute["key"])
_origins = st.lists(
    st.sampled_from((text("appId", APP), text("environmentId", PRODUCTION), text("environmentId", STAGING))),
    max_size=2,
    unique_by=lambda attribute: attribute["key"],
)
_point_attributes = st.builds(lambda origin, more: origin + more, _origins, _attributes)
_number = st.one_of(
    st.builds(dict, asInt=_int64), st.builds(dict, asDouble=_doubles), st.just({}), st.just({"asInt": None})
)
_exemplars = st.builds(
    lambda number, rest: {**number, **rest},
    _number,
    _message(
        filteredAttributes=_attributes,
        timeUnixNano=_uint64,
        traceId=st.binary(min_size=16, max_size=16).map(bytes.hex),
        spanId=st.binary(min_size=8, max_size=8).map(lambda data: data.hex().upper()),
    ),
)


def _points(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return _message(
        attributes=_point_attributes,
        startTimeUnixNano=_uint64,
        timeUnixNano=_uint64,
        flags=st.integers(0, 2**32 - 1),
        **fields,
    )


_number_points = st.builds(
    lambda number, rest: {**number, **rest}, _number, _points(exemplars=_few(_exemplars, 2))
)
_buckets = _message(offset=_int32, bucketCounts=_few(_uint64))
_statistics = {"count": _uint64, "sum": _doubles, "min": _doubles, "max": _doubles}
_temporality = st.sampled_from(
    (0, 1, 2, "AGGREGATION_TEMPORALITY_DELTA", "AGGREGATION_TEMPORALITY_CUMULATIVE")
)

_HISTOGRAM = _message(aggregationTemporality=_temporality)
_DATA = {
    "gauge": _holding("dataPoints", _number_points, st.just({})),
    "sum": _holding(
        "dataPoints",
        _number_points,
        _message(aggregationTemporality=_temporality, isMonotonic=st.booleans()),
    ),
    "histogram": _holding(
        "dataPoints",
        _points(
            **_statistics,
            bucketCounts=_few(_uint64),
            explicitBounds=_few(_doubles),
            exemplars=_few(_exemplars, 2),
        ),
        _HISTOGRAM,
    ),
    "exponentialHistogram": _holding(
        "dataPoints",
        _points(
            **_statistics,
            scale=_int32,
            zeroCount=_uint64,
            zeroThreshold=_doubles,
            positive=_buckets,
            negative=_buckets,
            exemplars=_few(_exemplars, 2),
        ),
        _HISTOGRAM,
    ),
    "summary": _holding(
        "dataPoints",
        _points(
            count=_uint64, sum=_doubles, quantileValues=_few(_message(quantile=_doubles, value=_doubles))
        ),
        st.just({}),
    ),
}


@st.composite
def _metrics(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(KINDS))
    names = st.one_of(st.sampled_from(("forge_api_request_count", "latency")), _texts)
    head = draw(_message(name=names, unit=st.sampled_from(("s", "", "1")), description=_texts))
    others = draw(st.dictionaries(st.sampled_from([other for other in KINDS if other != kind]), st.none()))
    return {**others, **head, kind: draw(_DATA[kind])}


_scopes = _message(name=_texts, version=_texts, attributes=_attributes, droppedAttributesCount=st.just(1))
_resources = _message(attributes=_attributes, droppedAttributesCount=st.just(1))

otlp_json = _few(
    _holding(
        "scopeMetrics",
        _holding("metrics", _metrics(), _message(scope=_scopes, schemaUrl=_texts)),
        _message(resource=_resources, schemaUrl=_texts),
    ),
    2,
)
"""Every metric type, value type, edge, null and left-out field that OTLP/JSON allows."""

_FIELDS = st.sampled_from(("metrics", "name", "sum", "dataPoints", "attributes", "key", "value", "exemplars"))
any_json = _short(
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), _texts
        ),
        lambda inner: st.one_of(_few(inner), st.dictionaries(st.one_of(_FIELDS, _texts), inner, max_size=3)),
        max_leaves=5,
    )
)


@st.composite
def almost_otlp(draw: st.DrawFn) -> Any:
    """OTLP/JSON in which one thing was replaced by any other JSON, or by two of it where it is in a list."""
    root = {"": json.loads(json.dumps(draw(otlp_json)))}
    holder, key = root, ""
    while isinstance(holder[key], (dict, list)) and holder[key] and draw(st.integers(0, 14)):
        holder = holder[key]
        keys = sorted(holder) if isinstance(holder, dict) else range(len(holder))
        key = draw(st.sampled_from(keys))
    other = draw(any_json)
    if isinstance(holder, list) and draw(st.booleans()):
        twin = holder[key]
        holder.append({**twin, "value": other} if isinstance(twin, dict) else twin)
    else:
        holder[key] = other
    return root[""]

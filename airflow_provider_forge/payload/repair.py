"""Repairs OTLP/JSON values: a value with a single meaning is rewritten as protobuf's JSON reader accepts it.

The type of each field is read from the descriptors of `opentelemetry-proto`, so all kinds of points are
repaired alike. Values that protobuf's reader accepts are not changed: fingerprints depend on them.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from airflow_provider_forge.otlp.messages import Json, any_value
from airflow_provider_forge.text import sanitize

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor

__all__ = ["InvalidValue", "Repairer", "camel_case"]

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64),
}
_DIGITS = re.compile("-?[0-9]{1,20}")
_MAX_NUMBER_CHARACTERS = 60
"""Maximum length of a number's text; a longer one does not fit into 64 bits."""
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_PROTOBUF_SPELLINGS = ("NaN", "Infinity", "-Infinity")
_OTHER_SPELLINGS = {
    **dict.fromkeys(("nan", "+nan", "-nan"), "NaN"),
    **dict.fromkeys(("inf", "+inf", "infinity", "+infinity"), "Infinity"),
    **dict.fromkeys(("-inf", "-infinity"), "-Infinity"),
}
_RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?"
    "([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_BASE64 = re.compile("[A-Za-z0-9+/_-]*={0,2}")
_HEX = re.compile("([0-9a-fA-F]{2})*")
_ID_BYTES = {"trace_id": 16, "span_id": 8}
_TIME = "time_unix_nano"
_VALUE_MESSAGES = ("DataPoint", "Buckets", "ValueAtQuantile")
"""Suffixes of the names of messages whose fields are part of a point's value."""


class InvalidValue(ValueError):
    """A value is invalid in OTLP; the message names the field and the value."""


def camel_case(message: Json, descriptor: Descriptor) -> Json:
    """Return a message with its field names in lowerCamelCase, as OTLP/JSON has them.

    Returns the same object if no name changes. The fields of a point's value keep their names, because the
    point's fingerprint depends on them.

    Raises:
        InvalidValue: A field is present in both spellings.
    """
    renamed = message
    for field in descriptor.fields:
        if field.name != field.json_name and field.name in message:
            if message.get(field.json_name) is not None and message[field.name] is not None:
                raise InvalidValue(f"{field.json_name} is present twice, also as {field.name}")
            if _is_part_of_value(field) and field.json_name not in message:
                continue
            renamed = {**renamed}
            value = renamed.pop(field.name)
            if renamed.get(field.json_name) is None:
                renamed[field.json_name] = value
    return renamed


def _is_part_of_value(field: FieldDescriptor) -> bool:
    owner = field.containing_type.name if field.containing_type else ""
    return owner.endswith(_VALUE_MESSAGES) and not field.name.endswith(_TIME)


def _is_repeated(field: FieldDescriptor) -> bool:
    """Return whether a field is an array."""
    # `label` is deprecated in later versions of protobuf, and `is_repeated` is missing in earlier ones.
    found: bool | None = getattr(field, "is_repeated", None)
    return getattr(field, "label", 0) == FieldDescriptor.LABEL_REPEATED if found is None else found


class Repairer:
    """Rewrites values as protobuf's JSON reader accepts them.

    Attributes:
        repairs: Number of repairs, by their description.
    """

    def __init__(self) -> None:
        self.repairs: Counter[str] = Counter()

    def message(self, value: Any, descriptor: Descriptor, path: str) -> Any:
        """Return a repaired message of this type, or the same object if nothing was repaired.

        Unknown fields are not changed.

        Args:
            value: Decoded JSON.
            descriptor: Type of the message.
            path: Name of the message's field, for errors.

        Raises:
            InvalidValue: A value in the message is invalid.
        """
        if descriptor.name == "AnyValue" and isinstance(value, (str, bool, int, float)):
            return self._wrap_bare_value(value, path)
        if not isinstance(value, dict):
            raise InvalidValue(f"{path} is {_quoted(value)}, not an object")
        repaired = camel_case(value, descriptor)
        if repaired is not value:
            self.repairs["field names in snake_case"] += 1
        self._check_oneofs(repaired, descriptor)
        for field in descriptor.fields:
            name = field.json_name if field.json_name in repaired else field.name
            given = repaired.get(name)
            if given is None:
                continue
            kept = self._repair_field(given, field)
            if kept is not given:
                repaired = {**repaired, name: kept}
        return repaired

    def _wrap_bare_value(self, value: str | float, path: str) -> Json:
        self.repairs["attribute values without a type"] += 1
        try:
            return any_value(value)
        except ValueError:
            raise InvalidValue(f"{path} is {_quoted(value)}, beyond 64 bits") from None

    def _check_oneofs(self, message: Json, descriptor: Descriptor) -> None:
        for oneof in descriptor.oneofs:
            found = [
                name
                for field in oneof.fields
                for name in {field.json_name, field.name}
                if message.get(name) is not None
            ]
            if len(found) > 1:
                raise InvalidValue(f"{' and '.join(found)} are both set, but OTLP allows only one")

    def _repair_field(self, value: Any, field: FieldDescriptor) -> Any:
        if not _is_repeated(field):
            return self._repair_single(value, field)
        if not isinstance(value, list):
            raise InvalidValue(f"{field.json_name} is {_quoted(value)}, not an array")
        kept = self._repair_array(value, field)
        unchanged = len(kept) == len(value) and all(map(_is_same, kept, value))
        return value if unchanged else kept

    def _repair_array(self, values: list[Any], field: FieldDescriptor) -> list[Any]:
        kept: list[Any] = []
        for value in values:
            if value is None and field.message_type:
                self.repairs[f"null in {field.json_name}"] += 1
                if field.message_type.name == "AnyValue":
                    kept.append({})  # OTLP's null
                continue
            try:
                kept.append(self._repair_single(value, field))
            except InvalidValue as error:
                if field.name != "exemplars":
                    raise
                self.repairs[f"left out exemplars ({error})"] += 1
        return kept

    def _repair_single(self, value: Any, field: FieldDescriptor) -> Any:
        if field.message_type:
            return self.message(value, field.message_type, field.json_name)
        if field.enum_type:
            repaired = _repair_enum(value, field)
        elif field.name in _ID_BYTES:
            repaired = _repair_id(value, field)
        elif field.name.endswith(_TIME):
            repaired = _repair_time(value, field)
        elif field.cpp_type in _RANGES:
            repaired = _repair_integer(value, field)
        else:
            repaired = _REPAIR_BY_TYPE[field.type](value, field)
        if repaired is not value:
            self.repairs[f"{field.json_name} in an unusual spelling"] += 1
        return repaired


def _is_same(one: Any, other: Any) -> bool:
    return one is other


def _quoted(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    # Python does not convert numbers with thousands of digits to text.
    too_long = isinstance(value, int) and value.bit_length() > 8 * _MAX_NUMBER_CHARACTERS
    text = "a very long number" if too_long else repr(value)
    return sanitize(text, most=_MAX_NUMBER_CHARACTERS)


def _repair_integer(value: Any, field: FieldDescriptor) -> Any:
    low, high = _RANGES[field.cpp_type]
    number = _parse_integer(value)
    if number is None:
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, not a whole number")
    if not low <= number < high:
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, out of range")
    return value if not isinstance(value, str) or _DIGITS.fullmatch(value) else str(number)


def _parse_integer(value: Any) -> int | None:
    """Return a whole number in any spelling as an int; None if the value is not a whole number."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_CHARACTERS:
        if _DIGITS.fullmatch(value):
            return int(value)
        text = value.strip()
        number = decimal.Decimal(text) if _DECIMAL.fullmatch(text) else None
        # A larger number does not fit into 64 bits, and would be too long to write out.
        if (
            number is None
            or number.adjusted() > _MAX_NUMBER_CHARACTERS
            or number != number.to_integral_value()
        ):
            return None
        return int(number)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def _repair_time(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, str) and (moment := _RFC_3339.fullmatch(value)):
        return str(_nanoseconds(moment, value, field))
    repaired = _repair_integer(value, field)
    return str(int(value)) if isinstance(value, float) else repaired


def _nanoseconds(moment: re.Match[str], value: str, field: FieldDescriptor) -> int:
    date, time, fraction, offset = moment.groups()
    zone = "+00:00" if offset in "Zz" else offset
    try:
        since = dt.datetime.fromisoformat(f"{date}T{time}{zone}") - _EPOCH
    except (ValueError, OverflowError):
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, not a time") from None
    found = (since.days * 86400 + since.seconds) * 10**9 + int((fraction or "").ljust(9, "0"))
    if not 0 <= found < 2**64:
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, out of range")
    return found


def _repair_double(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if value in _PROTOBUF_SPELLINGS:
            return value
        if text.casefold() in _OTHER_SPELLINGS:
            return _OTHER_SPELLINGS[text.casefold()]
        number = float(text) if _DECIMAL.fullmatch(text) else math.nan
        repaired: Any = value if text == value else text
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        repaired = value
    else:
        number = math.nan
    if math.isinf(number):
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, out of range of a double")
    if math.isnan(number):
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, not a number")
    return repaired


def _repair_boolean(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, str) and value.casefold() in ("true", "false"):
        return value.casefold() == "true"
    if not isinstance(value, bool):
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, not true or false")
    return value


def _repair_enum(value: Any, field: FieldDescriptor) -> Any:
    names = field.enum_type.values_by_name if field.enum_type else {}
    if isinstance(value, str) and value in names:
        return value
    number = _parse_integer(value)
    if number is None or not 0 <= number < 2**31:
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, not a value of this enum")
    return value if type(value) is int else number


def _check_text(value: Any, field: FieldDescriptor) -> Any:
    if not isinstance(value, str):
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, not text")
    return value


def _check_base64(value: Any, field: FieldDescriptor) -> Any:
    if not isinstance(value, str) or not _BASE64.fullmatch(value) or len(value.rstrip("=")) % 4 == 1:
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, not base64")
    return value


def _repair_id(value: Any, field: FieldDescriptor) -> Any:
    """Return an id in hexadecimal, as in OTLP/JSON; protobuf's own JSON uses base64."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        return value
    try:
        found = base64.b64decode(
            str(_check_base64(value, field)) + "==", altchars=b"-_" if "-" in value or "_" in value else None
        )
    except binascii.Error:
        found = b""
    if len(found) != _ID_BYTES[field.name]:
        raise InvalidValue(f"{field.json_name} is {_quoted(value)}, not a hexadecimal id")
    return found.hex()


_REPAIR_BY_TYPE: dict[int, Callable[[Any, FieldDescriptor], Any]] = {
    FieldDescriptor.TYPE_DOUBLE: _repair_double,
    FieldDescriptor.TYPE_BOOL: _repair_boolean,
    FieldDescriptor.TYPE_STRING: _check_text,
    FieldDescriptor.TYPE_BYTES: _check_base64,
}

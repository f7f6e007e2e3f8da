"""OTLP/JSON read with goodwill: a value that has one meaning is spelled as protobuf's JSON reader takes it.

The descriptors of `opentelemetry-proto` say what each field holds, so that all kinds of points are treated
alike. What protobuf's reader takes stays as it came: the fingerprints of points depend on it.
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

__all__ = ["Mender", "Unusable", "camel_case"]

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64),
}
_DIGITS = re.compile("-?[0-9]{1,20}")
_LONGEST_NUMBER = 60
"""Letters; the exact value of a longer one would be none of 64 bits."""
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_SPELLED = ("NaN", "Infinity", "-Infinity")
_NOT_FINITE = {
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
_VALUES = ("DataPoint", "Buckets", "ValueAtQuantile")
"""Ends of the names of messages whose fields make a point's value."""


class Unusable(ValueError):
    """A value has no meaning in OTLP; the message names the field and the value."""


def camel_case(message: Json, descriptor: Descriptor) -> Json:
    """Return a message with its fields in lowerCamelCase, as OTLP/JSON has them; the same if they are.

    Only fields that make a point's value stay as they came: the point's fingerprint has their names in it.

    Raises:
        Unusable: A field is there in both spellings.
    """
    renamed = message
    for field in descriptor.fields:
        if field.name != field.json_name and field.name in message:
            if message.get(field.json_name) is not None and message[field.name] is not None:
                raise Unusable(f"{field.json_name} is there twice, as {field.name} too")
            if _makes_value(field) and field.json_name not in message:
                continue
            renamed = {**renamed}
            value = renamed.pop(field.name)
            if renamed.get(field.json_name) is None:
                renamed[field.json_name] = value
    return renamed


def _makes_value(field: FieldDescriptor) -> bool:
    owner = field.containing_type.name if field.containing_type else ""
    return owner.endswith(_VALUES) and not field.name.endswith(_TIME)


def _is_repeated(field: FieldDescriptor) -> bool:
    """Tell whether a field is an array."""
    # `label` is deprecated in later versions of protobuf, and `is_repeated` is missing in earlier ones.
    found: bool | None = getattr(field, "is_repeated", None)
    return getattr(field, "label", 0) == FieldDescriptor.LABEL_REPEATED if found is None else found


class Mender:
    """Spells values as protobuf's JSON reader takes them.

    Attributes:
        notes: What was mended, and how often.
    """

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()

    def message(self, value: Any, descriptor: Descriptor, path: str) -> Any:
        """Return a message of this type; the same object if nothing in it had to be mended.

        Fields that the type does not have stay as they are.

        Args:
            value: Decoded JSON.
            descriptor: The message's type.
            path: The field that holds it, for errors.

        Raises:
            Unusable: Something in it has no meaning.
        """
        if descriptor.name == "AnyValue" and isinstance(value, (str, bool, int, float)):
            return self._bare(value, path)
        if not isinstance(value, dict):
            raise Unusable(f"{path} is {_shown(value)}, not an object")
        mended = camel_case(value, descriptor)
        if mended is not value:
            self.notes["field names in snake_case"] += 1
        self._check_oneofs(mended, descriptor)
        for field in descriptor.fields:
            name = field.json_name if field.json_name in mended else field.name
            given = mended.get(name)
            if given is None:
                continue
            kept = self._field(given, field)
            if kept is not given:
                mended = {**mended, name: kept}
        return mended

    def _bare(self, value: str | float, path: str) -> Json:
        self.notes["attribute values without their type"] += 1
        try:
            return any_value(value)
        except ValueError:
            raise Unusable(f"{path} is {_shown(value)}, beyond 64 bits") from None

    def _check_oneofs(self, message: Json, descriptor: Descriptor) -> None:
        for oneof in descriptor.oneofs:
            found = [
                name
                for field in oneof.fields
                for name in {field.json_name, field.name}
                if message.get(name) is not None
            ]
            if len(found) > 1:
                raise Unusable(f"{' and '.join(found)} are both there, of which OTLP takes one")

    def _field(self, value: Any, field: FieldDescriptor) -> Any:
        if not _is_repeated(field):
            return self._single(value, field)
        if not isinstance(value, list):
            raise Unusable(f"{field.json_name} is {_shown(value)}, not an array")
        kept = self._array(value, field)
        unchanged = len(kept) == len(value) and all(map(_is, kept, value))
        return value if unchanged else kept

    def _array(self, values: list[Any], field: FieldDescriptor) -> list[Any]:
        kept: list[Any] = []
        for value in values:
            if value is None and field.message_type:
                self.notes[f"null in {field.json_name}"] += 1
                if field.message_type.name == "AnyValue":
                    kept.append({})  # which is OTLP's null
                continue
            try:
                kept.append(self._single(value, field))
            except Unusable as error:
                if field.name != "exemplars":
                    raise
                self.notes[f"left out exemplars ({error})"] += 1
        return kept

    def _single(self, value: Any, field: FieldDescriptor) -> Any:
        if field.message_type:
            return self.message(value, field.message_type, field.json_name)
        if field.enum_type:
            mended = _enum(value, field)
        elif field.name in _ID_BYTES:
            mended = _id(value, field)
        elif field.name.endswith(_TIME):
            mended = _time(value, field)
        elif field.cpp_type in _RANGES:
            mended = _integer(value, field)
        else:
            mended = _OTHERS[field.type](value, field)
        if mended is not value:
            self.notes[f"{field.json_name} in another spelling"] += 1
        return mended


def _is(one: Any, other: Any) -> bool:
    return one is other


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    # A number may have more digits than Python turns into text.
    too_long = isinstance(value, int) and value.bit_length() > 8 * _LONGEST_NUMBER
    text = "a very long number" if too_long else repr(value)
    return sanitize(text, most=_LONGEST_NUMBER)


def _integer(value: Any, field: FieldDescriptor) -> Any:
    low, high = _RANGES[field.cpp_type]
    number = _whole(value)
    if number is None:
        raise Unusable(f"{field.json_name} is {_shown(value)}, not a whole number")
    if not low <= number < high:
        raise Unusable(f"{field.json_name} is {_shown(value)}, out of range")
    return value if not isinstance(value, str) or _DIGITS.fullmatch(value) else str(number)


def _whole(value: Any) -> int | None:
    """Return what a whole number is in any spelling; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        if _DIGITS.fullmatch(value):
            return int(value)
        text = value.strip()
        number = decimal.Decimal(text) if _DECIMAL.fullmatch(text) else None
        # Beyond this it is none of 64 bits, and too long to be written out.
        if number is None or number.adjusted() > _LONGEST_NUMBER or number != number.to_integral_value():
            return None
        return int(number)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) else None


def _time(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, str) and (moment := _RFC_3339.fullmatch(value)):
        return str(_nanoseconds(moment, value, field))
    mended = _integer(value, field)
    return str(int(value)) if isinstance(value, float) else mended


def _nanoseconds(moment: re.Match[str], value: str, field: FieldDescriptor) -> int:
    date, time, fraction, offset = moment.groups()
    zone = "+00:00" if offset in "Zz" else offset
    try:
        since = dt.datetime.fromisoformat(f"{date}T{time}{zone}") - _EPOCH
    except (ValueError, OverflowError):
        raise Unusable(f"{field.json_name} is {_shown(value)}, which is no time") from None
    found = (since.days * 86400 + since.seconds) * 10**9 + int((fraction or "").ljust(9, "0"))
    if not 0 <= found < 2**64:
        raise Unusable(f"{field.json_name} is {_shown(value)}, out of range")
    return found


def _double(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if value in _SPELLED:
            return value
        if text.casefold() in _NOT_FINITE:
            return _NOT_FINITE[text.casefold()]
        number = float(text) if _DECIMAL.fullmatch(text) else math.nan
        mended: Any = value if text == value else text
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        mended = value
    else:
        number = math.nan
    if math.isinf(number):
        raise Unusable(f"{field.json_name} is {_shown(value)}, beyond what a double holds")
    if math.isnan(number):
        raise Unusable(f"{field.json_name} is {_shown(value)}, not a number")
    return mended


def _boolean(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, str) and value.casefold() in ("true", "false"):
        return value.casefold() == "true"
    if not isinstance(value, bool):
        raise Unusable(f"{field.json_name} is {_shown(value)}, not true or false")
    return value


def _enum(value: Any, field: FieldDescriptor) -> Any:
    names = field.enum_type.values_by_name if field.enum_type else {}
    if isinstance(value, str) and value in names:
        return value
    number = _whole(value)
    if number is None or not 0 <= number < 2**31:
        raise Unusable(f"{field.json_name} is {_shown(value)}, which OTLP does not know")
    return value if type(value) is int else number


def _text(value: Any, field: FieldDescriptor) -> Any:
    if not isinstance(value, str):
        raise Unusable(f"{field.json_name} is {_shown(value)}, not text")
    return value


def _bytes(value: Any, field: FieldDescriptor) -> Any:
    if not isinstance(value, str) or not _BASE64.fullmatch(value) or len(value.rstrip("=")) % 4 == 1:
        raise Unusable(f"{field.json_name} is {_shown(value)}, not base64")
    return value


def _id(value: Any, field: FieldDescriptor) -> Any:
    """Return an id in hex, as OTLP/JSON has it; protobuf's own JSON has base64."""
    if isinstance(value, str) and _HEX.fullmatch(value):
        return value
    try:
        found = base64.b64decode(
            str(_bytes(value, field)) + "==", altchars=b"-_" if "-" in value or "_" in value else None
        )
    except binascii.Error:
        found = b""
    if len(found) != _ID_BYTES[field.name]:
        raise Unusable(f"{field.json_name} is {_shown(value)}, no id in hex")
    return found.hex()


_OTHERS: dict[int, Callable[[Any, FieldDescriptor], Any]] = {
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_BOOL: _boolean,
    FieldDescriptor.TYPE_STRING: _text,
    FieldDescriptor.TYPE_BYTES: _bytes,
}

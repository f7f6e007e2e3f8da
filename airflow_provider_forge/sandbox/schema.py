"""The vendored GraphQL schema: parse, validate and execute queries."""

from __future__ import annotations

import functools
import re
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    Visitor,
    build_schema,
    execute_sync,
    parse,
    validate,
    visit,
)

from airflow_provider_forge.sandbox import resolvers
from airflow_provider_forge.sandbox.developer_spaces import SPACE_RESOLVERS
from airflow_provider_forge.sandbox.installations import INSTALLATION_RESOLVERS
from airflow_provider_forge.sandbox.usage_resolvers import USAGE_RESOLVERS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["InvalidQueryError", "execute", "fields_of", "parse_document", "refusal"]

_ISO_8601 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


class InvalidQueryError(Exception):
    """The query does not match the schema, or the request lacks a required part.

    Attributes:
        errors: The `errors` of the response.
        status: HTTP status.
    """

    def __init__(self, errors: list[dict[str, Any]], status: int = 200) -> None:
        self.errors = errors
        self.status = status
        super().__init__(errors[0]["message"])


def refusal(message: str, classification: str, error_type: str, status_code: int) -> dict[str, Any]:
    """Return an entry for the `errors` of a response."""
    extensions = {"classification": classification, "errorType": error_type, "statusCode": status_code}
    return {"message": message, "extensions": extensions}


def parse_document(query: str, unknown_metrics: frozenset[str] = frozenset()) -> DocumentNode:
    """Parse a query and validate it against the schema.

    Args:
        query: GraphQL.
        unknown_metrics: As in `Scenario`.

    Raises:
        InvalidQueryError: The query is not valid GraphQL, or does not match the schema.
    """
    try:
        document = parse(query)
    except GraphQLSyntaxError as error:
        raise InvalidQueryError([_formatted(error, "InvalidSyntax")]) from error
    if errors := validate(_schema(unknown_metrics), document):
        raise InvalidQueryError([_formatted(error, "ValidationError") for error in errors])
    return document


def fields_of(document: DocumentNode) -> list[str]:
    """Return the names of all requested fields, in document order."""
    names: list[str] = []

    class _Names(Visitor):
        def enter_field(self, node: FieldNode, *_: Any) -> None:
            names.append(node.name.value)

    visit(document, _Names())
    return names


def execute(
    document: DocumentNode, variables: Mapping[str, Any], operation_name: str | None, call: resolvers.Call
) -> dict[str, Any]:
    """Execute a validated query and return `data`, and `errors` if there are any.

    Raises:
        InvalidQueryError: The variables do not match.
    """
    result = execute_sync(
        _schema(call.account.scenario.unknown_metrics),
        document,
        root_value={},
        context_value=call,
        variable_values=dict(variables),
        operation_name=operation_name,
    )
    for error in result.errors or ():
        if error.original_error is not None and not isinstance(error.original_error, GraphQLError):
            # Not a response but a bug in the sandbox, or a literal that a scalar rejects.
            raise error.original_error
    errors = [_formatted(error, "ValidationError") for error in result.errors or ()]
    if result.data is None:
        raise InvalidQueryError(errors)
    return {"data": result.data, **({"errors": errors} if errors else {})}


def _formatted(error: GraphQLError, classification: str) -> dict[str, Any]:
    formatted = dict(error.formatted)
    default = refusal(error.message, classification, "BAD_REQUEST", 400)
    return {**formatted, "extensions": error.extensions or default["extensions"]}


@functools.cache
def _schema(unknown_metrics: frozenset[str]) -> GraphQLSchema:
    text = resources.files("airflow_provider_forge.sandbox").joinpath("schema.graphql").read_text("utf-8")
    for label in unknown_metrics:
        text = re.sub(rf"^ *{label}\n", "", text, flags=re.MULTILINE)
    schema = build_schema(text)
    date_time = schema.type_map["DateTime"]
    # graphql-core 3.3 has renamed parse_value of 3.2.
    for name in ("parse_value", "coerce_input_value"):
        setattr(date_time, name, _parse_time)
    every = (*resolvers.RESOLVERS, *USAGE_RESOLVERS, *SPACE_RESOLVERS, *INSTALLATION_RESOLVERS)
    for type_name, field_name, resolver in every:
        schema.type_map[type_name].fields[field_name].resolve = resolver  # type: ignore[attr-defined]
    return schema


def _parse_time(value: Any) -> datetime:
    match = _ISO_8601.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise GraphQLError(f"DateTime cannot represent {value!r}: not ISO-8601 with an offset or Z")
    whole, fraction, offset = match.groups()
    # Python 3.10 parses neither the Z nor fractions of other lengths.
    text = f"{whole}.{(fraction or '0').ljust(6, '0')[:6]}" if whole.count(":") == 2 else whole
    try:
        return datetime.fromisoformat(text + offset.replace("Z", "+00:00"))
    except ValueError as error:
        raise GraphQLError(f"DateTime cannot represent {value!r}: {error}") from error

"""The forms of both Connection types: one table, from which both formats that Airflow reads are made.

Airflow 3.2 and later read the provider's metadata. Airflow 3.0 and 3.1 call the hooks, and show the extra
fields only if `wtforms` is installed. Airflow imports this module whenever it starts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["FORGE", "OTLP", "ConnectionForm", "ExtraField", "StandardField"]


class StandardField(NamedTuple):
    """A field that every Connection has. Its placeholder is the only help text that Airflow shows.

    Attributes:
        name: Name in Airflow's Connection model.
        label: Label in the form.
        placeholder: Shown in the field while it is empty.
    """

    name: str
    label: str
    placeholder: str


class ExtraField(NamedTuple):
    """A field that this provider adds.

    Attributes:
        name: Its key in the Connection's extra.
        label: Label in the form.
        help: Description, shown below the field, without a full stop at its end.
        kind: `string`, `integer` or `number`.
        default: Meaning of an empty field, as text. It is shown in the description but never filled in:
            a saved value would outlive a better default.
        choices: Allowed values; empty if any value is allowed.
    """

    name: str
    label: str
    help: str
    kind: str = "string"
    default: str = ""
    choices: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """Help text with the default appended."""
        return f"{self.help}. Default: {self.default}" if self.default else self.help


class ConnectionForm(NamedTuple):
    """The form of one type of Connection.

    Attributes:
        standard: Airflow's own fields that are used.
        hidden: Airflow's own fields that are not used.
        extras: Fields that this provider adds.
    """

    standard: tuple[StandardField, ...]
    hidden: tuple[str, ...]
    extras: tuple[ExtraField, ...]

    @property
    def unused(self) -> tuple[str, ...]:
        """Airflow's own fields that must be empty, or 0."""
        return (*self.hidden, "port")

    @property
    def extra_names(self) -> list[str]:
        """Names of the fields that this provider adds."""
        return [extra.name for extra in self.extras]

    def conn_fields(self) -> dict[str, Any]:
        """Return the `conn-fields` of the provider's metadata."""
        return {
            extra.name: {
                "label": extra.label,
                "description": extra.description,
                "schema": {
                    "type": [extra.kind, "null"],
                    **({"enum": list(extra.choices)} if extra.choices else {}),
                },
            }
            for extra in self.extras
        }

    def ui_field_behaviour(self, separator: str = "-") -> dict[str, Any]:
        """Return the `ui-field-behaviour` of the provider's metadata; with "_", in the format of hooks."""
        return {
            f"hidden{separator}fields": list(self.hidden),
            "relabeling": {field.name: field.label for field in self.standard},
            "placeholders": {field.name: field.placeholder for field in self.standard},
        }

    def widgets(self) -> dict[str, Any]:
        """Return wtforms fields by the names of the extras, for a hook's `get_connection_form_widgets`.

        Raises:
            ImportError: wtforms is not installed. Airflow then shows the form without these fields.
        """
        # Airflow's API server replaces these classes with its own, from which it makes its own form.
        from wtforms import IntegerField, StringField
        from wtforms.validators import any_of

        return {
            extra.name: (IntegerField if extra.kind == "integer" else StringField)(
                extra.label,
                validators=[any_of(list(extra.choices))] if extra.choices else [],
                description=extra.description,
            )
            for extra in self.extras
        }


# Not used, but shown: these versions refuse to test a Connection that was saved without a port.
_PORT = StandardField("port", "Port", "leave empty, but 0 for the Test button in Airflow 3.3.1 and 3.3.2")

FORGE = ConnectionForm(
    standard=(
        StandardField("login", "Atlassian account email", "of the account that owns the app"),
        StandardField("password", "API token", "create one at id.atlassian.com/manage/api-tokens"),
        StandardField("host", "Gateway URL", "leave empty for https://api.atlassian.com/graphql"),
        _PORT,
    ),
    hidden=("schema",),
    extras=(
        ExtraField("app_id", "App ID", "The app's ARI or UUID: app.id in the app's manifest.yml"),
        ExtraField(
            "environments",
            "Environments",
            "Comma-separated names, UUIDs or ARIs. The command `forge environments list` prints the names",
            default="production",
        ),
        ExtraField(
            "metrics",
            "Metrics",
            "Comma-separated labels, such as FORGE_API_REQUEST_COUNT; one that Atlassian does not know is"
            " left out",
            default="all metrics of invocations, API requests and containers, and the app's own",
        ),
        ExtraField(
            "service_name",
            "Service name",
            "service.name of the exported metrics; changing it renames every series",
            default="forge-app-<UUID>",
        ),
        ExtraField(
            "token_expires_on",
            "API token expires on",
            # Airflow masks this field because of its name.
            "Date such as 2027-01-31, before which the DAG forge_metrics_coverage raises an alert; shown"
            " as *** once saved",
        ),
        ExtraField(
            "allow_cleartext",
            "Allow clear text",
            "true permits http:// to another machine, which sends the API token unencrypted",
            default="false",
            choices=("false", "true"),
        ),
        ExtraField(
            "timeout",
            "Timeout",
            "Maximum time in seconds without data from the gateway",
            "number",
            default="60",
        ),
        ExtraField(
            "rate_limit_calls",
            "Rate limit: calls",
            "Number of calls that this Airflow may make per period; Atlassian allows an account 5 per minute,"
            " across all programs",
            "integer",
            default="5",
        ),
        ExtraField(
            "rate_limit_seconds",
            "Rate limit: seconds",
            "Length of that period in seconds",
            "number",
            default="60",
        ),
        ExtraField(
            "rate_limit_store",
            "Rate limit: store",
            "For workers on several machines: redis://host:6379/0, rediss://… or redis_conn:<id>",
            default="file, which the processes of one machine share",
        ),
        ExtraField(
            "usage_prices",
            "Prices of usage",
            'Path of a JSON file, or JSON such as {"LLM_INPUT": {"price": "0.10", "allowance": "0"}}, in US'
            " dollars",
            default="Atlassian's published prices",
        ),
        ExtraField(
            "archive_url",
            "Archive URL",
            "Directory in which every response is kept, such as s3://aws_default@bucket/path, so that windows"
            " older than Atlassian's 14 days can be replayed",
            default="no archive",
        ),
    ),
)

OTLP = ConnectionForm(
    standard=(
        StandardField("host", "Endpoint", "https://collector:4318, or the whole URL of metrics"),
        StandardField(
            "password", "Secret", "sent as Authorization: Bearer …, or in the authentication header"
        ),
        _PORT,
    ),
    hidden=("schema", "login"),
    extras=(
        ExtraField(
            "auth_header",
            "Authentication header",
            # Airflow masks this field because of its name.
            "Header that carries the secret without a prefix, such as DD-API-KEY; shown as *** once saved",
            default="Authorization, with the prefix Bearer",
        ),
        ExtraField(
            "headers",
            "Additional headers",
            # Not an object: Airflow's editor for objects reformats the text while it is being typed.
            'JSON such as {"X-Scope-OrgID": "team"}. Not for secrets: everyone who can view'
            " Connections can read them",
        ),
        ExtraField(
            "protocol",
            "Protocol",
            "Encoding of requests; every receiver accepts protobuf",
            default="http/protobuf",
            choices=("http/protobuf", "http/json"),
        ),
        ExtraField(
            "compression",
            "Compression",
            "Compression of requests",
            default="gzip",
            choices=("gzip", "none"),
        ),
        ExtraField(
            "timeout",
            "Timeout",
            "Maximum time in seconds without data from the receiver",
            "number",
            default="30",
        ),
        ExtraField(
            "ca_file",
            "CA file",
            "PEM file on the workers, with the certificate authorities to trust instead of the default ones",
        ),
        ExtraField(
            "allow_cleartext",
            "Allow clear text",
            "true permits http:// to another machine, which sends the secret unencrypted",
            default="false",
            choices=("false", "true"),
        ),
        ExtraField("cert_file", "Client certificate", "PEM file on the workers"),
        ExtraField(
            "key_file",
            "Client key",
            "PEM file on the workers, if the certificate's file does not contain the key",
        ),
        ExtraField(
            "max_body_bytes",
            "Maximum request size",
            "Maximum size in bytes before compression, above which a request is split; up to 67108864",
            "integer",
            default="4194304",
        ),
        ExtraField(
            "max_compressed_bytes",
            "Maximum compressed size",
            "Maximum size in bytes after compression, above which a request is split",
            "integer",
            default="any size",
        ),
        ExtraField(
            "max_age",
            "Maximum age of points",
            "Maximum age of points that the destination accepts: seconds, 90m, 48h, 14d, or none for any age",
            default="known for Datadog, Dynatrace and New Relic, else none",
        ),
        ExtraField(
            "tenant",
            "Tenant",
            "Name of your choice that distinguishes accounts behind one URL in the ledger",
        ),
        ExtraField(
            "ledger_url",
            "Ledger URL",
            "Directory for the ledger of deliveries, such as s3://aws_default@bucket/path",
            default="Airflow's asset state store, as of 3.3",
        ),
    ),
)

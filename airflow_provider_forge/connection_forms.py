"""The forms of both Connections: one table, given to Airflow in both ways in which it asks.

Airflow 3.2 and later read the provider's metadata; 3.0 and 3.1 ask the hooks, and have the fields of extras
only where `wtforms` is installed. Airflow imports this module whenever it starts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["FORGE", "OTLP", "ConnectionForm", "ExtraField", "StandardField"]


class StandardField(NamedTuple):
    """A field that every Connection has. It has no room for help but its placeholder.

    Attributes:
        name: Airflow's.
        label: What it is called here.
        placeholder: Stands in it while it is empty.
    """

    name: str
    label: str
    placeholder: str


class ExtraField(NamedTuple):
    """A field of this provider's.

    Attributes:
        name: Its key in the Connection's extra.
        label: What people call it.
        help: What it is and where to find it; stands below the field.
        kind: `string`, `integer` or `number`.
        default: What an empty field means, as text. It is told, and never filled in: what a form has once
            saved would outlive a better default.
        choices: The only values, if there are only some.
    """

    name: str
    label: str
    help: str
    kind: str = "string"
    default: str = ""
    choices: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The help, with the default."""
        return f"{self.help}. Default: {self.default}" if self.default else self.help


class ConnectionForm(NamedTuple):
    """The form of one type of Connection.

    Attributes:
        standard: Airflow's own fields that mean something here.
        hidden: Those that mean nothing.
        extras: This provider's fields.
    """

    standard: tuple[StandardField, ...]
    hidden: tuple[str, ...]
    extras: tuple[ExtraField, ...]

    def conn_fields(self) -> dict[str, Any]:
        """Return `conn-fields` of the metadata."""
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
        """Return `ui-field-behaviour` of the metadata; with "_", what a hook's `get_…` of it returns."""
        return {
            f"hidden{separator}fields": list(self.hidden),
            "relabeling": {field.name: field.label for field in self.standard},
            "placeholders": {field.name: field.placeholder for field in self.standard},
        }

    def widgets(self) -> dict[str, Any]:
        """Return what a hook's `get_connection_form_widgets` does: fields of wtforms by the extras' names.

        Raises:
            ImportError: wtforms is not installed, which Airflow takes for a form without these fields.
        """
        # Airflow's API server puts its own classes in their place, which it turns into its own form.
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


FORGE = ConnectionForm(
    standard=(
        StandardField("login", "Atlassian account email", "of the account that owns the app"),
        StandardField("password", "API token", "make one at id.atlassian.com/manage/api-tokens"),
        StandardField("host", "Gateway URL", "leave empty for https://api.atlassian.com/graphql"),
    ),
    hidden=("schema", "port"),
    extras=(
        ExtraField("app_id", "App ID", "The app's ARI or UUID: app.id in the app's manifest.yml"),
        ExtraField(
            "environments",
            "Environments",
            "Names, UUIDs or ARIs with commas between them; forge environments list tells the names",
            default="production",
        ),
        ExtraField(
            "metrics",
            "Metrics",
            "Labels with commas between them, such as FORGE_API_REQUEST_COUNT; one unknown to Atlassian"
            " fails every call",
            default="the five FORGE_* metrics of invocations and API requests",
        ),
        ExtraField(
            "service_name",
            "Service name",
            "service.name of what is exported; changing it renames every series",
            default="forge-app-<UUID>",
        ),
        ExtraField(
            "token_expires_on",
            "API token expires on",
            # By its name, Airflow takes this for a secret.
            "Date such as 2027-01-31, of which the DAG forge_metrics_coverage warns; shown as *** once saved",
        ),
        ExtraField(
            "allow_cleartext",
            "Allow clear text",
            "true permits http:// to another machine, which sends the API token unencrypted",
            default="false",
            choices=("false", "true"),
        ),
        ExtraField(
            "timeout", "Time-out", "Seconds for which the gateway may stay silent", "number", default="60"
        ),
        ExtraField(
            "rate_limit_calls",
            "Rate limit: calls",
            "How many calls of the account's budget this Airflow may make; Atlassian allows 5 a minute to all"
            " programs together",
            "integer",
            default="5",
        ),
        ExtraField(
            "rate_limit_seconds", "Rate limit: seconds", "In how many seconds", "number", default="60"
        ),
        ExtraField(
            "rate_limit_store",
            "Rate limit: store",
            "For workers on several machines: redis://host:6379/0, rediss://… or redis_conn:<id>",
            default="file, for the processes of one machine",
        ),
    ),
)

OTLP = ConnectionForm(
    standard=(
        StandardField("host", "Endpoint", "https://collector:4318, or the whole URL of metrics"),
        StandardField(
            "password", "Secret", "sent as Authorization: Bearer …, or in the authentication header"
        ),
    ),
    hidden=("schema", "port", "login"),
    extras=(
        ExtraField(
            "auth_header",
            "Authentication header",
            # By its name, Airflow takes this for a secret itself.
            "Name of the header that takes the secret as it is, such as DD-API-KEY; shown as *** once saved",
            default="Authorization, with Bearer before the secret",
        ),
        ExtraField(
            "headers",
            "Further headers",
            # No object: Airflow's editor for those rewrites what one types as soon as it is JSON.
            'JSON such as {"X-Scope-OrgID": "team"}. Not for secrets: people who see Connections see them',
        ),
        ExtraField(
            "protocol",
            "Protocol",
            "Every receiver takes protobuf",
            default="http/protobuf",
            choices=("http/protobuf", "http/json"),
        ),
        ExtraField(
            "compression",
            "Compression",
            "Of each request",
            default="gzip",
            choices=("gzip", "none"),
        ),
        ExtraField(
            "timeout", "Time-out", "Seconds for which the receiver may stay silent", "number", default="30"
        ),
        ExtraField(
            "ca_file", "CA file", "PEM file on the workers: whom to trust instead of the usual authorities"
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
            "key_file", "Client key", "PEM file on the workers, where the certificate's file has no key"
        ),
        ExtraField(
            "max_body_bytes",
            "Largest request",
            "Bytes before compression, above which a request is split; up to 67108864",
            "integer",
            default="4194304",
        ),
        ExtraField(
            "max_compressed_bytes",
            "Largest request as sent",
            "Bytes after compression, above which a request is split too",
            "integer",
            default="any size",
        ),
        ExtraField(
            "max_age",
            "Oldest points",
            "How old points may be for the destination to keep them: seconds, 90m, 48h, 14d, or none for any"
            " age",
            default="known for Datadog, Dynatrace and New Relic, else none",
        ),
        ExtraField(
            "tenant",
            "Tenant",
            "A name of your own that tells accounts behind one URL apart, for the record of deliveries",
        ),
        ExtraField(
            "ledger_url",
            "Ledger URL",
            "A directory for the record of deliveries, such as s3://aws_default@bucket/path",
            default="Airflow's asset state store, as of 3.3",
        ),
    ),
)

"""What one call finds out about an account, whichever way the gateway says it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from airflow_provider_forge.exceptions import (
    AccessForbidden,
    BrokenAnswer,
    ConfigurationError,
    CredentialsRefused,
    GatewayUnavailable,
    QueryRefused,
    RateLimited,
)
from airflow_provider_forge.gateway.permissions import find_permissions
from airflow_provider_forge.gateway.queries import DEFAULT_METRICS
from airflow_provider_forge.sandbox import Fault, SandboxGateway, Scenario
from airflow_provider_forge.sandbox.server import Reply
from airflow_provider_forge.windows import Window
from tests.gateway.conftest import NOW, RecordingGateway

APP = "8ce114f4-d82c-45e2-b4fb-c6a0751d7d57"
PRODUCTION = "8cb293d5-be08-47ae-a75c-95b89da5ad1d"
WINDOW = Window.last_settled(NOW)


class EditedGateway(RecordingGateway):
    """Changes its answers before they leave."""

    def edit(self, payload) -> None:
        """Change the answer's JSON."""

    def respond(self, request):
        reply = super().respond(request)
        payload = json.loads(reply.body)
        self.edit(payload)
        return replace(Reply.of_json(payload, reply.status), headers=reply.headers)


@pytest.fixture
def edited(clock):
    with EditedGateway(rate_limit_calls=None, clock=lambda: clock.now.timestamp()) as gateway:
        yield gateway


@pytest.fixture
def find(connect):
    def find(gateway: SandboxGateway, environments=(), **options):
        client = connect(gateway, **options)
        return find_permissions(client, APP, WINDOW, list(environments), DEFAULT_METRICS)

    return find


def refused_metrics(status, **extension):
    """Return the error, and the null where it has struck, that GraphQL has for a field's failure."""
    extensions = {"statusCode": status, "errorType": "X", **extension}
    return {"message": "no", "path": ["ecosystem", "forgeMetrics"], "extensions": extensions}


@pytest.mark.parametrize("environments", [[], [PRODUCTION]])
def test_all_is_found_in_one_call(gateway, find, environments):
    access = find(gateway, environments)
    assert access.app_name == "Sandbox app 8ce114f4"
    assert sorted(environment.name for environment in access.environments) == sorted(
        {"default": "development"}.get(each.key, each.key) for each in gateway.environments
    )
    assert PRODUCTION in {environment.id for environment in access.environments}
    assert access.all_environments
    assert access.may_read_metrics is True
    assert len(gateway.calls) == 1


def test_refusing_a_nonexistent_environment_proves_permission(gateway, find):
    access = find(gateway)
    assert isinstance(access.metrics, QueryRefused)
    assert access.may_read_metrics is True
    assert find(gateway, [PRODUCTION]).metrics is None


def test_credentials_that_are_refused(gateway, find):
    with pytest.raises(CredentialsRefused):
        find(gateway, api_token="another")


def test_an_app_of_another_account(start_gateway, find):
    with pytest.raises(AccessForbidden):
        find(start_gateway(Scenario(forbidden_apps=frozenset({APP}))))


def test_an_app_that_is_not_there(edited, find):
    edited.edit = lambda payload: payload["data"].update(app=None)
    with pytest.raises(AccessForbidden, match=r"no app .*manifest\.yml.*request id"):
        find(edited)


@pytest.mark.parametrize("channel", ["errors", "query_error", "both"])
@pytest.mark.parametrize(
    ("status", "kind", "may_read"),
    [
        (403, AccessForbidden, False),
        (400, QueryRefused, True),
        (404, QueryRefused, True),
        (429, RateLimited, None),
        (503, GatewayUnavailable, None),
        (401, CredentialsRefused, None),
    ],
)
def test_refused_metrics_do_not_hide_the_other_findings(edited, find, channel, status, kind, may_read):
    def edit(payload):
        if channel != "query_error":
            payload["data"]["ecosystem"] = None
            payload["errors"] = [refused_metrics(status)]
        if channel != "errors":
            entry = {"errorType": "X", "statusCode": status}
            result = {"message": "no", "identifier": None, "extensions": [entry]}
            payload["data"]["ecosystem"] = {"forgeMetrics": {"appMetrics": result}}

    edited.edit = edit
    access = find(edited, [PRODUCTION])
    assert len(access.environments) >= 3
    assert type(access.metrics) is kind
    assert access.may_read_metrics is may_read


@pytest.mark.parametrize(
    "level",
    [{"ecosystem": None}, {"ecosystem": {"forgeMetrics": None}}, {"ecosystem": {"forgeMetrics": {}}}],
)
def test_null_in_place_of_metrics_leaves_the_permission_unknown(edited, find, level):
    edited.edit = lambda payload: payload["data"].update(level)
    access = find(edited)
    assert isinstance(access.metrics, BrokenAnswer)
    assert access.may_read_metrics is None


@pytest.mark.parametrize("path", [None, [], ["app"], ["app", "environmentsPage"], 5])
def test_any_other_error_is_raised(edited, find, path):
    def edit(payload):
        payload["errors"] = [{"message": "no", "path": path, "extensions": {"statusCode": 500}}]

    edited.edit = edit
    with pytest.raises(GatewayUnavailable):
        find(edited)


def test_an_error_of_the_metrics_without_any_data_is_raised(edited, find):
    edited.edit = lambda payload: payload.update(data=None, errors=[refused_metrics(403)])
    with pytest.raises(AccessForbidden):
        find(edited)


@pytest.mark.parametrize(
    "app",
    [
        {"name": "n", "environmentsPage": None},
        {"environmentsPage": {"nodes": [{"id": 5}], "pageInfo": {"hasNextPage": False}}},
        {"environmentsPage": {"nodes": []}},
    ],
)
def test_a_response_that_does_not_match_the_schema(edited, find, app):
    edited.edit = lambda payload: payload["data"].update(app=app)
    with pytest.raises(BrokenAnswer):
        find(edited)


def test_failures_of_the_transport(gateway, find):
    gateway.add_fault(Fault("status", status=502))
    with pytest.raises(GatewayUnavailable):
        find(gateway)


def test_more_than_a_hundred_environments(edited, find):
    edited.edit = lambda payload: payload["data"]["app"]["environmentsPage"]["pageInfo"].update(
        hasNextPage=True
    )
    assert not find(edited).all_environments


def test_a_name_that_no_environment_has_is_refused_with_those_there_are(gateway, find):
    access = find(gateway)
    access.check_names(APP, ["production", "development", PRODUCTION])
    with pytest.raises(
        ConfigurationError,
        match=r"Did you mean 'production'\? .*production, staging \(app ",
    ):
        access.check_names(APP, ["prodution"])

"""How unexpected errors are reported."""

from __future__ import annotations

import argparse
import json
import logging
import re

import pytest

from airflow_provider_forge.cli import check
from airflow_provider_forge.cli.main import INTERNAL_ERROR, execute, main
from airflow_provider_forge.sandbox import OtlpSink, SandboxGateway


@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_that_is_a_bug_is_one_line_and_a_status_of_its_own(monkeypatch, capsys, caplog, as_json):
    caplog.set_level(logging.WARNING, "airflow_provider_forge")  # which a command sets for good

    def fail(*_):
        raise KeyError("surprise\nand more")

    monkeypatch.setattr(check, "forge_access", fail)
    ids = {"forge_conn_id": "forge_default", "otlp_conn_id": "otlp_default"}
    options = argparse.Namespace(json=as_json, format=None, **ids)
    assert execute("check", options) == INTERNAL_ERROR == 70
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert re.match(r"KeyError at cli/check\.py:\d+: .*surprise.* please report this line", line)
    if as_json:
        assert json.loads(said.out)["error"] == {"kind": "KeyError", "message": line}
    else:
        assert said.out == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("replay --from today --to yesterday", "--to: .* is not after the start"),
        ("archive ls --from 2001-01-01", "--from: .* is longer than 10 years"),
        ("send --last 1h --app-id x --no-ledger", "--app-id: 'x' is neither"),
        ("send --last 1h --no-ledger", "app_id: 'y' is neither"),
    ],
)
def test_a_field_that_is_an_option_is_named_as_it(connect, tmp_path, capsys, line, message):
    app_id = {"app_id": "y"} if message.startswith("app_id") else {}
    with SandboxGateway() as gateway, OtlpSink() as sink:
        connect(gateway, sink, forge={"archive_url": f"file://{tmp_path}/archive", **app_id})
        assert main(line.split()) == 2
        assert gateway.calls == []
    assert re.match(message, capsys.readouterr().err.splitlines()[-1])

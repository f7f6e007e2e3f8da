from __future__ import annotations

import math
import socket
import ssl
import threading
from datetime import datetime, timezone

import httpx
import pytest

from airflow_provider_forge import __version__
from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.http import (
    USER_AGENT,
    check_cleartext,
    check_url,
    explain_transport_error,
    is_loopback,
    retry_after,
)
from airflow_provider_forge.sandbox import OtlpSink
from airflow_provider_forge.text import sanitize
from tests.certificates import make_certificate, refused_handshake

EXAMPLE = "https://host:4318"
NOW = datetime(2021, 5, 10, 10, 59, 30, tzinfo=timezone.utc)


def test_the_user_agent_is_ours_with_the_version():
    assert f"airflow-provider-forge/{__version__}" == USER_AGENT


HTTP_DATE = "Mon, 10 May 2021 11:00:00 GMT"
WHEN = [
    ("30", 30),
    ("0", 0),
    (" 30 ", 30),
    ("Mon, 10 May 2021 11:00:00 GMT", 30),
    ("Monday, 10-May-21 11:00:00 GMT", 30),
    ("Mon, 10 May 2021 13:00:00 +0200", 30),
    ("2021-05-10T11:00Z", 30),
    ("2021-05-10T11:00:00Z", 30),
    ("2021-05-10T11:00:00.500Z", 30.5),
    ("2021-05-10T13:00+02:00", 30),
    # Without an offset it is taken for UTC.
    ("2021-05-10T11:00", 30),
    # A time that has passed: come back at once.
    ("2021-05-10T10:59Z", 0),
    ("Mon, 10 May 2021 10:00:00 GMT", 0),
]


@pytest.mark.parametrize("header", ["Retry-After", "X-RateLimit-Reset"])
@pytest.mark.parametrize(("value", "seconds"), WHEN)
def test_retry_after_in_every_form(header, value, seconds):
    assert retry_after(httpx.Headers({header: value}), NOW) == seconds


@pytest.mark.parametrize("per_second", [1, 1000])
def test_a_reset_can_be_an_epoch(per_second):
    reset = str((int(NOW.timestamp()) + 30) * per_second)
    assert retry_after({"x-ratelimit-reset": reset}, NOW) == 30


@pytest.mark.parametrize(
    "nonsense",
    [
        *("", " ", "soon", "-5", "1.5", "²", "Z", "Mon, 99 May 2021 11:00:00 GMT", "2021-13-10T11:00Z"),
        # The standard library raises OverflowError for this offset.
        "Mon, 10 May 2021 11:00:00 +9999999999999",
    ],
)
def test_a_malformed_header_is_ignored(nonsense):
    assert retry_after({"retry-after": nonsense}, NOW) is None
    assert retry_after({"retry-after": nonsense, "x-ratelimit-reset": "7"}, NOW) == 7


def test_with_any_header_the_wait_is_a_finite_number():
    seconds = retry_after({"retry-after": "9" * 400}, NOW)
    assert seconds is None or math.isfinite(seconds)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3, 9", 9), ("9, 3", 9), ("3, soon", 3), (f"5, {HTTP_DATE}", 30), (f"{HTTP_DATE}, {HTTP_DATE}", 30)],
)
def test_of_several_waits_the_longest_counts(value, seconds):
    assert retry_after({"retry-after": value}, NOW) == seconds


def test_retry_after_wins_over_the_reset():
    assert retry_after({"retry-after": "3", "x-ratelimit-reset": "7"}, NOW) == 3


def test_without_a_header_there_is_no_wait():
    assert retry_after({}, NOW) is None


@pytest.mark.parametrize(
    ("said", "quoted"),
    [
        ("It failed", "It failed"),
        ("two\nlines,\ta tab \x1b[31mand  colour", "two lines, a tab [31mand colour"),
        ("your token s3cr3t-t0ken is bad", "your token *** is bad"),
        ("s3cr3t-t0kens3cr3t-t0ken", "******"),
        ("x" * 301, "x" * 300 + "…"),
        ("x" * 300, "x" * 300),
        ("", ""),
    ],
)
def test_a_server_is_quoted_in_one_short_line_without_secrets(said, quoted):
    assert sanitize(said, ["s3cr3t-t0ken"]) == quoted


def test_a_secret_is_masked_before_the_quotation_is_truncated():
    assert "s3cr3t" not in sanitize("x" * 295 + "s3cr3t-t0ken", ["s3cr3t-t0ken"])


@pytest.mark.parametrize("secret", ["", "a"])
def test_a_secret_that_is_too_short_is_not_masked(secret):
    assert sanitize("a banana", [secret]) == "a banana"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://api.atlassian.com/graphql", "api.atlassian.com"),
        ("http://127.0.0.1:8080", "127.0.0.1"),
        ("http://[::1]:4318/v1/metrics", "::1"),
        ("HTTPS://Example.com", "example.com"),
        ("http://bücher.example/graphql", "bücher.example"),
    ],
)
def test_a_url_is_parsed(url, host):
    assert check_url("host", url, example=EXAMPLE).hostname == host


@pytest.mark.parametrize(
    "url",
    [
        *("", "api.atlassian.com", "/graphql", "http://", "http:///graphql", "ftp://example.com"),
        *("http://host:0", "http://host:99999", "http://host:port", "http://[::1", "http://[zz]/"),
        *("http://ho st/", "http://ho\nst/", "http://host/?key=1", "http://host/#part"),
        # Names that no resolver takes: found only when the call is made, and as a UnicodeError.
        *("http://a..b/", f"http://{'a' * 70}.example/", "http://xn--/", "http://\u0661.example/"),
    ],
)
def test_a_bad_url_is_refused_by_field_name(url):
    with pytest.raises(ConfigurationError) as caught:
        check_url("forge_default: host", url, example=EXAMPLE)
    assert caught.value.field == "forge_default: host"


@pytest.mark.parametrize(
    "url",
    [
        "https://dev@example.com:s3cr3t-t0ken@host/graphql",
        "https://s3cr3t-t0ken@host/graphql",
        "//dev:s3cr3t-t0ken@host",
        # Without a scheme, or with a broken one, the credentials are no part of the network location.
        "dev:s3cr3t-t0ken@host/graphql",
        "https:dev:s3cr3t-t0ken@host/graphql",
        "https:/dev:s3cr3t-t0ken@host/graphql",
        "ftp://dev:s3cr3t-t0ken@host",
        "https://dev:s3cr3t-t0ken/more@host/graphql",
        "https://dev:s3cr3t-t0ken#more@host/graphql",
        "https://host/?token=s3cr3t-t0ken",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(ConfigurationError) as caught:
        check_url("host", url, example=EXAMPLE)
    assert "s3cr3t-t0ken" not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# ---- secrets without TLS


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9")),
        *((host, True) for host in ("::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1")),
        *((host, False) for host in ("", "collector", "localhost.example", "128.0.0.1", "10.0.0.1", "::2")),
        *((host, False) for host in ("127.0.0.1.example", "fe80::1", "::ffff:10.0.0.1", "0.0.0.0")),
    ],
)
def test_this_machine_is_recognized_by_its_addresses(host, loopback):
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("url", ["http://gateway.example/graphql", "http://10.0.0.1", "http://[fd00::1]:80/"])
def test_a_secret_goes_to_another_machine_in_clear_text_only_if_that_is_allowed(url):
    with pytest.raises(ConfigurationError, match="allow_cleartext") as caught:
        check_cleartext("forge_default: host", url, allowed=False)
    assert caught.value.field == "forge_default: host"
    check_cleartext("host", url, allowed=True)
    check_cleartext("host", url.replace("http:", "https:"), allowed=False)


@pytest.mark.parametrize("url", ["http://localhost:8080/graphql", "http://127.0.0.1", "http://[::1]:4318/"])
def test_this_machine_is_always_allowed(url):
    check_cleartext("host", url, allowed=False)


def test_a_proxy_on_this_machine_is_not_another_machine(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:15001")
    check_cleartext("host", "http://gateway.example/graphql", allowed=False)
    monkeypatch.setenv("NO_PROXY", "gateway.example")
    with pytest.raises(ConfigurationError, match="allow_cleartext"):
        check_cleartext("host", "http://gateway.example/graphql", allowed=False)


def test_a_proxy_elsewhere_reads_it_too(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    with pytest.raises(ConfigurationError, match="allow_cleartext"):
        check_cleartext("host", "http://gateway.example/graphql", allowed=False)


# ---- why no answer came


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def no_answer_from(url: str, **options) -> str:
    """Return why a real request failed."""
    with pytest.raises(httpx.RequestError) as failed:
        httpx.get(url, timeout=0.3, trust_env=False, **options)
    return explain_transport_error(failed.value, trust="Trust it")


def test_nothing_listens(listener):
    port = listener.getsockname()[1]
    listener.close()
    assert "nothing listens on that port" in no_answer_from(f"http://127.0.0.1:{port}")


def test_no_such_host():
    assert "cannot resolve the host name" in no_answer_from("http://no-such-host.invalid")


def test_silence(listener):
    assert "did not respond" in no_answer_from(f"http://127.0.0.1:{listener.getsockname()[1]}")


def test_a_certificate_that_is_not_trusted(tmp_path, listener):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificate(tmp_path, "receiver"))
    port = listener.getsockname()[1]
    with context.wrap_socket(listener, server_side=True) as secure:
        thread = threading.Thread(target=refused_handshake, args=(secure,))
        thread.start()
        why = no_answer_from(f"https://127.0.0.1:{port}")
        thread.join()
    assert "not trusted by this machine" in why
    assert why.endswith("Trust it")


def test_https_to_a_server_that_speaks_http():
    with OtlpSink() as sink:
        assert "does not speak TLS" in no_answer_from(sink.url.replace("http:", "https:"))


def test_a_connection_that_breaks(listener):
    def hang_up() -> None:
        connection, _ = listener.accept()
        connection.recv(1)
        connection.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    why = no_answer_from(f"http://127.0.0.1:{listener.getsockname()[1]}")
    thread.join()
    assert "closed the connection" in why


def test_a_connection_that_is_never_accepted():
    assert "firewalls" in explain_transport_error(httpx.ConnectTimeout("no"), trust="")

"""How this machine reaches a URL, by its variables."""

from __future__ import annotations

import ssl

import httpx
import pytest

from airflow_provider_forge.exceptions import ConfigurationError
from airflow_provider_forge.proxies import Route, find_proxy, trusted_authorities
from tests.certificates import make_certificate
from tests.raw_server import raw_server, response

PROXY = "http://someone:Pr0xyS3cret@127.0.0.1:9"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    """Set variables of this machine, which has none of its own."""
    for name in VARIABLES:
        for each in (name, name.upper()):
            monkeypatch.delenv(each, raising=False)
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("::1", "http://[::1]:4318", True),
        ("::1/128", "http://[::1]", True),
        ("[::1]", "http://[::1]", True),
        ("[::1]:4318", "http://[::1]:4318", True),
        ("[::1]:4318", "http://[::1]:4319", False),
        ("fd00::/8", "http://[fd12::1]", True),
        ("fd00::/8", "http://[fe80::1]", False),
        ("fe80::/10", "http://127.0.0.1", False),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.1.2.3/8", "http://10.9.9.9", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("127.0.0.1, ::1 ,localhost", "http://127.0.0.1:1", True),
        ("127.0.0.1 localhost", "http://localhost", True),
        ("localhost", "http://a.localhost", False),
        ("example.com", "http://example.com", True),
        ("Example.com.", "http://www.EXAMPLE.com", True),
        ("example.com", "http://notexample.com", False),
        (".example.com", "http://www.example.com", True),
        (".example.com", "http://example.com", False),
        ("*.example.com", "http://www.example.com", True),
        ("example.com:8080", "http://example.com:8080", True),
        ("example.com:8080", "http://example.com", False),
        ("example.com:80", "http://example.com", True),
        ("https://example.com", "http://example.com", False),
        ("http://example.com", "http://example.com", True),
        ("*", "http://example.com", True),
        ("a,*", "http://[::1]", True),
        # What means nothing covers nothing, and stops nobody.
        ("[::1", "http://example.com", False),
        ("300.0.0.0/99,::::,:80,[],://,,", "http://example.com", False),
    ],
)
def test_no_proxy_in_every_form(variables, no_proxy, url, direct):
    variables(HTTP_PROXY=PROXY, NO_PROXY=no_proxy)
    assert (find_proxy(url) is None) is direct
    Route(url).client().close()


@pytest.mark.parametrize(
    ("values", "url", "variable"),
    [
        ({"HTTP_PROXY": PROXY}, "http://h", "HTTP_PROXY"),
        ({"http_proxy": PROXY}, "http://h", "http_proxy"),
        ({"HTTP_PROXY": "http://other:1", "http_proxy": PROXY}, "http://h", "http_proxy"),
        ({"HTTP_PROXY": PROXY}, "https://h", None),
        ({"HTTPS_PROXY": PROXY}, "https://h", "HTTPS_PROXY"),
        ({"ALL_PROXY": PROXY}, "https://h", "ALL_PROXY"),
        ({"all_proxy": PROXY, "HTTPS_PROXY": PROXY}, "https://h", "HTTPS_PROXY"),
        ({"HTTP_PROXY": PROXY.removeprefix("http://")}, "http://h", "HTTP_PROXY"),
        ({"HTTP_PROXY": " "}, "http://h", None),
        ({}, "http://h", None),
    ],
)
def test_the_variable_that_counts_is_named_and_its_credentials_are_not(variables, values, url, variable):
    variables(**values)
    proxy = find_proxy(url)
    assert (proxy and proxy.variable) == variable
    if proxy:
        assert proxy.name == f"the proxy http://127.0.0.1:9 ({variable})"
        assert "Pr0xyS3cret" in proxy.secrets
        assert "Pr0xyS3cret" not in repr(proxy)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "http://me:Geh/eim@127.0.0.1:9",
            "http://me:123/Geheim@h:9",
            "http://Geheim#@h:9",
            "http://Geh?eim@h",
        ),
        *(
            "me:Geh/eim@127.0.0.1:9",
            "http://Geheim:port",
            "http://Geheim:0",
            "http://Geheim:99999",
            "http://",
        ),
        *("ftp://Geheim", "socks4://Geheim:1", "http://Geheim..b", "http://[Geheim", "http://a b:1"),
    ],
)
@pytest.mark.parametrize("name", ["HTTP_PROXY", "all_proxy"])
def test_a_malformed_proxy_is_refused_by_the_variable_and_not_repeated(variables, name, value):
    variables(**{name: value})
    with pytest.raises(ConfigurationError) as caught:
        Route("http://example.com")
    assert caught.value.field == name
    assert "Geh" not in str(caught.value) + repr(caught.value.__cause__)
    variables(NO_PROXY="example.com")
    Route("http://example.com").client().close()


def test_socks_without_its_package_is_refused_only_for_hosts_behind_it(variables, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    variables(ALL_PROXY="socks5://127.0.0.1:1080", NO_PROXY="127.0.0.1")
    with pytest.raises(ConfigurationError, match=r"^ALL_PROXY: .*socksio"):
        Route("http://example.com")
    Route("http://127.0.0.1").client().close()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "/nowhere/ca.pem cannot be read"),
        ("SSL_CERT_FILE", "/", "cannot be read"),
        ("SSL_CERT_FILE", __file__, "cannot be read"),
        ("SSL_CERT_DIR", "/nowhere", "is not a directory"),
        ("SSL_CERT_DIR", __file__, "is not a directory"),
        ("SSL_CERT_DIR", "/" + "a" * 5000, "is not a directory"),
    ],
)
def test_certificates_that_are_not_there_are_refused_by_the_variable(variables, name, value, words):
    variables(**{name: value})
    with pytest.raises(ConfigurationError, match=words) as caught:
        Route("https://example.com")
    assert caught.value.field == name
    # Nothing is encrypted there, and a receiver's own authorities count for it alone.
    Route("http://example.com")
    Route("https://example.com", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def test_an_https_proxy_needs_them_too(variables):
    variables(HTTP_PROXY="https://proxy.example", SSL_CERT_FILE="/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        Route("http://example.com")


def test_certificates_are_read_from_the_variables(variables, tmp_path):
    count = len(trusted_authorities().get_ca_certs())
    variables(SSL_CERT_FILE=str(make_certificate(tmp_path, "authority")))
    assert len(trusted_authorities().get_ca_certs()) < count


def through(route: Route, url: str) -> httpx.Response | httpx.RequestError:
    with route.client(timeout=5) as client:
        try:
            return client.get(url)
        except httpx.RequestError as error:
            return error


@pytest.mark.parametrize(
    ("status", "words"),
    [(407, "requires credentials"), (403, "refuses to connect"), (401, "refuses"), (429, None), (502, None)],
)
def test_a_proxy_that_opens_no_tunnel(variables, status, words):
    with raw_server(lambda _: response(status)) as server:
        variables(HTTPS_PROXY=f"http://someone:Pr0xyS3cret@127.0.0.1:{server.port}")
        route = Route("https://gateway.example/graphql")
        error = through(route, "https://gateway.example/graphql")
        assert server.requests[0].line.startswith("CONNECT gateway.example:443 ")
    assert isinstance(error, httpx.ProxyError)
    refusal = route.refusal(error)
    assert (refusal is None) == (words is None)
    assert route.via == f" through the proxy http://127.0.0.1:{server.port} (HTTPS_PROXY)"
    assert route.answered_by_proxy == ""
    if refusal:
        assert refusal.field == "HTTPS_PROXY"
        assert words in str(refusal)
        assert str(server.port) in str(refusal)
        assert "Pr0xyS3cret" not in str(refusal)


@pytest.mark.parametrize(("status", "refused"), [(407, True), (403, False), (502, False), (200, False)])
def test_a_proxy_without_a_tunnel_responds_in_place_of_the_host(variables, status, refused):
    with raw_server(lambda _: response(status)) as server:
        variables(HTTP_PROXY=server.url)
        route = Route("http://gateway.example/graphql")
        answer = through(route, "http://gateway.example/graphql")
        assert server.requests[0].line.startswith("GET http://gateway.example/")
    refusal = route.refusal(answer.status_code)
    assert bool(refusal) is refused
    assert route.answered_by_proxy == route.via == f" through the proxy {server.url} (HTTP_PROXY)"
    if refusal:
        assert "the proxy" in str(refusal)
        assert "(407)" in str(refusal)


def test_a_407_of_a_proxy_that_no_variable_names():
    refusal = Route("http://gateway.example").refusal(407)
    assert refusal.field == "HTTP_PROXY"
    assert "a proxy in between" in str(refusal)

from __future__ import annotations

import logging
import threading

import httpx
import pytest

from airflow_provider_forge.sandbox import OtlpSink
from airflow_provider_forge.sandbox.server import LocalServer, Reply


class Failing(LocalServer):
    def respond(self, request):
        raise LookupError("a bug")


class Waiting(LocalServer):
    def __init__(self):
        super().__init__()
        self.asked = threading.Event()

    def respond(self, request):
        self.asked.set()
        return Reply(delivery="hang")


def test_a_server_has_no_address_before_it_started():
    with pytest.raises(RuntimeError, match="start"):
        _ = OtlpSink().url


def test_a_server_that_is_started_again_keeps_its_port(http):
    sink = OtlpSink()
    urls = []
    for _ in range(2):
        with sink:
            urls.append(sink.url)
            assert http.get(sink.url).status_code == 200
        with pytest.raises(httpx.TransportError):
            http.get(sink.url)
        sink.stop()
    assert urls[0] == urls[1]


def test_a_server_runs_once():
    with OtlpSink() as sink, pytest.raises(RuntimeError, match="already"):
        sink.start()


def test_one_connection_is_used_again(sink):
    with httpx.Client(trust_env=False, verify=False) as http:
        streams = [http.get(sink.url).extensions["network_stream"] for _ in range(3)]
        ports = {stream.get_extra_info("client_addr")[1] for stream in streams}
    assert len(ports) == 1


def test_stopping_ends_hanging_handlers(http):
    before = set(threading.enumerate())
    server = Waiting().start()
    failures = []

    def ask():
        try:
            http.get(server.address)
        except httpx.TransportError as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert server.asked.wait(10)
    server.stop()
    asking.join(10)
    assert len(failures) == 1
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before


def test_a_bug_is_logged_and_never_hidden(http, caplog):
    with Failing() as server, caplog.at_level(logging.ERROR):
        with pytest.raises(httpx.RemoteProtocolError):
            http.get(server.address)
        server.stop()
    assert "LookupError: a bug" in caplog.text


def test_nothing_is_printed_per_request(http, sink, capfd):
    http.get(sink.url)
    http.get(f"{sink.url}/nowhere")
    assert capfd.readouterr() == ("", "")

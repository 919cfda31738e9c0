"""The port that Prometheus reads: what a hostile client can take from the process behind it."""

import dataclasses
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from prometheus_client import CollectorRegistry, Gauge

from deployments.local.stack import health, ports
from deployments.local.supervisor.programs import Process
from deployments.metrics import server
from deployments.metrics.server import CONNECTIONS_MAX, MetricsServer
from tasks import reconciler
from tests.local import fixtures


@pytest.fixture
def start():
    """Starts servers of one figure and more collectors, and ends them."""
    begun = []

    def begin(*more):
        registry = CollectorRegistry()
        Gauge("figure", "Something.", registry=registry).set(7)
        for one in more:
            registry.register(one)
        begun.append(MetricsServer(0, registry))
        return begun[-1]

    yield begin
    for one in begun:
        one.shutdown()
        one.server_close()
        one.thread.join(60)


def connect(one):
    return socket.create_connection(("127.0.0.1", one.server_port), timeout=60)


def rest(connection):
    """All that comes until the server closes; a reset is a close too."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def ask(one, request):
    with connect(one) as connection:
        connection.sendall(request)
        return rest(connection)


def status(one, start_line="GET /metrics HTTP/1.1", *headers):
    reply = ask(one, "\r\n".join([start_line, *headers, "", ""]).encode())
    return int(reply.split()[1]) if reply else None


def hold(one, count, before):
    """Half-sent requests, each with a thread, in a process that had `before` threads."""
    held = []
    for _ in range(count):
        held.append(connect(one))
        held[-1].sendall(b"GET /metrics HTTP/1.1\r\nhost: loc")
    fixtures.until(lambda: threading.active_count() >= before + count)
    return held


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9000", "[::1]:80", "LocalHost:1"])
def test_a_scrape_of_this_machine_is_answered(start, host):
    reply = ask(start(), f"GET /metrics HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    head, _, body = reply.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert b"figure 7.0\n" in body
    assert f"content-length: {len(body)}".encode() in head


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["host: attacker.example"],
        ["host: localhost.attacker.example:9000"],
        ["host: 127.0.0.1@attacker.example"],
        ["host: localhost", "host: attacker.example"],
    ],
)
def test_a_page_that_was_bound_to_this_address_reads_nothing(start, headers):
    assert status(start(), "GET /metrics HTTP/1.1", *headers) == 403


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET / HTTP/1.1", 404),
        ("GET /metrics/x HTTP/1.1", 404),
        ("POST /metrics HTTP/1.1", 501),
        ("OPTIONS /metrics HTTP/1.1", 501),
    ],
)
def test_nothing_else_is_answered(start, line, expected):
    assert status(start(), line, "host: localhost") == expected


def test_half_sent_requests_take_a_few_threads_and_the_rest_is_closed(start, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_S", 600)
    one = start()
    before = threading.active_count()
    held = hold(one, CONNECTIONS_MAX, before)
    more = [connect(one) for _ in range(100)]
    assert [rest(connection) for connection in more] == [b""] * 100
    assert threading.active_count() <= before + CONNECTIONS_MAX
    for connection in [*held, *more]:
        connection.close()
    fixtures.until(lambda: status(one, "GET /metrics HTTP/1.1", "host: localhost") == 200)


def test_half_sent_requests_are_ended_in_time(start, monkeypatch):
    one = start()
    monkeypatch.setattr(server, "REQUEST_S", 0.2)
    with connect(one) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: loc")
        assert rest(connection) == b""


def test_a_request_that_drips_is_ended_in_time(start, monkeypatch):
    """Each byte by itself would be in time."""
    one = start()
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    ended, limit = threading.Event(), time.monotonic() + 60
    with connect(one) as connection:
        reader = threading.Thread(target=lambda: (rest(connection), ended.set()))
        reader.start()
        try:
            while not ended.wait(0.02) and time.monotonic() < limit:
                connection.sendall(b"G")
        except ConnectionError:
            pass
        reader.join(60)
    assert ended.is_set()
    assert status(one, "GET /metrics HTTP/1.1", "host: localhost") == 200


class FaultyOnce:
    """A figure that cannot be told the first time."""

    def __init__(self):
        self.asked = 0

    def describe(self):
        return []

    def collect(self):
        self.asked += 1
        if self.asked == 1:
            raise ZeroDivisionError
        return []


def test_a_fault_of_a_figure_is_logged_and_ends_its_request_alone(start, capsys):
    one = start(FaultyOnce())
    assert status(one, "GET /metrics HTTP/1.1", "host: localhost") is None
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert status(one, "GET /metrics HTTP/1.1", "host: localhost") == 200


def test_the_reconciler_goes_on_without_its_port_and_takes_it_later(
    tmp_path, monkeypatch, caplog
):
    config, stop = fixtures.configured(tmp_path), threading.Event()
    monkeypatch.setattr(reconciler, "_BIND_AGAIN_S", 0.1)
    monkeypatch.setattr(reconciler, "Metrics", lambda _place: FaultyOnce())
    port, begun = config.local.metrics_port, []
    monkeypatch.setattr(
        reconciler, "MetricsServer", lambda *how: begun.append(MetricsServer(*how)) or begun[0]
    )
    try:
        with socket.create_server(("127.0.0.1", port)):
            reconciler.serve_metrics(config, None, stop)
            assert "no metrics" in caplog.text
            time.sleep(0.3)
            assert not begun
        fixtures.until(lambda: bool(begun))
        assert status(begun[0], "GET / HTTP/1.1", "host: localhost") == 404
    finally:
        stop.set()
        for one in begun:
            one.shutdown()
            one.server_close()


def test_a_fault_that_lasts_is_logged_once(tmp_path, monkeypatch, caplog):
    config, stop = fixtures.configured(tmp_path), threading.Event()
    monkeypatch.setattr(reconciler, "_BIND_AGAIN_S", 0.01)
    monkeypatch.setattr(reconciler, "Metrics", lambda _place: FaultyOnce())
    with socket.create_server(("127.0.0.1", config.local.metrics_port)):
        reconciler.serve_metrics(config, None, stop)
        time.sleep(0.3)
        stop.set()
        assert caplog.text.count("no metrics") == 1


def test_a_port_of_metrics_that_is_somebody_elses_is_a_problem(tmp_path):
    config = fixtures.configured(tmp_path)
    own = Process("reconciler", "reconciler", "RUNNING", os.getpid(), 100, 0, tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        elses = dataclasses.replace(own, pid=other.pid)
        assert not health._unread(elses, config)
        with socket.create_server(("127.0.0.1", config.local.metrics_port)):
            assert health._unread(elses, config)
            assert not health._unread(own, config)
        other.kill()
    part = health._port_taken(config)
    assert str(config.local.metrics_port) in part.problem
    assert not ports.held_by_another(config.local.metrics_port, 2**22)

"""Where a model server listens: a port, or a unix socket that is its owner's alone."""

import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from model.program.errors import BadInput
from model.serving.address import listen, read_address

ENVIRONMENT = {
    "AIP_HTTP_PORT": "9000",
    "AIP_HEALTH_ROUTE": "/health",
    "AIP_PREDICT_ROUTE": "/predict",
    "ARR_COC_VERSION": "v7",
    "ARR_COC_PICTURE_PIXELS_MAX": "4000000",
    "ARR_COC_REQUEST_PIXELS_MAX": "8000000",
}


def at(path):
    return read_address(ENVIRONMENT | {"AIP_HTTP_PORT": "", "ARR_COC_SOCKET": str(path)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AIP_HTTP_PORT", "http"),
        ("AIP_HTTP_PORT", "0"),
        ("AIP_HTTP_PORT", "9" * 5000),
        ("AIP_HTTP_PORT", "９"),
        ("ARR_COC_THREADS", "0"),
        ("ARR_COC_PICTURE_PIXELS_MAX", "4e6"),
        ("ARR_COC_REQUEST_PIXELS_MAX", "50000001"),
        ("AIP_PREDICT_ROUTE", "predict"),
        ("AIP_PREDICT_ROUTE", "/health"),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(name, value):
    with pytest.raises(BadInput, match=rf"{name} \(={value[:20]}"):
        read_address(ENVIRONMENT | {name: value})
    assert read_address(ENVIRONMENT).host == "127.0.0.1"


@pytest.mark.parametrize("name", sorted(ENVIRONMENT.keys() - {"AIP_HTTP_PORT"}))
def test_what_is_not_set_is_named(name):
    with pytest.raises(BadInput, match=f"{name} is not set"):
        read_address(ENVIRONMENT | {name: ""})


def test_a_server_is_told_a_port_or_a_socket_and_never_both():
    for port, path in (("", ""), ("9000", "/run/model.sock")):
        with pytest.raises(BadInput, match="AIP_HTTP_PORT and ARR_COC_SOCKET"):
            read_address(ENVIRONMENT | {"AIP_HTTP_PORT": port, "ARR_COC_SOCKET": path})


def test_nobody_but_its_owner_may_ask_at_a_socket(tmp_path, monkeypatch):
    """From its first moment: its mode is looked at before anybody could change it."""
    modes, path = [], tmp_path / "model.sock"
    bind = socket.socket.bind

    def look(self, address):
        bind(self, address)
        modes.append(stat.S_IMODE(Path(address).stat().st_mode))

    monkeypatch.setattr(socket.socket, "bind", look)
    before = os.umask(0)
    try:
        with listen(at(path)):
            assert modes == [0o600]
        assert os.umask(0) == 0, "the process's own umask is as it was"
    finally:
        os.umask(before)


def test_the_socket_of_a_killed_server_is_replaced(tmp_path):
    path = tmp_path / "model.sock"
    child = os.fork()
    if not child:
        listen(at(path))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.is_socket()
    with listen(at(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_the_socket_of_a_living_server_is_not_stolen(tmp_path):
    path = tmp_path / "model.sock"
    with listen(at(path)) as living:
        with pytest.raises(BadInput, match=f"a living server listens on {path}"):
            listen(at(path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            living.accept()[0].close()


@pytest.mark.parametrize("name", ["missing/model.sock", "x" * 120])
def test_a_path_that_cannot_be_listened_on_is_named(tmp_path, name):
    with pytest.raises(BadInput, match="cannot listen on .*model|cannot listen on .*xxx"):
        listen(at(tmp_path / name))


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(BadInput, match=f"cannot listen on 127.0.0.1:{port}"):
            listen(read_address(ENVIRONMENT | {"AIP_HTTP_PORT": str(port)}))

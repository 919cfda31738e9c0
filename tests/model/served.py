"""A real model server of an untrained network, at a socket of its own."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import torch

from model.dataset import vocabulary
from model.network import saved_model
from model.network.network import Network, Sizes
from model.program.files import sha256_hex

QUESTION = "what is the texture of the red object"
ENVIRONMENT = {
    "AIP_HEALTH_ROUTE": "/health",
    "AIP_PREDICT_ROUTE": "/predict",
    "ARR_COC_VERSION": "v7",
    "ARR_COC_PICTURE_PIXELS_MAX": "4000000",
    "ARR_COC_REQUEST_PIXELS_MAX": "4000000",
}


def sealed_release(folder):
    torch.manual_seed(0)
    words, answers = vocabulary.build([QUESTION]), ("rows", "columns", "checks")
    sizes = Sizes(16, len(words) + 1, len(answers), "none")
    saved_model.save_plain(
        folder, sizes, Network(sizes).state_dict(), words, answers, "sha256:0"
    )
    seal(folder)
    return folder


def seal(folder):
    names = sorted(p.name for p in folder.iterdir() if p.name != "MANIFEST")
    lines = [f"{sha256_hex((folder / name).read_bytes())}  {name}\n" for name in names]
    (folder / "MANIFEST").write_text("".join(lines))


def serve(release, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "model.serve", f"--release={release}"],
        env=os.environ | ENVIRONMENT | environment,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@contextmanager
def server_at(path, release):
    """The process, once it is ready, and a client of it."""
    process = serve(release, ARR_COC_SOCKET=str(path))
    try:
        with client_of(path) as client:
            wait_until_ready(client, process)
            yield process, client
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def client_of(path):
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(transport=transport, base_url="http://model", timeout=60)


def wait_until_ready(client, process):
    deadline = time.monotonic() + 120
    while not reachable(client):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def reachable(client):
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False

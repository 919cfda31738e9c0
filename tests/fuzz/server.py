"""A real model server in a process of its own, with an untrained network."""

import base64
import io
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import torch
from PIL import Image

from model.dataset import vocabulary
from model.network import saved_model
from model.network.network import Network, Sizes
from model.program.files import sha256_hex

QUESTION = "what is the texture of the red object"
ANSWERS = ("rows", "columns", "checks")
ENVIRONMENT = {
    "AIP_HEALTH_ROUTE": "/health",
    "AIP_PREDICT_ROUTE": "/predict",
    "ARR_COC_VERSION": "v7",
    "ARR_COC_PICTURE_PIXELS_MAX": "4000000",
    "ARR_COC_REQUEST_PIXELS_MAX": "4000000",
}


def make_release(folder: Path) -> Path:
    """An untrained network, sealed."""
    torch.manual_seed(0)
    words = vocabulary.build([QUESTION])
    sizes = Sizes(16, len(words) + 1, len(ANSWERS), "none")
    weights = Network(sizes).state_dict()
    saved_model.save_plain(folder, sizes, weights, words, ANSWERS, "sha256:0")
    names = sorted(path.name for path in folder.iterdir())
    lines = [f"{sha256_hex((folder / name).read_bytes())}  {name}\n" for name in names]
    (folder / "MANIFEST").write_text("".join(lines))
    return folder


def picture(size: int = 16, kind: str = "PNG") -> str:
    """A small picture in base64."""
    data = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 30)).save(data, kind)
    return base64.b64encode(data.getvalue()).decode()


class Served:
    """The server's port and process."""

    def __init__(self, port: int, process: psutil.Process) -> None:
        self.port, self.process = port, process
        self.url = f"http://127.0.0.1:{port}"

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def raw(self, data: bytes, wait_s: float = 20.0, *, end: bool = True) -> bytes:
        """Send these bytes, close one's own side, and read until the server has no more.

        With `end` false the connection stays open until the first answer.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait_s) as one:
            found = b""
            try:
                one.sendall(data)
                if end:
                    one.shutdown(socket.SHUT_WR)
                while part := one.recv(65_536):
                    found += part
                    if not end:
                        break
            except ConnectionError:
                pass  # the server may refuse to read any more
            return found

    def hang_up(self, data: bytes, after_s: float) -> None:
        """Send these bytes and reset the connection."""
        with socket.create_connection(("127.0.0.1", self.port)) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sendall(data)
            time.sleep(after_s)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Start a server of a new release below `folder`, wait until it answers, and end it."""
    (folder / "v7").mkdir()
    release = make_release(folder / "v7")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "model.serve", f"--release={release}"],
            env=os.environ | ENVIRONMENT | {"AIP_HTTP_PORT": str(port)},
            stderr=log, stdout=log, start_new_session=True,
        )  # fmt: skip
    served = Served(port, psutil.Process(process.pid))
    try:
        deadline = time.monotonic() + 120
        while not served.healthy():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        yield served
    finally:
        process.terminate()
        process.wait(timeout=30)
    said = (folder / "log").read_text()
    assert "Traceback" not in said, said[said.index("Traceback") :][-3_000:]

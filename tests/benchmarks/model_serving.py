"""What HTTP costs an answer, and what a batch of 16 saves.

    python tests/benchmarks/model_serving.py

Targets: one question at the median within 1.3 times the bare network; a request of 16 at
least 3 times the throughput of 16 single ones. Also: how long a server takes to start.
"""

import base64
import io
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch
from PIL import Image

from model import text, trained
from model.answering import Answerer, Instance
from model.files import sha256_hex
from model.network.network import Network, Sizes

QUESTION = "what is the texture of the red object"
WIDTH, REPEATS = 64, 300


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        release = _release(Path(name))
        port = _free_port()
        start = time.perf_counter()
        process = _serve(release, port)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                _wait(client, process)
                print(f"a server starts in {time.perf_counter() - start:.1f} s")
                _compare(client, release)
                _processor(client, release, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(10)


def _compare(client: httpx.Client, release: Path) -> None:
    """All four measured in turn, so that a busy machine hits them alike."""
    subject, answerer = trained.load(release), Answerer(release, 1)
    image = _image()
    pixels = torch.from_numpy(np.asarray(Image.open(io.BytesIO(image)).convert("RGB")).copy())
    words = torch.from_numpy(text.numbers([QUESTION], subject.words))[None]
    one = {"image": base64.b64encode(image).decode(), "question": QUESTION}
    instance = Instance(image, QUESTION)
    ways = {
        "bare network": lambda: _ask(subject.network, pixels[None], words),
        "answerer (decode, words)": lambda: answerer.answer([instance]),
        "HTTP, 1 question": lambda: client.post("/predict", json={"instances": [one]}),
        "HTTP, 16 questions": lambda: client.post("/predict", json={"instances": [one] * 16}),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            spent[name].append(time.perf_counter() - start)
    median = {name: statistics.median(seconds) for name, seconds in spent.items()}
    for name, seconds in median.items():
        times = seconds / median["bare network"]
        print(f"{name:26s} {1e3 * seconds:6.2f} ms, {times:.2f} of bare")
    batch = 16 * median["HTTP, 1 question"] / median["HTTP, 16 questions"]
    print(f"one request of 16: {batch:.1f} times the throughput of 16 single ones")


def _processor(client: httpx.Client, release: Path, server: psutil.Process) -> None:
    """Processor time is nearly the same on a busy machine."""
    subject, image = trained.load(release), _image()
    pixels = torch.zeros(1, 80, 80, 3, dtype=torch.uint8)
    words = torch.from_numpy(text.numbers([QUESTION], subject.words))[None]
    one = {"image": base64.b64encode(image).decode(), "question": QUESTION}
    before, start = server.cpu_times(), time.process_time()
    for _ in range(REPEATS):
        _ask(subject.network, pixels, words)
    bare = (time.process_time() - start) / REPEATS
    for _ in range(REPEATS):
        client.post("/predict", json={"instances": [one]})
    after = server.cpu_times()
    spent = (after.user + after.system - before.user - before.system) / REPEATS
    print(f"processor: {1e3 * spent:.2f} ms a request, {spent / bare:.2f} of the bare network")


def _ask(network: Network, pixels: torch.Tensor, words: torch.Tensor) -> None:
    with torch.inference_mode():
        network(pixels, words)


def _release(folder: Path) -> Path:
    release = folder / "v1"
    words, answers = text.vocabulary([QUESTION]), ("rows", "columns", "checks")
    sizes = Sizes(WIDTH, len(words) + 1, len(answers), "none")
    trained.save(release, sizes, Network(sizes).state_dict(), words, answers, "sha256:0")
    lines = [f"{sha256_hex(p.read_bytes())}  {p.name}\n" for p in sorted(release.iterdir())]
    (release / "MANIFEST").write_text("".join(lines))
    return release


def _image() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).quantize(64).save(buffer, "BMP")
    return buffer.getvalue()


def _serve(release: Path, port: int) -> subprocess.Popen[bytes]:
    address = {
        "AIP_HTTP_PORT": str(port), "AIP_HEALTH_ROUTE": "/health",
        "AIP_PREDICT_ROUTE": "/predict", "ARR_COC_VERSION": "v1",
    }  # fmt: skip
    command = [sys.executable, "-m", "model.serve", f"--release={release}"]
    return subprocess.Popen(command, env=os.environ | address)


def _wait(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            client.get("/health")
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("the server ended")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
